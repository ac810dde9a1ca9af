/*
 * /init of a Linux that runs a guest of its own: builds it by KVM, runs it for ever, and says how far it has come. Each line of the
 * console is one turn of the inner guest:
 *
 *   nested-ready             it is about to be run for the first time
 *   nested: turn N           it has counted to N, which is one more than the last time
 *   nested: broken: WHY      its registers, its count or its end are not what they should be
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEMORY_BYTES 0x10000
#define CODE_ADDRESS 0x1000
#define PORT_TURN 0x10

extern const unsigned char inner_guest[], inner_guest_end[];

static void broken(const char *format, ...)
{
	va_list arguments;

	printf("nested: broken: ");
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\n");
	/* The first process must not end: the kernel would panic, and hide the line. */
	for (;;)
		pause();
}

static int check(const char *name, int result)
{
	if (result < 0)
		broken("%s: %s", name, strerror(errno));
	return result;
}

int main(void)
{
	struct kvm_userspace_memory_region slot = { .memory_size = MEMORY_BYTES };
	struct kvm_regs regs = { .rip = CODE_ADDRESS, .rflags = 2 };
	struct kvm_sregs sregs;
	struct kvm_run *run;
	uint32_t turns = 0, turn;
	void *memory;
	int kvm, vm, vcpu, run_bytes;

	setvbuf(stdout, NULL, _IONBF, 0);
	kvm = check("/dev/kvm", open("/dev/kvm", O_RDWR | O_CLOEXEC));
	vm = check("KVM_CREATE_VM", ioctl(kvm, KVM_CREATE_VM, 0));
	memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		broken("mmap: %s", strerror(errno));
	memcpy((char *)memory + CODE_ADDRESS, inner_guest, inner_guest_end - inner_guest);
	slot.userspace_addr = (uintptr_t)memory;
	check("KVM_SET_USER_MEMORY_REGION", ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot));
	vcpu = check("KVM_CREATE_VCPU", ioctl(vm, KVM_CREATE_VCPU, 0));
	check("KVM_GET_SREGS", ioctl(vcpu, KVM_GET_SREGS, &sregs));
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	check("KVM_SET_SREGS", ioctl(vcpu, KVM_SET_SREGS, &sregs));
	check("KVM_SET_REGS", ioctl(vcpu, KVM_SET_REGS, &regs));
	run_bytes = check("KVM_GET_VCPU_MMAP_SIZE", ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
	run = mmap(NULL, run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		broken("mmap of the vCPU: %s", strerror(errno));

	printf("nested-ready\n");
	for (;;) {
		if (ioctl(vcpu, KVM_RUN, 0) < 0) {
			if (errno != EINTR && errno != EAGAIN)
				broken("KVM_RUN: %s", strerror(errno));
			continue;
		}
		if (run->exit_reason != KVM_EXIT_IO || run->io.port != PORT_TURN || run->io.size != 4)
			broken("exit %u, port %#x", run->exit_reason, run->io.port);
		memcpy(&turn, (char *)run + run->io.data_offset, sizeof(turn));
		if (turn != turns + 1)
			broken("turn %u after %u", turn, turns);
		turns = turn;
		printf("nested: turn %u\n", turns);
	}
}
