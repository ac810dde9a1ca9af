//! Ring 0 after the start: calls from ring 3, interrupts and faults.

use iced_x86::code_asm::*;

use super::machine::{FS_OFFSET, LAPIC, LAPIC_EOI, RING3_FLAGS};
use super::{Emit, Program, imm};
use crate::pulse::EXIT_FAULT;
use crate::pulse::layout::{block, shared};
use crate::pulse::tables::{
    CONSOLE_VECTOR, RING3_CODE, RING3_DATA, SPURIOUS_VECTOR, TIMER_VECTOR, WAKE_VECTOR,
};

/// What ring 3 asks ring 0 to do: the number in EAX at the gate.
#[derive(Clone, Copy)]
pub(super) enum Call {
    /// Sleep until something is pending.
    Idle = 0,
    /// Load the debug registers from the vCPU's block.
    LoadDebug = 1,
    /// Store the debug registers to the vCPU's block.
    ReadDebug = 2,
    /// Load FS and GS base for the self-test, on a processor that does not let ring 3 do it.
    SetBases = 3,
    /// Store FS and GS base, and go on at `recovered` with a fresh stack and a correct RBP.
    Recover = 4,
    /// Lose the interrupt table and fault: the VM ends with a triple fault.
    TripleFault = 5,
    /// Run an instruction that no KVM emulates (FBLD) on memory that is not there: hardware asks KVM to emulate it because of
    /// the memory, and other hosts emulate ring 0 anyway.
    FailEmulation = 6,
}

/// An address between the APICs at which no VMM maps anything.
const NOTHING: u32 = 0xfed8_0000;

const DEBUG_REGISTERS: [AsmRegisterDr; 4] = [dr0, dr1, dr2, dr3];
const MSR_FS_BASE: u32 = 0xc000_0100;
const MSR_GS_BASE: u32 = 0xc000_0101;

const UD: u8 = 6;
const UD2_LEN: i32 = 2;
/// Bytes that the processor pushes for an interrupt or a fault without an error code.
const FRAME_LEN: u64 = 5 * 8;
/// Exceptions that push an error code.
const WITH_ERROR: [u8; 9] = [8, 10, 11, 12, 13, 14, 17, 21, 29];

impl Program {
    pub(super) fn interrupts(&mut self) -> Emit {
        self.gate()?;
        self.calls()?;
        self.self_test_calls()?;
        self.crashes()?;
        self.devices()?;
        self.faults()?;
        self.report_fault()
    }

    /// Calls ring 0 from ring 3. UD2 is the one way that works on every host: SYSCALL and INT do not work where ring 0 is
    /// emulated.
    fn gate(&mut self) -> Emit {
        let Self { a, labels, .. } = self;
        a.set_label(&mut labels.gate)?;
        a.ud2()?;
        a.ret()
    }

    fn calls(&mut self) -> Emit {
        let Self { a, labels, .. } = self;
        let mut not_idle = a.create_label();
        let mut sleep = a.create_label();
        let mut leave = a.create_label();
        let mut fault = a.create_label();
        let pending = rsp - (block::RING0_STACK - FRAME_LEN - block::PENDING);

        a.set_label(&mut labels.handlers[usize::from(UD)])?;
        a.lea(rdx, ptr(labels.gate))?;
        a.cmp(qword_ptr(rsp), rdx)?;
        a.jne(fault)?;
        a.add(qword_ptr(rsp), UD2_LEN)?;
        a.test(eax, eax)?;
        a.jne(not_idle)?;

        // Interrupts are off until STI, and come only after HLT, so the vCPU never sleeps while something is pending.
        a.set_label(&mut sleep)?;
        a.cmp(byte_ptr(pending), 0)?;
        a.jne(leave)?;
        a.sti()?;
        a.hlt()?;
        a.cli()?;
        a.jmp(sleep)?;
        a.set_label(&mut leave)?;
        a.iretq()?;

        a.set_label(&mut not_idle)?;
        for (call, label) in [
            (Call::LoadDebug, labels.load_debug),
            (Call::ReadDebug, labels.read_debug),
            (Call::SetBases, labels.set_bases),
            (Call::Recover, labels.recover),
            (Call::TripleFault, labels.triple_fault),
            (Call::FailEmulation, labels.fail_emulation),
        ] {
            a.cmp(eax, call as i32)?;
            a.je(label)?;
        }
        a.iretq()?;

        a.set_label(&mut fault)?;
        a.push(0)?;
        a.push(i32::from(UD))?;
        a.jmp(labels.faults)
    }

