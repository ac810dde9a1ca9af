//! What happens after a mismatch, and the reports.

use iced_x86::code_asm::*;

use super::{Call, Emit, FS_OFFSET, FX_STACK, FX_VECTORS, Program, VECTOR_LEN, imm, part};
use crate::pulse::layout::{block, params, status};

impl Program {
    /// Entered when a comparison has failed: RBX = found, ESI = part, EDI = quadword of the FXSAVE image if the part is x87. No
    /// other register can be trusted, not even the stack pointer, so ring 0 finds the way back to the block.
    pub(super) fn verdict(&mut self) -> Emit {
        let mut fs_is_right = self.a.create_label();
        let mut gs_is_right = self.a.create_label();
        let mut not_vector = self.a.create_label();
        let mut sse = self.a.create_label();
        let mut find_word = self.a.create_label();
        let mut not_x87 = self.a.create_label();
        let mut not_stack = self.a.create_label();
        let mut record = self.a.create_label();
        let mut known = self.a.create_label();

        let Self { a, labels, .. } = self;
        a.set_label(&mut labels.self_test_failed)?;
        a.mov(eax, Call::Recover as i32)?;
        a.jmp(labels.gate)?;

        // RDX will be the expected value.
        a.set_label(&mut labels.recovered)?;
        a.lea(rdx, ptr(rbp + FS_OFFSET))?;
        a.cmp(qword_ptr(rbp + block::FS_BASE), rdx)?;
        a.je(fs_is_right)?;
        a.mov(rbx, qword_ptr(rbp + block::FS_BASE))?;
        a.mov(esi, part::FS)?;
        a.jmp(record)?;
        a.set_label(&mut fs_is_right)?;
        a.mov(rdx, rbp)?;
        a.cmp(qword_ptr(rbp + block::GS_BASE), rdx)?;
        a.je(gs_is_right)?;
        a.mov(rbx, qword_ptr(rbp + block::GS_BASE))?;
        a.mov(esi, part::GS)?;
        a.jmp(record)?;

        a.set_label(&mut gs_is_right)?;
        a.mov(rdx, qword_ptr(rbp + rsi * 8 + block::GENERAL))?;
        a.cmp(esi, part::VECTOR)?;
        a.jb(record)?;
        a.cmp(esi, part::X87)?;
        a.jae(not_vector)?;
        // Find the first quadword of the vector that differs; without AVX a vector has two.
        a.movdqu(xmmword_ptr(rbp + block::FX_FOUND), xmm0)?;
        a.cmp(qword_ptr(rbp + block::AVX), 0)?;
        a.je(sse)?;
        a.vmovdqu(ymmword_ptr(rbp + block::FX_FOUND), ymm0)?;
        a.set_label(&mut sse)?;
        a.lea(ecx, ptr(rsi - part::VECTOR))?;
        a.shl(ecx, VECTOR_LEN.trailing_zeros())?;
        a.xor(eax, eax)?;
        a.set_label(&mut find_word)?;
        a.lea(rdx, ptr(rcx + rax))?;
        a.mov(rdx, qword_ptr(rbp + rdx + block::VECTORS))?;
        a.mov(rbx, qword_ptr(rbp + rax + block::FX_FOUND))?;
        a.add(eax, 8)?;
        a.cmp(rdx, rbx)?;
        a.je(find_word)?;
        a.jmp(record)?;

        a.set_label(&mut not_vector)?;
        a.jne(not_x87)?;
        a.mov(rdx, qword_ptr(rbp + rdi * 8 + block::FX))?;
        a.cmp(edi, imm(FX_STACK / 8 - 1))?;
        a.jb(record)?;
        a.mov(esi, part::MXCSR)?;
        a.je(record)?;
        // Two quadwords to a register.
        a.lea(esi, ptr(rdi - (FX_STACK / 8)))?;
        a.shr(esi, 1)?;
        a.add(esi, part::STACK)?;
        a.cmp(edi, imm(FX_VECTORS / 8))?;
        a.jb(record)?;
        a.lea(esi, ptr(rdi - (FX_VECTORS / 8)))?;
        a.shr(esi, 1)?;
        a.add(esi, part::VECTOR)?;
        a.jmp(record)?;
        a.set_label(&mut not_x87)?;
        a.cmp(esi, part::DEBUG)?;
        a.jb(not_stack)?;
        a.mov(rdx, qword_ptr(rbp + rsi * 8 + (imm(block::DEBUG) - 8 * part::DEBUG)))?;
        a.set_label(&mut not_stack)?;
        a.nop()?;

        // The first failure is kept and reported at once; later ones are only counted.
        a.set_label(&mut record)?;
        a.mov(rax, qword_ptr(rbp + block::STATUS))?;
        a.inc(qword_ptr(rax + status::CPU_FAILURES))?;
        a.cmp(qword_ptr(rbp + block::FAILED), 0)?;
        a.jne(known)?;
        a.inc(esi)?;
        a.mov(qword_ptr(rbp + block::FAILED), rsi)?;
        a.mov(qword_ptr(rbp + block::EXPECTED), rdx)?;
        a.mov(qword_ptr(rbp + block::FOUND), rbx)?;
        a.call(labels.report)?;
        a.set_label(&mut known)?;
        a.jmp(labels.run)
    }

    /// Prints the result of this vCPU's self-test so far.
    pub(super) fn report(&mut self) -> Emit {
        let mut on = self.a.create_label();
        let mut failed = self.a.create_label();
        self.a.set_label(&mut self.labels.report)?;
        self.say("pulse: self-test cpu=")?;
        self.a.mov(rax, qword_ptr(rbp + block::INDEX))?;
        self.a.call(self.labels.put_decimal)?;
        self.a.cmp(qword_ptr(params::SELF_TEST), 0)?;
        self.a.jne(on)?;
        self.say(" off")?;
        self.a.jmp(self.labels.end_line)?;

        self.a.set_label(&mut on)?;
        self.a.cmp(qword_ptr(rbp + block::FAILED), 0)?;
        self.a.jne(failed)?;
        self.say(" ok rounds=")?;
        self.a.mov(rax, qword_ptr(rbp + block::STATUS))?;
        self.a.mov(rax, qword_ptr(rax + status::CPU_ROUNDS))?;
        self.a.call(self.labels.put_decimal)?;
        self.a.jmp(self.labels.end_line)?;

        self.a.set_label(&mut failed)?;
        self.say(" FAILED ")?;
        let Self { a, labels, .. } = self;
        a.mov(rax, qword_ptr(rbp + block::FAILED))?;
        a.imul_3(rax, rax, imm(part::NAME_LEN as u64))?;
        a.lea(rsi, ptr(labels.part_names))?;
        a.lea(rsi, ptr(rsi + rax - part::NAME_LEN))?;
        a.mov(ecx, imm(part::NAME_LEN as u64))?;
        a.call(labels.put_text)?;
        for (text, field) in [("expected=", block::EXPECTED), (" found=", block::FOUND)] {
            self.say(text)?;
            self.a.mov(rax, qword_ptr(rbp + field))?;
            self.a.call(self.labels.put_hex)?;
        }
        self.a.jmp(self.labels.end_line)?;

        self.a.set_label(&mut self.labels.part_names)?;
        self.a.db(part::NAMES.as_flattened())
    }
}
