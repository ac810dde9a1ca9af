/* Processes that fill their registers, wait, and compare. */
#include <cpuid.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <asm/prctl.h>
#include <unistd.h>

#include "witness.h"

struct registers {
	uint64_t general[10];      /* RBX RBP RDX R8 R9 R10 R12 R13 R14 R15: those that neither the loop nor a system call needs */
	uint8_t x87[8][16];        /* of which ten bytes each */
	uint8_t vectors[32][64];   /* XMM, YMM or ZMM */
	uint64_t masks[8];         /* k1 to k7, 16 bits of each */
	uint32_t mxcsr;
	uint16_t control, unused;
	uint32_t pkru, unused_either;
	uint64_t fs, gs;
};

_Static_assert(offsetof(struct registers, x87) == 80, "as in hold.S");
_Static_assert(offsetof(struct registers, vectors) == 208, "as in hold.S");
_Static_assert(offsetof(struct registers, masks) == 2256, "as in hold.S");
_Static_assert(offsetof(struct registers, mxcsr) == 2320, "as in hold.S");
_Static_assert(offsetof(struct registers, control) == 2324, "as in hold.S");
_Static_assert(offsetof(struct registers, pkru) == 2328, "as in hold.S");
_Static_assert(offsetof(struct registers, fs) == 2336, "as in hold.S");
_Static_assert(offsetof(struct registers, gs) == 2344, "as in hold.S");

void hold_registers(const struct registers *set, struct registers *found, unsigned long spins, const struct timespec *nap,
		    unsigned long has);

/* AT_HWCAP2: user space may read and write FS and GS base. */
#define HWCAP2_FSGSBASE (1 << 1)

unsigned long register_sets(void) {
	unsigned eax, ebx, ecx, edx, enabled, high;
	unsigned long has = 0;

	__cpuid(1, eax, ebx, ecx, edx);
	if (!(ecx & bit_OSXSAVE))
		return 0;
	__asm__("xgetbv" : "=a"(enabled), "=d"(high) : "c"(0));
	if ((ecx & bit_AVX) && (enabled & 6) == 6)
		has |= HAS_AVX;
	if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) {
		if ((ebx & bit_AVX512F) && (enabled & 0xe6) == 0xe6)
			has |= HAS_AVX512;
		if (ecx & bit_OSPKE)
			has |= HAS_PKRU;
	}
	if (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE)
		has |= HAS_FSGSBASE;
	return has;
}

/* A pattern of its own for every register of every process. */
static void fill(struct registers *set, int number) {
	uint64_t word = 0x9e3779b97f4a7c15ull * (number + 1);
	uint8_t *bytes = (uint8_t *)set;

	for (size_t i = 0; i < sizeof *set; i++) {
		word = word * 6364136223846793005ull + 1442695040888963407ull;
		bytes[i] = word >> 56;
	}
	for (int i = 0; i < 8; i++) {
		set->x87[i][7] |= 0x80; /* a normal number: exponent around zero, highest bit of the significand set */
		set->x87[i][8] = 0xf0 + i;
		set->x87[i][9] = 0x3f;
		memset(&set->x87[i][10], 0, 6);
		set->masks[i] &= 0xffff;
	}
	set->mxcsr = 0x1f80 | (number & 3) << 13; /* exceptions masked, a rounding mode */
	set->control = 0x037f | (number & 3) << 10;
	set->pkru &= ~3u; /* key 0 is that of all memory */
	set->fs &= 0x7fffffffffff;
	set->gs &= 0x7fffffffffff;
}

static int differences(const struct registers *set, const struct registers *found, unsigned long has) {
	int vectors = has & HAS_AVX512 ? 32 : 16, wrong = 0;
	size_t width = has & HAS_AVX512 ? 64 : has & HAS_AVX ? 32 : 16;

	for (int i = 0; i < 10; i++)
		wrong += set->general[i] != found->general[i];
	for (int i = 0; i < 8; i++)
		wrong += memcmp(set->x87[i], found->x87[i], 10) != 0;
	for (int i = 0; i < vectors; i++)
		wrong += memcmp(set->vectors[i], found->vectors[i], width) != 0;
	for (int i = 0; i < 7 && has & HAS_AVX512; i++)
		wrong += set->masks[i] != found->masks[i];
	wrong += set->mxcsr != found->mxcsr;
	wrong += set->control != found->control;
	if (has & HAS_PKRU)
		wrong += set->pkru != found->pkru;
	if (has & HAS_FSGSBASE)
		wrong += (set->fs != found->fs) + (set->gs != found->gs);
	return wrong;
}

/* FS and GS base as the kernel knows them, which it does on every processor. */
static int bases_differ(uint64_t fs, uint64_t gs) {
	uint64_t now_fs = 0, now_gs = 0;

	syscall(SYS_arch_prctl, ARCH_GET_FS, &now_fs);
	syscall(SYS_arch_prctl, ARCH_GET_GS, &now_gs);
	return (fs != now_fs) + (gs != now_gs);
}

_Noreturn void hold(int processor, int number) {
	unsigned long has = register_sets();
	struct registers set, found;
	uint64_t fs = 0, gs = (uint64_t)&set + number;

	stay_on(processor);
	fill(&set, number);
	syscall(SYS_arch_prctl, ARCH_GET_FS, &fs);
	syscall(SYS_arch_prctl, ARCH_SET_GS, gs);
	for (;;) {
		int busy = counters->busy;
		struct timespec nap = part_of_pace(1000);

		memset(&found, 0, sizeof found);
		hold_registers(&set, &found, busy ? 20000000 : 0, busy ? NULL : &nap, has);
		counters->wrong += differences(&set, &found, has) + bases_differ(fs, gs);
		counters->held++;
	}
}
