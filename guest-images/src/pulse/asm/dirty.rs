//! Dirtying memory: every write carries its number in the vCPU's sequence.
//!
//! Write `k` (from 1) of a vCPU goes to the page at position `(k - 1) mod N` of its slice of `N` pages. It stores, in
//! ascending order of addresses, `k` in word 0, how far the next vCPU has come in word 1, and structured words made
//! from `k` at every stride after those; then it counts `k` in the status block. So the page that it overwrites must hold
//! `k - N`: the guest itself notices a page from another time. `check` does the same on the host's side.

use iced_x86::code_asm::*;

use super::{Emit, Program, imm};
use crate::pulse::EXIT_SEQUENCE;
use crate::pulse::layout::{PAGE_SIZE, block, params, status};
use crate::pulse::pattern::DIRTY_STREAM;

/// A cost that no credit covers.
const UNAFFORDABLE: u64 = 1 << 62;

impl Program {
    pub(super) fn dirtying(&mut self) -> Emit {
        self.prepare_dirtying()?;
        self.dirty_page()
    }

    /// Finds this vCPU's slice of the working set. Changes R8.
    fn prepare_dirtying(&mut self) -> Emit {
        let Self { a, labels, .. } = self;
        let mut one_page = a.create_label();
        let mut some = a.create_label();
        let mut not_last = a.create_label();
        a.set_label(&mut labels.prepare_dirtying)?;
        a.mov(rax, qword_ptr(params::WORKING_SET_PAGES))?;
        a.xor(edx, edx)?;
        a.div(qword_ptr(rbp + block::CPUS))?;
        a.mov(qword_ptr(rbp + block::SLICE_PAGES), rax)?;
        a.mov(r8, rax)?;
        a.imul_2(rax, qword_ptr(rbp + block::INDEX))?;
        a.mov(qword_ptr(rbp + block::SLICE_FIRST), rax)?;

        a.mov(rax, qword_ptr(params::COST_PER_CPU))?;
        a.imul_2(rax, qword_ptr(rbp + block::CPUS))?;
        a.test(r8, r8)?;
        a.jne(some)?;
        a.mov(rax, UNAFFORDABLE)?;
        a.set_label(&mut some)?;
        a.mov(qword_ptr(rbp + block::COST), rax)?;

        // Bits of the largest position, the mask they make, and half of them, rounded up.
        a.xor(ecx, ecx)?;
        a.cmp(r8, 1)?;
        a.jbe(one_page)?;
        a.dec(r8)?;
        a.bsr(rcx, r8)?;
        a.inc(ecx)?;
        a.set_label(&mut one_page)?;
        a.mov(eax, 1)?;
        a.shl(rax, cl)?;
        a.dec(rax)?;
        a.mov(qword_ptr(rbp + block::MASK), rax)?;
        a.inc(ecx)?;
        a.shr(ecx, 1)?;
        a.mov(qword_ptr(rbp + block::SHIFT), rcx)?;

        a.mov(rax, qword_ptr(rbp + block::INDEX))?;
        a.inc(rax)?;
        a.cmp(rax, qword_ptr(rbp + block::CPUS))?;
        a.jb(not_last)?;
        a.xor(eax, eax)?;
        a.set_label(&mut not_last)?;
        a.imul_3(rax, rax, imm(status::CPU_LEN))?;
        a.add(rax, imm(status::CPU + status::CPU_SEQUENCE))?;
        a.mov(qword_ptr(rbp + block::NEIGHBOUR), rax)?;
        a.ret()
    }

    /// Emits `rax = page at position rax` of this vCPU's slice, as [`Permutation::page`] computes it.
    ///
    /// [`Permutation::page`]: crate::pulse::pattern::Permutation::page
    fn permute(&mut self) -> Emit {
        let a = &mut self.a;
        let mut again = a.create_label();
        let mut done = a.create_label();
        a.cmp(qword_ptr(params::RANDOM_ORDER), 0)?;
        a.je(done)?;
        a.mov(rdx, qword_ptr(rbp + block::MASK))?;
        a.mov(rcx, qword_ptr(rbp + block::SHIFT))?;
        a.set_label(&mut again)?;
        for factor in [r13, r14] {
            a.imul_2(rax, factor)?;
            a.and(rax, rdx)?;
            a.mov(rsi, rax)?;
            a.shr(rsi, cl)?;
            a.xor(rax, rsi)?;
        }
        a.cmp(rax, qword_ptr(rbp + block::SLICE_PAGES))?;
        a.jae(again)?;
        a.set_label(&mut done)?;
        a.add(rax, qword_ptr(rbp + block::SLICE_FIRST))
    }

