//! Holding the values: the loop that a vCPU is nearly always in when it is paused.

use iced_x86::code_asm::*;

use super::values::ROUNDS_PER_FULL;
use super::{
    Call, Emit, FS_OFFSET, FX_MXCSR, FX_WORDS, GENERAL, Program, VECTOR_LEN, Width, XMM, YMM, by_gs, part,
};
use crate::pulse::layout::{block, status};

impl Program {
    /// Loads the registers that FXRSTOR has not, and compares until something is pending. RBP is the block at first.
    pub(super) fn hold(&mut self, width: Width) -> Emit {
        let mut again = self.a.create_label();
        let mut pending = self.a.create_label();
        let failed_general = GENERAL.map(|_| self.a.create_label());
        let failed_vector = YMM.map(|_| self.a.create_label());

        if width == Width::Avx {
            for (i, register) in (0..).zip(YMM) {
                self.a.vmovdqu(register, ptr(rbp + (block::VECTORS + VECTOR_LEN * i)))?;
            }
        }
        for (at, register) in (block::GENERAL..).step_by(8).zip(GENERAL) {
            self.a.mov(register, by_gs(at))?;
        }

        self.a.set_label(&mut again)?;
        self.compare_general(&failed_general)?;
        self.compare_vectors(width, &failed_vector)?;
        let a = &mut self.a;
        a.cmp(byte_ptr(block::PENDING).gs(), 0)?;
        a.jne(pending)?;
        a.dec(qword_ptr(block::ROUNDS_TO_FULL).gs())?;
        a.jne(again)?;
        a.set_label(&mut pending)?;
        self.full_round(again)?;
        self.look_up()?;
        self.failed(width, failed_general, failed_vector)
    }

    /// Compares each general register with its value, addressed through GS and FS in turn.
    fn compare_general(&mut self, failed: &[CodeLabel; 16]) -> Emit {
        let a = &mut self.a;
        for (i, (&register, &failed)) in GENERAL.iter().zip(failed).enumerate() {
            let at = block::GENERAL + 8 * i as u64;
            let value = if i % 2 == 0 { by_gs(at) } else { ptr(at - FS_OFFSET).fs() };
            a.cmp(register, value)?;
            a.jne(failed)?;
        }
        Ok(())
    }

    /// PTEST compares without a spare register: carry says that the vector has all bits that it should have, zero that it
    /// has none that it should not have.
    fn compare_vectors(&mut self, width: Width, failed: &[CodeLabel; 16]) -> Emit {
        let a = &mut self.a;
        for (i, &failed) in failed.iter().enumerate() {
            let at = VECTOR_LEN * i as u64;
            let (value, inverted) = (by_gs(block::VECTORS + at), by_gs(block::INVERTED + at));
            match width {
                Width::Avx => a.vptest(YMM[i], value)?,
                Width::Sse => a.ptest(XMM[i], value)?,
            }
            a.jae(failed)?;
            match width {
                Width::Avx => a.vptest(YMM[i], inverted)?,
                Width::Sse => a.ptest(XMM[i], inverted)?,
            }
            a.jne(failed)?;
        }
        Ok(())
    }

    /// Compares the state that cannot be compared in place, with the help of RAX and RCX. Goes on holding if nothing is pending.
    fn full_round(&mut self, again: CodeLabel) -> Emit {
        let a = &mut self.a;
        let mut word = a.create_label();
        let mut same = a.create_label();
        a.mov(by_gs(block::SAVED_RAX), rax)?;
        a.mov(by_gs(block::SAVED_RCX), rcx)?;
        a.fxsave64(by_gs(block::FX_FOUND))?;
        // Addresses and opcode of the last x87 instruction, and the mask of MXCSR, differ between processors.
        a.mov(word_ptr(block::FX_FOUND + 6).gs(), 0)?;
        a.mov(qword_ptr(block::FX_FOUND + 8).gs(), 0)?;
        a.mov(qword_ptr(block::FX_FOUND + 16).gs(), 0)?;
        a.mov(dword_ptr(block::FX_FOUND + FX_MXCSR + 4).gs(), 0)?;
        a.mov(ecx, FX_WORDS - 1)?;
        a.set_label(&mut word)?;
        a.mov(rax, ptr(rcx * 8 + block::FX_FOUND).gs())?;
        a.cmp(rax, ptr(rcx * 8 + block::FX).gs())?;
        a.je(same)?;
        a.mov(rbx, rax)?;
        a.mov(edi, ecx)?;
        a.mov(esi, part::X87)?;
        a.jmp(self.labels.self_test_failed)?;
        a.set_label(&mut same)?;
        a.dec(ecx)?;
        a.jns(word)?;

        a.mov(rax, by_gs(block::STATUS))?;
        a.inc(qword_ptr(rax + status::CPU_ROUNDS))?;
        a.inc(qword_ptr(rax + status::CPU_COUNTER))?;
        a.mov(qword_ptr(block::ROUNDS_TO_FULL).gs(), ROUNDS_PER_FULL)?;
        a.mov(rax, by_gs(block::SAVED_RAX))?;
        a.mov(rcx, by_gs(block::SAVED_RCX))?;
        a.cmp(byte_ptr(block::PENDING).gs(), 0)?;
        a.je(again)
    }

    /// When all is well and something is pending: lets go of the registers, checks the debug registers and returns to `run`.
    fn look_up(&mut self) -> Emit {
        let Self { a, labels, .. } = self;
        let mut failed = a.create_label();
        a.mov(rbp, by_gs(block::SELF))?;
        a.lea(rsp, ptr(rbp + block::RING3_STACK))?;
        a.mov(eax, Call::ReadDebug as i32)?;
        a.call(labels.gate)?;
        for (part, at) in (part::DEBUG..part::FS).zip((0..).step_by(8)) {
            a.mov(esi, part)?;
            a.mov(rbx, qword_ptr(rbp + (block::DEBUG_FOUND + at)))?;
            a.cmp(rbx, qword_ptr(rbp + (block::DEBUG + at)))?;
            a.jne(failed)?;
        }
        a.jmp(labels.run)?;
        a.set_label(&mut failed)?;
        a.jmp(labels.self_test_failed)
    }

    /// Where failed comparisons jump to. It sets RBX = the value found (a vector is in vector register 0), ESI = the part.
    fn failed(&mut self, width: Width, general: [CodeLabel; 16], vectors: [CodeLabel; 16]) -> Emit {
        let Self { a, labels, .. } = self;
        for (part, (register, mut label)) in (part::GENERAL..).zip(GENERAL.into_iter().zip(general)) {
            a.set_label(&mut label)?;
            a.mov(rbx, register)?;
            a.mov(esi, part)?;
            a.jmp(labels.self_test_failed)?;
        }
        for (part, (i, mut label)) in (part::VECTOR..).zip(vectors.into_iter().enumerate()) {
            a.set_label(&mut label)?;
            match width {
                Width::Avx => a.vmovdqa(ymm0, YMM[i])?,
                Width::Sse => a.movdqa(xmm0, XMM[i])?,
            }
            a.mov(esi, part)?;
            a.jmp(labels.self_test_failed)?;
        }
        Ok(())
    }
}
