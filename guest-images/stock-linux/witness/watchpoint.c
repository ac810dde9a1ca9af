/* A process whose debug registers are set, and another that hears of each hit, as a debugger does. */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "witness.h"

/* DR7: the first two are in use by this process, for writes to 8 and to 4 bytes. */
#define CONTROL (1ul << 0 | 1ul << 2 | 1ul << 16 | 2ul << 18 | 1ul << 20 | 3ul << 22)

static volatile uint64_t watched;
/* Nobody writes here. */
static volatile uint32_t quiet;

static void *debug_register(int number) {
	return (void *)(offsetof(struct user, u_debugreg) + number * sizeof(long));
}

static long peek(pid_t child, int number) {
	return ptrace(PTRACE_PEEKUSER, child, debug_register(number), NULL);
}

static void poke(pid_t child, int number, unsigned long value) {
	if (ptrace(PTRACE_POKEUSER, child, debug_register(number), value) != 0)
		die("setting a debug register");
}

_Noreturn void watch_variable(void) {
	pid_t child = fork();
	int status, signal = 0;

	if (child < 0)
		die("fork");
	if (child == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		for (;;) {
			counters->written++;
			watched++;
			pass_time();
		}
	}
	waitpid(child, &status, 0);
	poke(child, 0, (unsigned long)&watched);
	poke(child, 1, (unsigned long)&quiet);
	poke(child, 7, CONTROL);
	for (;;) {
		if (ptrace(PTRACE_CONT, child, NULL, signal) != 0 || waitpid(child, &status, 0) != child || !WIFSTOPPED(status))
			die("the watched process");
		signal = WSTOPSIG(status);
		if (signal != SIGTRAP)
			continue;
		signal = 0;
		counters->trapped++;
		counters->debug_wrong += (peek(child, 6) & 0xf) != 1;
		counters->debug_wrong += peek(child, 0) != (long)&watched;
		counters->debug_wrong += peek(child, 1) != (long)&quiet;
		counters->debug_wrong += (peek(child, 7) & 0xff00ff) != (CONTROL & 0xff00ff);
		poke(child, 6, 0);
	}
}
