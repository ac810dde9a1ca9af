//! The register self-test.
//!
//! Values that differ from register to register and from vCPU to vCPU are made from the nonce (`values`), loaded, and
//! then *held*: a loop compares every general and vector register with memory without using any of them, round after
//! round (`hold`). So a pause catches the vCPU with all of them live. Now and then a full round also checks x87
//! state, control registers of both floating-point units and the debug registers. The first difference is recorded and stays
//! in every later report (`verdict`).
//!
//! The values are addressed through GS and, for every other general register, through FS: a wrong segment base is a
//! mismatch like any other.

mod hold;
mod values;
mod verdict;

use iced_x86::code_asm::*;

use super::interrupt::Call;
use super::machine::FS_OFFSET;
use super::{Emit, Program, imm};
use crate::pulse::layout::block;

/// General registers in the order of their encoding.
const GENERAL: [AsmRegister64; 16] =
    [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15];
const YMM: [AsmRegisterYmm; 16] =
    [ymm0, ymm1, ymm2, ymm3, ymm4, ymm5, ymm6, ymm7, ymm8, ymm9, ymm10, ymm11, ymm12, ymm13, ymm14, ymm15];
const XMM: [AsmRegisterXmm; 16] =
    [xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7, xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14, xmm15];
const VECTOR_LEN: u64 = 32;

/// Whether the processor and the VMM let the guest use the upper halves of the vector registers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    Avx,
    Sse,
}

/// Quadwords of the FXSAVE image that are compared: control, x87 stack and vector registers.
const FX_WORDS: u32 = 416 / 8;
const FX_CONTROL: u64 = 0;
const FX_TAGS: u64 = 4;
const FX_MXCSR: u64 = 24;
const FX_STACK: u64 = 32;
const FX_VECTORS: u64 = 160;

/// The parts that can fail, by number: general registers, vectors, x87 control, MXCSR, x87 stack, debug registers, FS, GS.
mod part {
    pub(super) const GENERAL: i32 = 0;
    pub(super) const VECTOR: i32 = 16;
    pub(super) const X87: i32 = 32;
    pub(super) const MXCSR: i32 = 33;
    pub(super) const STACK: i32 = 34;
    pub(super) const DEBUG: i32 = 42;
    pub(super) const FS: i32 = 46;
    pub(super) const GS: i32 = 47;
    pub(super) const NAME_LEN: usize = 6;
    pub(super) const NAMES: [[u8; NAME_LEN]; 48] = [
        *b"rax   ", *b"rcx   ", *b"rdx   ", *b"rbx   ", *b"rsp   ", *b"rbp   ", *b"rsi   ", *b"rdi   ",
        *b"r8    ", *b"r9    ", *b"r10   ", *b"r11   ", *b"r12   ", *b"r13   ", *b"r14   ", *b"r15   ",
        *b"ymm0  ", *b"ymm1  ", *b"ymm2  ", *b"ymm3  ", *b"ymm4  ", *b"ymm5  ", *b"ymm6  ", *b"ymm7  ",
        *b"ymm8  ", *b"ymm9  ", *b"ymm10 ", *b"ymm11 ", *b"ymm12 ", *b"ymm13 ", *b"ymm14 ", *b"ymm15 ",
        *b"x87   ", *b"mxcsr ", *b"st0   ", *b"st1   ", *b"st2   ", *b"st3   ", *b"st4   ", *b"st5   ",
        *b"st6   ", *b"st7   ", *b"dr0   ", *b"dr1   ", *b"dr2   ", *b"dr3   ", *b"fs    ", *b"gs    ",
    ];
}

/// Memory of the vCPU's block, addressed through GS, which needs no general register.
fn by_gs(offset: u64) -> AsmMemoryOperand {
    ptr(offset).gs()
}

impl Program {
    pub(super) fn self_testing(&mut self) -> Emit {
        self.prepare_self_test()?;
        self.self_test()?;
        self.verdict()?;
        self.report()
    }

    /// Entered from `run` when there is nothing to serve: loads the registers again and holds them. Returns to `run` as soon as
    /// something is pending.
    fn self_test(&mut self) -> Emit {
        let mut prepared = self.a.create_label();
        let mut by_ring0 = self.a.create_label();
        let mut have_bases = self.a.create_label();
        let mut sse = self.a.create_label();

        let Self { a, labels, .. } = self;
        a.set_label(&mut labels.self_test)?;
        a.cmp(qword_ptr(rbp + block::ROUNDS_TO_FULL), 0)?;
        a.jne(prepared)?;
        a.call(labels.prepare_self_test)?;
        a.set_label(&mut prepared)?;
        a.bt(dword_ptr(rbp + block::CR4), CR4_FSGSBASE)?;
        a.jae(by_ring0)?;
        a.lea(rax, ptr(rbp + FS_OFFSET))?;
        a.wrfsbase(rax)?;
        a.wrgsbase(rbp)?;
        a.jmp(have_bases)?;
        a.set_label(&mut by_ring0)?;
        a.mov(eax, Call::SetBases as i32)?;
        a.call(labels.gate)?;

        a.set_label(&mut have_bases)?;
        a.fxrstor64(ptr(rbp + block::FX))?;
        a.cmp(qword_ptr(rbp + block::AVX), 0)?;
        a.je(sse)?;
        self.hold(Width::Avx)?;
        self.a.set_label(&mut sse)?;
        self.hold(Width::Sse)
    }
}

const CR4_FSGSBASE: i32 = 16;
