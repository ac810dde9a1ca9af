//! The values that the registers hold.

use iced_x86::code_asm::*;

use super::{Call, Emit, FX_CONTROL, FX_MXCSR, FX_STACK, FX_TAGS, FX_VECTORS, GENERAL, Program, VECTOR_LEN};
use crate::pulse::layout::{block, status};

/// Full rounds come after this many rounds of the loop.
pub(super) const ROUNDS_PER_FULL: i32 = 4096;

/// x87 control word with all exceptions masked; precision and rounding are filled in.
const X87_MASKED: i32 = 0x007f;
const X87_EXTENDED: i32 = 0x0300;
const X87_ROUNDING_SHIFT: i32 = 10;
/// MXCSR with all exceptions masked; rounding and flush to zero are filled in.
const SSE_MASKED: i32 = 0x1f80;
const SSE_ROUNDING_SHIFT: i32 = 13;
const SSE_FLUSH_TO_ZERO: i32 = 15;
/// Exponents of ordinary numbers: neither 0 nor all ones.
const EXPONENT_MASK: i32 = 0x1fff;
const EXPONENT_BASE: i32 = 0x2000;

/// Index of RSP among the general registers.
const RSP_INDEX: u64 = 4;

const CR4_OSXSAVE: i32 = 18;
const CPUID_AVX: i32 = 28;
const XCR0_SSE_AND_AVX: i32 = 6;

impl Program {
    /// Makes the values from the nonce and the vCPU's number, finds out about AVX, and loads the debug registers,
    /// which nothing else uses. Changes all registers but RBP.
    pub(super) fn prepare_self_test(&mut self) -> Emit {
        self.a.set_label(&mut self.labels.prepare_self_test)?;
        self.random_values()?;
        self.fx_image()?;
        self.find_avx()?;
        let Self { a, labels, .. } = self;
        a.mov(qword_ptr(rbp + block::ROUNDS_TO_FULL), ROUNDS_PER_FULL)?;
        a.mov(eax, Call::LoadDebug as i32)?;
        a.call(labels.gate)?;
        a.ret()
    }

    fn random_values(&mut self) -> Emit {
        self.load_mixer()?;
        let a = &mut self.a;
        a.mov(rax, qword_ptr(rbp + block::INDEX))?;
        a.shl(rax, 56)?;
        a.add(rax, qword_ptr(status::NONCE))?;
        self.mix()?;
        let Self { a, labels, .. } = self;
        a.mov(rbx, rax)?;
        a.lea(r15, ptr(labels.random))?;
        for (start, end) in [
            (block::GENERAL, block::GENERAL + 8 * GENERAL.len() as u64),
            (block::DEBUG, block::DEBUG + 4 * 8),
            (block::VECTORS, block::VECTORS + 16 * VECTOR_LEN),
        ] {
            a.lea(rdi, ptr(rbp + start))?;
            a.lea(rsi, ptr(rbp + end))?;
            a.mov(edx, 8)?;
            a.call(labels.generate)?;
        }
        // Breakpoint addresses should be canonical even if the breakpoints are off. The stack pointer must be canonical too:
        // nothing uses it, but otherwise a KVM without hardware support falls back to emulating ring 3.
        for at in (block::DEBUG..block::DEBUG + 4 * 8).step_by(8).chain([block::GENERAL + 8 * RSP_INDEX]) {
            a.shr(qword_ptr(rbp + at), 17)?;
        }
        // The bits that must not be set, for the second half of a comparison by PTEST.
        for at in (0..16 * VECTOR_LEN).step_by(8) {
            a.mov(rax, qword_ptr(rbp + (block::VECTORS + at)))?;
            a.not(rax)?;
            a.mov(qword_ptr(rbp + (block::INVERTED + at)), rax)?;
        }
        Ok(())
    }

    /// Makes the image that FXRSTOR loads: control words other than the default ones, a full x87 stack, the vectors' low halves.
    fn fx_image(&mut self) -> Emit {
        let a = &mut self.a;
        // Rounding mode 1, 2, 3 or 0, and for odd vCPUs flush to zero.
        a.mov(rax, qword_ptr(rbp + block::INDEX))?;
        a.lea(edx, ptr(rax + 1))?;
        a.and(edx, 3)?;
        a.and(eax, 1)?;
        a.shl(eax, SSE_FLUSH_TO_ZERO)?;
        a.mov(ecx, edx)?;
        a.shl(ecx, SSE_ROUNDING_SHIFT)?;
        a.lea(ecx, ptr(rcx + rax + SSE_MASKED))?;
        a.mov(dword_ptr(rbp + (block::FX + FX_MXCSR)), ecx)?;
        a.shl(edx, X87_ROUNDING_SHIFT)?;
        // Rounding mode 0 goes with double precision, the others with extended.
        let mut rounding = a.create_label();
        a.mov(ecx, X87_EXTENDED - 0x100)?;
        a.je(rounding)?;
        a.mov(ecx, X87_EXTENDED)?;
        a.set_label(&mut rounding)?;
        a.lea(ecx, ptr(rcx + rdx + X87_MASKED))?;
        a.mov(word_ptr(rbp + (block::FX + FX_CONTROL)), cx)?;
        a.mov(byte_ptr(rbp + (block::FX + FX_TAGS)), 0xff_u32)?;
        for register in 0..8 {
            let at = block::FX + FX_STACK + 16 * register;
            // Mantissas of ordinary numbers have their highest bit set.
            a.mov(rax, qword_ptr(rbp + (block::VECTORS + 8 * register)))?;
            a.bts(rax, 63)?;
            a.mov(qword_ptr(rbp + at), rax)?;
            a.mov(eax, dword_ptr(rbp + (block::INVERTED + 8 * register)))?;
            a.and(eax, EXPONENT_MASK)?;
            a.add(eax, EXPONENT_BASE)?;
            a.mov(word_ptr(rbp + (at + 8)), ax)?;
        }
        for register in 0..16 {
            for half in [0, 8] {
                a.mov(rax, qword_ptr(rbp + (block::VECTORS + VECTOR_LEN * register + half)))?;
                a.mov(qword_ptr(rbp + (block::FX + FX_VECTORS + 16 * register + half)), rax)?;
            }
        }
        Ok(())
    }

    fn find_avx(&mut self) -> Emit {
        let a = &mut self.a;
        let mut no_avx = a.create_label();
        // CR4 first: where ring 3 runs natively, CPUID there may show what the host has switched on.
        a.bt(dword_ptr(rbp + block::CR4), CR4_OSXSAVE)?;
        a.jae(no_avx)?;
        a.mov(eax, 1)?;
        a.cpuid()?;
        a.bt(ecx, CPUID_AVX)?;
        a.jae(no_avx)?;
        a.xor(ecx, ecx)?;
        a.xgetbv()?;
        a.and(eax, XCR0_SSE_AND_AVX)?;
        a.cmp(eax, XCR0_SSE_AND_AVX)?;
        a.jne(no_avx)?;
        a.mov(qword_ptr(rbp + block::AVX), 1)?;
        a.set_label(&mut no_avx)?;
        a.nop()
    }
}
