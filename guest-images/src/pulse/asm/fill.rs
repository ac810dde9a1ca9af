//! Filling memory and summing it up. This does in assembler what `pattern` does on the host.

use iced_x86::code_asm::*;

use super::{Emit, Program, imm};
use crate::pulse::layout::{FILL_START, PAGE_SIZE, block, params};
use crate::pulse::pattern::{DUPLICATE_STREAM, DUPLICATES, MIX_A, MIX_B, STEP, SUM_FACTOR};

impl Program {
    pub(super) fn filling(&mut self) -> Emit {
        self.page_address()?;
        self.generate()?;
        self.fill()?;
        self.sum()
    }

    /// Emits `rax = mix(rax)`; R13 and R14 hold the factors, RCX is changed.
    pub(super) fn mix(&mut self) -> Emit {
        let a = &mut self.a;
        for (shift, factor) in [(30, Some(r13)), (27, Some(r14)), (31, None)] {
            a.mov(rcx, rax)?;
            a.shr(rcx, shift)?;
            a.xor(rax, rcx)?;
            if let Some(factor) = factor {
                a.imul_2(rax, factor)?;
            }
        }
        Ok(())
    }

    /// Emits code that loads the constants which [`mix`](Self::mix) and `generate` use: R12 the step, R13 and R14 the factors.
    pub(super) fn load_mixer(&mut self) -> Emit {
        let a = &mut self.a;
        a.mov(r12, STEP)?;
        a.mov(r13, MIX_A)?;
        a.mov(r14, MIX_B)
    }

    /// RDI = address of filled page RAX.
    fn page_address(&mut self) -> Emit {
        let Self { a, labels, .. } = self;
        let mut low = a.create_label();
        a.set_label(&mut labels.page_address)?;
        a.mov(rdi, rax)?;
        a.shl(rdi, PAGE_SIZE.trailing_zeros())?;
        a.add(rdi, imm(FILL_START))?;
        a.cmp(rdi, qword_ptr(rbp + block::LOW_END))?;
        a.jb(low)?;
        a.add(rdi, qword_ptr(rbp + block::GAP))?;
        a.set_label(&mut low)?;
        a.ret()
    }

    /// Writes words from RDI up to RSI, RDX bytes apart. RBX is the state, which advances by R12, and R15 points to the table.
    fn generate(&mut self) -> Emit {
        let mut next = self.a.create_label();
        let mut done = self.a.create_label();
        self.a.set_label(&mut self.labels.generate)?;
        self.a.cmp(rdi, rsi)?;
        self.a.jae(done)?;
        self.a.set_label(&mut next)?;
        self.a.mov(rax, rbx)?;
        self.a.add(rbx, r12)?;
        self.mix()?;
        let a = &mut self.a;
        a.mov(rcx, rax)?;
        a.shr(rcx, 60)?;
        a.shl(ecx, 4)?;
        a.and(rax, qword_ptr(r15 + rcx))?;
        a.add(rax, qword_ptr(r15 + rcx + 8))?;
        a.mov(qword_ptr(rdi), rax)?;
        a.add(rdi, rdx)?;
        a.cmp(rdi, rsi)?;
        a.jb(next)?;
        a.set_label(&mut done)?;
        a.ret()
    }

