/* Processes that watch time pass. */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <x86intrin.h>

#include "witness.h"

#define MILLISECOND 1000000ull

/* Looks at all clocks again and again, on one processor: none may be behind what was read of it before, CLOCK_MONOTONIC not even
 * behind what another processor has read. */
_Noreturn void watch_clocks(int processor) {
	static const clockid_t clocks[] = { CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_BOOTTIME, CLOCK_REALTIME };
	uint64_t last[4] = { 0 }, last_tsc = 0;
	struct timespec pause;

	stay_on(processor);
	for (;;) {
		uint64_t before = counters->latest_ns, monotonic, tsc;

		for (int i = 0; i < 4; i++) {
			uint64_t now = now_ns(clocks[i]);

			if (now < last[i] || (i == 0 && now < before))
				counters->back++;
			if (i == 0 && last[0])
				raise_to(&counters->gap_ns, now - last[0]);
			last[i] = now;
		}
		monotonic = last[0];
		raise_to(&counters->latest_ns, monotonic);
		tsc = __rdtsc();
		if (tsc < last_tsc)
			counters->back++;
		last_tsc = tsc;
		counters->looks++;
		pause = part_of_pace(200);
		nanosleep(&pause, NULL);
	}
}

/* Once in every pace, by a timer of the kernel's. */
_Noreturn void count_timer(void) {
	uint64_t pace = 0;
	int timer = timerfd_create(CLOCK_MONOTONIC, 0);

	for (;;) {
		uint64_t expired;

		if (pace != counters->pace_ms) {
			struct timespec period = part_of_pace(1000);
			struct itimerspec every = { .it_interval = period, .it_value = period };

			pace = counters->pace_ms;
			if (timerfd_settime(timer, 0, &every, NULL) != 0)
				die("timerfd");
		}
		if (read(timer, &expired, sizeof expired) != sizeof expired)
			die("reading a timerfd");
		counters->timers += expired;
	}
}

/* Once in every 2.5 paces, by a signal. */
_Noreturn void count_alarms(void) {
	uint64_t pace = 0;
	sigset_t alarm;
	int signal;

	sigemptyset(&alarm);
	sigaddset(&alarm, SIGALRM);
	sigprocmask(SIG_BLOCK, &alarm, NULL);
	for (;;) {
		if (pace != counters->pace_ms) {
			struct timespec period = part_of_pace(2500);
			struct timeval same = { period.tv_sec, period.tv_nsec / 1000 };
			struct itimerval every = { .it_interval = same, .it_value = same };

			pace = counters->pace_ms;
			if (setitimer(ITIMER_REAL, &every, NULL) != 0)
				die("setitimer");
		}
		if (sigwait(&alarm, &signal) == 0)
			counters->alarms++;
	}
}

_Noreturn void sleep_over_and_over(unsigned paces, _Atomic uint64_t *count) {
	for (;;) {
		struct timespec duration = part_of_pace(1000 * paces);
		uint64_t wanted = duration.tv_sec * 1000 * MILLISECOND + duration.tv_nsec;
		uint64_t begun = now_ns(CLOCK_MONOTONIC), took;

		while (nanosleep(&duration, NULL) != 0 && errno == EINTR)
			;
		took = now_ns(CLOCK_MONOTONIC) - begun;
		if (took < wanted)
			counters->early++;
		else
			raise_to(&counters->late_ns, took - wanted);
		++*count;
	}
}
