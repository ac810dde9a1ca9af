/*
 * Reseeds the kernel's random numbers, at once, from each line on standard input; answers "ok" or "failed".
 *
 * A clone has its source's random state, and would draw what its source and its siblings draw. A unique id, mixed in
 * (that is what writing to /dev/urandom does) and drawn from right away (RNDRESEEDCRNG), parts them. The kernel's driver
 * for ACPI's "VM generation ID" does the same.
 *
 * It runs from boot on and waits, because starting a program takes much longer than this where ring 0 is emulated.
 */
#include <fcntl.h>
#include <linux/random.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

int main(void) {
	char line[256];
	ssize_t length;
	int urandom = open("/dev/urandom", O_WRONLY);

	while ((length = read(STDIN_FILENO, line, sizeof line)) > 0) {
		const char *answer = "ok\n";

		if (write(urandom, line, length) != length || ioctl(urandom, RNDRESEEDCRNG) != 0)
			answer = "failed\n";
		if (write(STDOUT_FILENO, answer, strlen(answer)) < 0)
			break;
	}
	return 1;
}