    /// Fills this vCPU's part of the memory. Changes all registers but RBP.
    fn fill(&mut self) -> Emit {
        let mut next = self.a.create_label();
        let mut zero = self.a.create_label();
        let mut same = self.a.create_label();
        let mut repeat = self.a.create_label();
        let mut duplicate = self.a.create_label();
        let mut structured = self.a.create_label();
        let mut write = self.a.create_label();
        let mut written = self.a.create_label();
        let mut done = self.a.create_label();

        self.a.set_label(&mut self.labels.fill)?;
        self.load_mixer()?;
        // Part `i` of `n` is pages `i * pages / n` to `(i + 1) * pages / n`.
        let a = &mut self.a;
        a.mov(rax, qword_ptr(params::TOUCHED_PAGES))?;
        a.mul(qword_ptr(rbp + block::INDEX))?;
        a.div(qword_ptr(rbp + block::CPUS))?;
        a.mov(r8, rax)?;
        a.mov(rcx, qword_ptr(rbp + block::INDEX))?;
        a.inc(rcx)?;
        a.mov(rax, qword_ptr(params::TOUCHED_PAGES))?;
        a.mul(rcx)?;
        a.div(qword_ptr(rbp + block::CPUS))?;
        a.mov(r9, rax)?;

        a.set_label(&mut next)?;
        a.cmp(r8, r9)?;
        a.jae(done)?;
        a.mov(rax, r8)?;
        a.call(self.labels.page_address)?;
        a.mov(rax, r8)?;
        a.imul_2(rax, r12)?;
        a.add(rax, qword_ptr(params::SEED))?;
        self.mix()?;
        let a = &mut self.a;
        a.mov(rbx, rax)?;
        a.mov(rcx, rax)?;
        a.shr(rcx, 32)?;
        a.imul_3(rcx, rcx, 1000)?;
        a.shr(rcx, 32)?;
        for (end, kind) in [
            (params::ZERO_END, zero),
            (params::FILL_END, same),
            (params::DUPLICATE_END, duplicate),
            (params::STRUCTURED_END, structured),
        ] {
            a.cmp(rcx, qword_ptr(end))?;
            a.jb(kind)?;
        }
        a.lea(r15, ptr(self.labels.random))?;
        a.jmp(write)?;

        a.set_label(&mut duplicate)?;
        a.and(ebx, imm(DUPLICATES - 1))?;
        a.imul_2(rbx, r12)?;
        a.mov(rax, DUPLICATE_STREAM)?;
        a.xor(rax, qword_ptr(params::SEED))?;
        a.add(rax, rbx)?;
        self.mix()?;
        let a = &mut self.a;
        a.mov(rbx, rax)?;
        a.set_label(&mut structured)?;
        a.lea(r15, ptr(self.labels.structured))?;
        a.set_label(&mut write)?;
        a.lea(rsi, ptr(rdi + PAGE_SIZE))?;
        a.mov(edx, 8)?;
        a.call(self.labels.generate)?;
        a.set_label(&mut written)?;
        a.inc(r8)?;
        a.jmp(next)?;

        a.set_label(&mut zero)?;
        a.xor(eax, eax)?;
        a.jmp(repeat)?;
        a.set_label(&mut same)?;
        a.or(rax, 1)?;
        a.set_label(&mut repeat)?;
        a.mov(ecx, imm(PAGE_SIZE / 8))?;
        a.rep().stosq()?;
        a.jmp(written)?;

        a.set_label(&mut done)?;
        a.ret()
    }

    /// RAX = checksum of the filled memory. Changes R8 and R9.
    fn sum(&mut self) -> Emit {
        let Self { a, labels, .. } = self;
        let mut page = a.create_label();
        let mut word = a.create_label();
        let mut done = a.create_label();
        a.set_label(&mut labels.sum)?;
        a.xor(r8, r8)?;
        a.xor(r9, r9)?;
        a.mov(rdx, SUM_FACTOR)?;
        a.set_label(&mut page)?;
        a.cmp(r8, qword_ptr(params::TOUCHED_PAGES))?;
        a.jae(done)?;
        a.mov(rax, r8)?;
        a.call(labels.page_address)?;
        a.lea(rsi, ptr(rdi + PAGE_SIZE))?;
        a.set_label(&mut word)?;
        a.imul_2(r9, rdx)?;
        a.add(r9, qword_ptr(rdi))?;
        a.add(rdi, 8)?;
        a.cmp(rdi, rsi)?;
        a.jb(word)?;
        a.inc(r8)?;
        a.jmp(page)?;
        a.set_label(&mut done)?;
        a.mov(rax, r9)?;
        a.ret()
    }
}
