/*
 * What a guest can see of having been cloned: a program that watches clocks, timers, registers and the kernel's messages, and tells on
 * request over the console. README.md has its commands. It must leave the processor alone: where it is tested a machine
 * is emulated inside an emulated one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "witness.h"

#define EXIT_PORT 0xf4

struct counters *counters;
int processors;

static uint64_t nonce;
static int kernel_messages;
static unsigned bad_messages;

_Noreturn void die(const char *what) {
	printf("witness-failed: %s: %s\n", what, strerror(errno));
	fflush(stdout);
	_exit(1);
}

uint64_t now_ns(clockid_t clock) {
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

void raise_to(_Atomic uint64_t *highest, uint64_t value) {
	uint64_t seen = *highest;

	while (seen < value && !atomic_compare_exchange_weak(highest, &seen, value))
		;
}

void stay_on(int processor) {
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(processor, &set);
	if (sched_setaffinity(0, sizeof set, &set) != 0)
		die("sched_setaffinity");
}

struct timespec part_of_pace(unsigned thousandths) {
	uint64_t ns = counters->pace_ms * 1000 * thousandths;

	return (struct timespec){ ns / 1000000000, ns % 1000000000 };
}

void pass_time(void) {
	if (!counters->busy) {
		struct timespec pace = part_of_pace(1000);

		nanosleep(&pace, NULL);
		return;
	}
	for (uint64_t end = now_ns(CLOCK_MONOTONIC) + 20000000; now_ns(CLOCK_MONOTONIC) < end;)
		for (volatile int spin = 0; spin < 100000; spin++)
			;
}

/* Starts a process that does what `body` says. */
#define START(body)                     \
	do {                            \
		pid_t pid = fork();     \
		if (pid < 0)            \
			die("fork");    \
		if (pid == 0) {         \
			body;           \
		}                       \
	} while (0)

/* What no kernel says that believes in its clock and in its processors. */
static const char *const BAD[] = {
	"unstable", "timekeeping watchdog", "soft lockup", "hard lockup", "blocked for more than", "detected stall", "Call Trace", "BUG:",
	"WARNING:", "Oops", "general protection", "segfault", "traps:", "clock skew", "lost interrupt", "nobody cared",
};

/* Prints new bad lines of the kernel's log, and counts all. */
static void read_kernel_messages(void) {
	char record[8192];

	for (;;) {
		ssize_t length = read(kernel_messages, record, sizeof record - 1);
		char *text;

		if (length < 0 && errno == EPIPE)
			continue; /* some were overwritten before they could be read */
		if (length <= 0)
			return;
		record[length] = 0;
		text = strchr(record, ';');
		if (!text++)
			continue;
		text[strcspn(text, "\n")] = 0;
		for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
			if (strcasestr(text, BAD[i])) {
				bad_messages++;
				printf("witness-bad: %s\n", text);
				break;
			}
		}
	}
}

/* Steal time of all processors, in ticks, as the kernel accounts for it. */
static uint64_t steal(void) {
	uint64_t user, nice, system, idle, iowait, irq, softirq, stolen = 0;
	FILE *stat = fopen("/proc/stat", "r");

	if (!stat)
		return 0;
	if (fscanf(stat, "cpu %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &user,
		   &nice, &system, &idle, &iowait, &irq, &softirq, &stolen) != 8)
		stolen = 0;
	fclose(stat);
	return stolen;
}

static void report(void) {
	uint64_t monotonic, realtime, tries = 0;
	char clocksource[32] = "?";
	FILE *file = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "r");

	if (file) {
		if (fscanf(file, "%31s", clocksource) != 1)
			strcpy(clocksource, "?");
		fclose(file);
	}
	read_kernel_messages();
	/* Both of one instant, or as nearly as this process is left alone. */
	do {
		monotonic = now_ns(CLOCK_MONOTONIC);
		realtime = now_ns(CLOCK_REALTIME);
	} while (now_ns(CLOCK_MONOTONIC) - monotonic > 1000000 && tries++ < 100);
	printf("witness: nonce=%016" PRIx64 " cpus=%d has=%lu clock=%s kmsg_bad=%u steal=%" PRIu64, nonce, processors,
	       register_sets(), clocksource, bad_messages, steal());
	printf(" monotonic_ns=%" PRIu64 " realtime_ns=%" PRIu64, monotonic, realtime);
	printf(" looks=%" PRIu64 " back=%" PRIu64 " max_gap_ms=%" PRIu64, counters->looks, counters->back,
	       atomic_exchange(&counters->gap_ns, 0) / 1000000);
	printf(" timers=%" PRIu64 " alarms=%" PRIu64 " naps=%" PRIu64 " sleeps=%" PRIu64 " early=%" PRIu64 " late_ms=%" PRIu64,
	       counters->timers, counters->alarms, counters->naps, counters->sleeps, counters->early,
	       atomic_exchange(&counters->late_ns, 0) / 1000000);
	printf(" held=%" PRIu64 " wrong=%" PRIu64 " written=%" PRIu64 " trapped=%" PRIu64 " debug_wrong=%" PRIu64 "\n",
	       counters->held, counters->wrong, counters->written, counters->trapped, counters->debug_wrong);
}

static void obey(char *line) {
	if (strcmp(line, "report") == 0) {
		report();
	} else if (strcmp(line, "busy") == 0 || strcmp(line, "idle") == 0) {
		counters->busy = line[0] == 'b';
		printf("%s\n", line);
	} else if (strncmp(line, "pace ", 5) == 0 && atoi(line + 5) > 0) {
		counters->pace_ms = atoi(line + 5);
		printf("%s\n", line);
	} else if (strncmp(line, "sh ", 3) == 0) {
		int status = system(line + 3);

		printf("sh exit=%d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
	} else if (strncmp(line, "poweroff", 8) == 0) {
		printf("poweroff\n");
		fflush(stdout);
		tcdrain(STDOUT_FILENO);
		if (ioperm(EXIT_PORT, 1, 1) != 0)
			die("ioperm");
		outb(atoi(line + 8), EXIT_PORT);
	} else if (strcmp(line, "reboot") == 0) {
		reboot(RB_AUTOBOOT);
	} else if (*line) {
		printf("error: there is no command %s\n", line);
	}
	fflush(stdout);
}

int main(void) {
	char line[1024];

	processors = sysconf(_SC_NPROCESSORS_ONLN);
	counters = mmap(NULL, sizeof *counters, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	kernel_messages = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	if (counters == MAP_FAILED || kernel_messages < 0 || getrandom(&nonce, sizeof nonce, 0) != sizeof nonce)
		die("start");
	counters->pace_ms = 100;
	for (int processor = 0; processor < processors; processor++) {
		START(watch_clocks(processor));
		START(hold(processor, 2 * processor));
		START(hold(processor, 2 * processor + 1));
	}
	START(watch_variable());
	START(count_timer());
	START(count_alarms());
	START(sleep_over_and_over(1, &counters->naps));
	START(sleep_over_and_over(20, &counters->sleeps));
	printf("witness-ready: nonce=%016" PRIx64 "\n", nonce);
	fflush(stdout);
	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\r\n")] = 0;
		obey(line);
	}
	die("the console");
}