    /// The calls for what the self-test cannot do in ring 3. RBP is the vCPU's block, except in `recover`.
    fn self_test_calls(&mut self) -> Emit {
        let Self { a, labels, .. } = self;
        a.set_label(&mut labels.load_debug)?;
        for (at, register) in (block::DEBUG..).step_by(8).zip(DEBUG_REGISTERS) {
            a.mov(rax, qword_ptr(rbp + at))?;
            a.mov(register, rax)?;
        }
        a.iretq()?;

        a.set_label(&mut labels.read_debug)?;
        for (at, register) in (block::DEBUG_FOUND..).step_by(8).zip(DEBUG_REGISTERS) {
            a.mov(rax, register)?;
            a.mov(qword_ptr(rbp + at), rax)?;
        }
        a.iretq()?;

        a.set_label(&mut labels.set_bases)?;
        for (msr, offset) in [(MSR_FS_BASE, FS_OFFSET), (MSR_GS_BASE, 0)] {
            a.mov(ecx, msr)?;
            a.lea(rax, ptr(rbp + offset))?;
            a.xor(edx, edx)?;
            a.wrmsr()?;
        }
        a.iretq()?;

        a.set_label(&mut labels.recover)?;
        a.mov(rbp, rsp)?;
        a.and(rbp, -imm(block::SIZE))?;
        for (msr, at) in [(MSR_FS_BASE, block::FS_BASE), (MSR_GS_BASE, block::GS_BASE)] {
            a.mov(ecx, msr)?;
            a.rdmsr()?;
            a.mov(dword_ptr(rbp + at), eax)?;
            a.mov(dword_ptr(rbp + (at + 4)), edx)?;
        }
        a.lea(rax, ptr(labels.recovered))?;
        a.mov(qword_ptr(rsp), rax)?;
        a.lea(rax, ptr(rbp + block::RING3_STACK))?;
        a.mov(qword_ptr(rsp + 3 * 8), rax)?;
        a.iretq()
    }

    fn crashes(&mut self) -> Emit {
        let Self { a, labels, .. } = self;
        a.set_label(&mut labels.fail_emulation)?;
        a.mov(ebx, NOTHING)?;
        a.fbld(tbyte_ptr(rbx))?;

        a.set_label(&mut labels.triple_fault)?;
        a.push(0)?;
        a.push(0)?;
        a.lidt(ptr(rsp))?;
        a.ud2()
    }

    /// Interrupt handlers only record that an interrupt came; ring 3 does the rest.
    fn devices(&mut self) -> Emit {
        let Self { a, labels, .. } = self;
        let mut done = a.create_label();
        let field = |offset: u64| rsp - (block::INTERRUPT_STACK - FRAME_LEN - offset);

        a.set_label(&mut labels.handlers[usize::from(TIMER_VECTOR)])?;
        a.inc(qword_ptr(field(block::TICKS)))?;
        a.set_label(&mut done)?;
        a.mov(byte_ptr(field(block::PENDING)), 1)?;
        // Any value will do, and this form needs no free register.
        a.mov(dword_ptr(u64::from(LAPIC) + LAPIC_EOI), eax)?;
        a.iretq()?;
        a.set_label(&mut labels.handlers[usize::from(CONSOLE_VECTOR)])?;
        a.inc(qword_ptr(field(block::INPUTS)))?;
        a.jmp(done)?;
        a.set_label(&mut labels.handlers[usize::from(WAKE_VECTOR)])?;
        a.jmp(done)?;
        a.set_label(&mut labels.handlers[usize::from(SPURIOUS_VECTOR)])?;
        a.iretq()
    }

    /// Handlers of exceptions, which push a dummy error code where the processor pushes none. They note the exception in the
    /// vCPU's block and return to ring 3 to report it.
    fn faults(&mut self) -> Emit {
        let Self { a, labels, .. } = self;
        for vector in (0..32).filter(|&vector| vector != UD) {
            a.set_label(&mut labels.handlers[usize::from(vector)])?;
            if !WITH_ERROR.contains(&vector) {
                a.push(0)?;
            }
            a.push(i32::from(vector))?;
            a.jmp(labels.faults)?;
        }
        a.set_label(&mut labels.faults)?;
        a.mov(rbp, rsp)?;
        a.and(rbp, -imm(block::SIZE))?;
        a.pop(qword_ptr(rbp + block::FAULT_VECTOR))?;
        a.pop(qword_ptr(rbp + block::FAULT_ERROR))?;
        a.pop(qword_ptr(rbp + block::FAULT_RIP))?;
        a.mov(rax, cr2)?;
        a.mov(qword_ptr(rbp + block::FAULT_ADDRESS), rax)?;
        a.lea(rsp, ptr(rbp + block::RING0_STACK))?;
        a.push(i32::from(RING3_DATA))?;
        a.lea(rax, ptr(rbp + block::RING3_STACK))?;
        a.push(rax)?;
        a.push(RING3_FLAGS)?;
        a.push(i32::from(RING3_CODE))?;
        a.lea(rax, ptr(labels.report_fault))?;
        a.push(rax)?;
        a.iretq()
    }

    fn report_fault(&mut self) -> Emit {
        self.a.set_label(&mut self.labels.report_fault)?;
        // The fault may have come in the middle of a line. The lock is broken because the VM ends after this report.
        self.a.mov(qword_ptr(rbp + block::LINE_LEN), 0)?;
        self.a.mov(dword_ptr(shared::CONSOLE_LOCK), 0)?;
        self.say("pulse: fault vector=")?;
        self.a.mov(rax, qword_ptr(rbp + block::FAULT_VECTOR))?;
        self.a.call(self.labels.put_byte)?;
        for (text, field) in [
            (" rip=", block::FAULT_RIP),
            (" error=", block::FAULT_ERROR),
            (" address=", block::FAULT_ADDRESS),
        ] {
            self.say(text)?;
            self.a.mov(rax, qword_ptr(rbp + field))?;
            self.a.call(self.labels.put_hex)?;
        }
        self.say(" cpu=")?;
        self.a.mov(rax, qword_ptr(rbp + block::INDEX))?;
        self.a.call(self.labels.put_decimal)?;
        self.say_end()?;
        self.exit(EXIT_FAULT)
    }
}
