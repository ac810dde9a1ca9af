# The inner guest: counts in real mode, with values in registers that it checks at every turn. It is in the middle of its loop
# nearly all of the time, so that this is where a snapshot finds it.
#
# Port 0x10: the number of turns so far, 32 bits. Port 0x11: a register has changed.

        .code16
        .section .rodata
        .globl  inner_guest, inner_guest_end
inner_guest:
        xorl    %eax, %eax
        movl    $0x12345678, %ebx
        movl    $0xdeadbeef, %esi
        movl    $0x0badcafe, %edi
        movl    $0x600dbee5, %ebp
turn:
        movl    $3000000, %ecx
spin:
        decl    %ecx
        jnz     spin
        cmpl    $0x12345678, %ebx
        jne     changed
        cmpl    $0xdeadbeef, %esi
        jne     changed
        cmpl    $0x0badcafe, %edi
        jne     changed
        cmpl    $0x600dbee5, %ebp
        jne     changed
        incl    %eax
        outl    %eax, $0x10
        jmp     turn
changed:
        outb    %al, $0x11
        hlt
inner_guest_end:

        .section .note.GNU-stack, "", @progbits