    /// Does the next write of this vCPU's sequence. Changes RBX and R8 to R15.
    fn dirty_page(&mut self) -> Emit {
        let mut broken = self.a.create_label();
        let mut first_round = self.a.create_label();
        let mut wide = self.a.create_label();
        let mut same_round = self.a.create_label();

        self.a.set_label(&mut self.labels.dirty_page)?;
        self.load_mixer()?;
        let a = &mut self.a;
        a.mov(r9, qword_ptr(rbp + block::STATUS))?;
        a.mov(r8, qword_ptr(r9 + status::CPU_SEQUENCE))?;
        a.inc(r8)?;
        a.mov(rax, qword_ptr(rbp + block::POSITION))?;
        self.permute()?;
        let a = &mut self.a;
        a.call(self.labels.page_address)?;

        a.mov(r10, r8)?;
        a.sub(r10, qword_ptr(rbp + block::SLICE_PAGES))?;
        a.jbe(first_round)?;
        a.cmp(qword_ptr(rdi), r10)?;
        a.jne(broken)?;
        a.set_label(&mut first_round)?;
        a.mov(qword_ptr(rdi), r8)?;
        a.mov(rax, qword_ptr(rbp + block::NEIGHBOUR))?;
        a.mov(rax, qword_ptr(rax))?;
        a.mov(qword_ptr(rdi + 8), rax)?;

        a.mov(rax, DIRTY_STREAM)?;
        a.xor(rax, qword_ptr(params::SEED))?;
        a.mov(rbx, qword_ptr(rbp + block::INDEX))?;
        a.shl(rbx, 56)?;
        a.add(rax, rbx)?;
        a.mov(rbx, r8)?;
        a.imul_2(rbx, r12)?;
        a.add(rax, rbx)?;
        self.mix()?;
        let a = &mut self.a;
        a.mov(rbx, rax)?;
        // Start at the first word after the two of the header, or one stride on. The state advances in strides as well.
        a.mov(rdx, qword_ptr(params::STRIDE))?;
        a.lea(rsi, ptr(rdi + PAGE_SIZE))?;
        a.mov(rcx, rdx)?;
        a.cmp(rcx, 16)?;
        a.jae(wide)?;
        a.mov(ecx, 16)?;
        a.set_label(&mut wide)?;
        a.add(rdi, rcx)?;
        a.shr(rcx, 3)?;
        a.imul_2(rcx, r12)?;
        a.add(rbx, rcx)?;
        a.mov(rcx, rdx)?;
        a.shr(rcx, 3)?;
        a.imul_2(r12, rcx)?;
        a.lea(r15, ptr(self.labels.structured))?;
        a.call(self.labels.generate)?;

        a.mov(rax, qword_ptr(rbp + block::POSITION))?;
        a.inc(rax)?;
        a.cmp(rax, qword_ptr(rbp + block::SLICE_PAGES))?;
        a.jb(same_round)?;
        a.xor(eax, eax)?;
        a.set_label(&mut same_round)?;
        a.mov(qword_ptr(rbp + block::POSITION), rax)?;
        a.mov(qword_ptr(r9 + status::CPU_SEQUENCE), r8)?;
        a.inc(qword_ptr(r9 + status::CPU_COUNTER))?;
        a.ret()?;

        a.set_label(&mut broken)?;
        a.mov(r11, rdi)?;
        self.say("pulse: sequence cpu=")?;
        self.a.mov(rax, qword_ptr(rbp + block::INDEX))?;
        self.a.call(self.labels.put_decimal)?;
        self.say(" FAILED address=")?;
        self.a.mov(rax, r11)?;
        self.a.call(self.labels.put_hex)?;
        self.say(" expected=")?;
        self.a.mov(rax, r10)?;
        self.a.call(self.labels.put_hex)?;
        self.say(" found=")?;
        self.a.mov(rax, qword_ptr(r11))?;
        self.a.call(self.labels.put_hex)?;
        self.say_end()?;
        self.exit(EXIT_SEQUENCE)
    }
}
