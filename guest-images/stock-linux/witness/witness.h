/* What the processes of the witness share. */
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

/* Counters that every process writes and `report` prints. Nothing here is ever reset, but for `gap_ns` and `late_ns`. */
struct counters {
	_Atomic uint64_t busy;         /* 1: processes hold their registers on the processor, instead of asleep */
	_Atomic uint64_t pace_ms;      /* how often each process does what it does; `pace N` sets it */
	_Atomic uint64_t latest_ns;    /* the highest CLOCK_MONOTONIC that any processor has read */
	_Atomic uint64_t looks;        /* of the clocks */
	_Atomic uint64_t back;         /* a clock was behind what had been read of it before */
	_Atomic uint64_t gap_ns;       /* the longest time between two looks on one processor since the last report */
	_Atomic uint64_t timers;       /* expirations of a periodic timerfd */
	_Atomic uint64_t alarms;       /* SIGALRM of an interval timer */
	_Atomic uint64_t naps;         /* short sleeps that ended */
	_Atomic uint64_t sleeps;       /* long ones */
	_Atomic uint64_t late_ns;      /* the longest time by which a sleep was too long since the last report */
	_Atomic uint64_t early;        /* sleeps that were too short */
	_Atomic uint64_t held;         /* times that all registers were compared */
	_Atomic uint64_t wrong;        /* registers that were not as they had been set */
	_Atomic uint64_t written;      /* writes to a watched variable */
	_Atomic uint64_t trapped;      /* of which the watchpoint has told */
	_Atomic uint64_t debug_wrong;  /* debug registers that were not as they had been set */
};

extern struct counters *counters;
/* Processors of the guest. */
extern int processors;

/* Which registers the processor has, and the kernel saves. */
enum { HAS_AVX = 1, HAS_AVX512 = 2, HAS_FSGSBASE = 4, HAS_PKRU = 8 };
unsigned long register_sets(void);

/* Each is a process of its own and never returns. */
_Noreturn void hold(int processor, int number);
_Noreturn void watch_clocks(int processor);
_Noreturn void watch_variable(void);
_Noreturn void count_timer(void);
_Noreturn void count_alarms(void);
_Noreturn void sleep_over_and_over(unsigned paces, _Atomic uint64_t *count);

/* Waits, awake or asleep. */
void pass_time(void);
/* So many thousandths of a pace. */
struct timespec part_of_pace(unsigned thousandths);
void stay_on(int processor);
uint64_t now_ns(clockid_t clock);
void raise_to(_Atomic uint64_t *highest, uint64_t value);
_Noreturn void die(const char *what);
