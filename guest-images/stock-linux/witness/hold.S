/*
 * void hold_registers(const struct registers *set, struct registers *found, unsigned long spins,
 *                     const struct timespec *nap, unsigned long has)
 *
 * Loads every register that user space has, counts down from `spins`, sleeps for `nap`, if there is one, and stores what the
 * registers hold then. registers.c has the same offsets.
 */
	.intel_syntax noprefix
	.set GPR, 0
	.set X87, 80
	.set VECTORS, 208
	.set MASKS, 2256
	.set MXCSR, 2320
	.set CONTROL, 2324
	.set PKRU, 2328
	.set FS_BASE, 2336
	.set GS_BASE, 2344

	.macro each_vector instruction register, last, to_memory
	.set i, 0
	.rept \last + 1
	vector_at \instruction, \register, %i, \to_memory
	.set i, i + 1
	.endr
	.endm
	.altmacro
	.macro vector_at instruction, register, number, to_memory
	.if \to_memory
	\instruction [rdi + VECTORS + 64 * \number], \register&\number
	.else
	\instruction \register&\number, [rdi + VECTORS + 64 * \number]
	.endif
	.endm

	.text
	.globl hold_registers
hold_registers:
	push rbx
	push rbp
	push r12
	push r13
	push r14
	push r15
	sub rsp, 72
	mov [rsp], rsi
	mov [rsp + 8], rdx
	mov [rsp + 16], rcx
	mov [rsp + 24], r8
	stmxcsr [rsp + 48]
	fnstcw [rsp + 52]
	test r8, 4
	jz 1f
	rdfsbase rax
	mov [rsp + 32], rax
	rdgsbase rax
	mov [rsp + 40], rax
	mov rax, [rdi + FS_BASE]
	wrfsbase rax
	mov rax, [rdi + GS_BASE]
	wrgsbase rax
1:	test r8, 8
	jz 1f
	xor ecx, ecx
	rdpkru
	mov [rsp + 56], eax
	mov eax, [rdi + PKRU]
	xor edx, edx
	wrpkru
1:	fninit
	fldcw [rdi + CONTROL]
	.set i, 0
	.rept 8
	fld tbyte ptr [rdi + X87 + 16 * i]
	.set i, i + 1
	.endr
	ldmxcsr [rdi + MXCSR]
	test r8, 2
	jnz 2f
	test r8, 1
	jnz 1f
	each_vector movups, xmm, 15, 0
	jmp 3f
1:	each_vector vmovups, ymm, 15, 0
	jmp 3f
2:	each_vector vmovups, zmm, 31, 0
	kmovw k1, [rdi + MASKS]
	kmovw k2, [rdi + MASKS + 8]
	kmovw k3, [rdi + MASKS + 16]
	kmovw k4, [rdi + MASKS + 24]
	kmovw k5, [rdi + MASKS + 32]
	kmovw k6, [rdi + MASKS + 40]
	kmovw k7, [rdi + MASKS + 48]
3:	mov rbx, [rdi + GPR]
	mov rbp, [rdi + GPR + 8]
	mov rdx, [rdi + GPR + 16]
	mov r8, [rdi + GPR + 24]
	mov r9, [rdi + GPR + 32]
	mov r10, [rdi + GPR + 40]
	mov r12, [rdi + GPR + 48]
	mov r13, [rdi + GPR + 56]
	mov r14, [rdi + GPR + 64]
	mov r15, [rdi + GPR + 72]

	mov rcx, [rsp + 8]
1:	sub rcx, 1
	ja 1b
	mov rdi, [rsp + 16]
	test rdi, rdi
	jz 1f
	xor esi, esi
	mov eax, 35 /* nanosleep */
	syscall
1:
	mov rdi, [rsp]
	mov [rdi + GPR], rbx
	mov [rdi + GPR + 8], rbp
	mov [rdi + GPR + 16], rdx
	mov [rdi + GPR + 24], r8
	mov [rdi + GPR + 32], r9
	mov [rdi + GPR + 40], r10
	mov [rdi + GPR + 48], r12
	mov [rdi + GPR + 56], r13
	mov [rdi + GPR + 64], r14
	mov [rdi + GPR + 72], r15
	mov r8, [rsp + 24]
	fnstcw [rdi + CONTROL]
	.set i, 7
	.rept 8
	fstp tbyte ptr [rdi + X87 + 16 * i]
	.set i, i - 1
	.endr
	stmxcsr [rdi + MXCSR]
	test r8, 2
	jnz 2f
	test r8, 1
	jnz 1f
	each_vector movups, xmm, 15, 1
	jmp 3f
1:	each_vector vmovups, ymm, 15, 1
	vzeroupper
	jmp 3f
2:	each_vector vmovups, zmm, 31, 1
	kmovw [rdi + MASKS], k1
	kmovw [rdi + MASKS + 8], k2
	kmovw [rdi + MASKS + 16], k3
	kmovw [rdi + MASKS + 24], k4
	kmovw [rdi + MASKS + 32], k5
	kmovw [rdi + MASKS + 40], k6
	kmovw [rdi + MASKS + 48], k7
	vzeroupper
3:	test r8, 8
	jz 1f
	xor ecx, ecx
	rdpkru
	mov [rdi + PKRU], eax
	mov eax, [rsp + 56]
	xor edx, edx
	wrpkru
1:	test r8, 4
	jz 1f
	rdfsbase rax
	mov [rdi + FS_BASE], rax
	rdgsbase rax
	mov [rdi + GS_BASE], rax
	mov rax, [rsp + 32]
	wrfsbase rax
	mov rax, [rsp + 40]
	wrgsbase rax
1:	fldcw [rsp + 52]
	ldmxcsr [rsp + 48]
	add rsp, 72
	pop r15
	pop r14
	pop r13
	pop r12
	pop rbp
	pop rbx
	ret
	.section .note.GNU-stack, "", @progbits
