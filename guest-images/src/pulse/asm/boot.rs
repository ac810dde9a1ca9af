//! From the VMM's entry to work in ring 3.

use iced_x86::code_asm::*;

use super::interrupt::Call;
use super::machine::{LAPIC, LAPIC_ID, RING3_FLAGS};
use super::{EXIT, Emit, Program, imm};
use crate::pulse::EXIT_BAD_PARAMS;
use crate::pulse::layout::{BLOCKS, FILL_START, HIGH_START, MAX_CPUS, block, params, shared, status};
use crate::pulse::status::MAGIC;
use crate::pulse::tables::{
    CONSOLE_VECTOR, FIRST_TSS, RING3_CODE, RING3_DATA, SPURIOUS_VECTOR, TIMER_VECTOR, WAKE_VECTOR,
};

const LAPIC_SPURIOUS: i32 = 0xf0;
const LAPIC_ON: i32 = 0x100;
const LAPIC_COMMAND: i32 = 0x300;
/// Fixed delivery, edge, asserted, all excluding self.
const ALL_OTHERS: i32 = 0xc_4000;
const LAPIC_LINT0: i32 = 0x350;
const LAPIC_TIMER: i32 = 0x320;
const LAPIC_COUNT: i32 = 0x380;
const LAPIC_DIVIDE: i32 = 0x3e0;
const MASKED: i32 = 0x1_0000;
const PERIODIC: i32 = 0x2_0000;
const DIVIDE_BY_128: i32 = 0b1010;

const IOAPIC: u32 = 0xfec0_0000;
const IOAPIC_DATA: i32 = 0x10;
/// Low half of the redirection entry of pin 4, the console's.
const IOAPIC_CONSOLE: i32 = 0x10 + 2 * 4;

impl Program {
    pub(super) fn boot(&mut self) -> Emit {
        self.enter_ring3()?;
        self.start()?;
        self.wake_others()
    }

    /// Ring 0: RDI = vCPU, RSI = vCPUs, RDX = bytes below the gap, RCX = bytes above 4 GiB, as the VMM sets them.
    fn enter_ring3(&mut self) -> Emit {
        let Self { a, labels, .. } = self;
        let mut halt = a.create_label();
        a.set_label(&mut labels.entry)?;
        a.cmp(edi, imm(MAX_CPUS))?;
        a.jae(halt)?;
        a.mov(ebp, edi)?;
        a.shl(ebp, block::SIZE.trailing_zeros())?;
        a.add(ebp, imm(BLOCKS))?;
        a.lgdt(ptr(labels.gdt_pointer))?;
        a.lidt(ptr(labels.idt_pointer))?;
        a.lea(eax, ptr(rdi * 8))?;
        a.lea(eax, ptr(rax * 2 + FIRST_TSS))?;
        a.ltr(ax)?;
        // KVM leaves the first vCPU open to the PIC, whose vectors would look like exceptions.
        a.mov(eax, LAPIC)?;
        a.mov(dword_ptr(rax + LAPIC_LINT0), MASKED)?;
        a.mov(dword_ptr(rax + LAPIC_SPURIOUS), LAPIC_ON | i32::from(SPURIOUS_VECTOR))?;
        // Ring 3 cannot see for itself whether it may write FS and GS base.
        a.mov(rax, cr4)?;
        a.mov(qword_ptr(rbp + block::CR4), rax)?;
        a.lea(rsp, ptr(rbp + block::RING0_STACK))?;
        a.push(i32::from(RING3_DATA))?;
        a.lea(rax, ptr(rbp + block::RING3_STACK))?;
        a.push(rax)?;
        a.push(RING3_FLAGS)?;
        a.push(i32::from(RING3_CODE))?;
        a.lea(rax, ptr(labels.ring3))?;
        a.push(rax)?;
        a.iretq()?;
        // vCPUs beyond the number that there is room for sleep forever.
        a.set_label(&mut halt)?;
        a.hlt()?;
        a.jmp(halt)
    }

    /// The start of ring 3: from here on everything is fast. No interrupt source is on yet.
    fn start(&mut self) -> Emit {
        let Self { a, labels, .. } = self;
        let mut not_first = a.create_label();
        let mut wait = a.create_label();
        let mut go = a.create_label();
        let mut wait_for_fill = a.create_label();
        let mut filled = a.create_label();
        let mut fits = a.create_label();
        a.set_label(&mut labels.ring3)?;
        a.cld()?;
        a.mov(qword_ptr(rbp + block::SELF), rbp)?;
        a.mov(qword_ptr(rbp + block::INDEX), rdi)?;
        a.mov(qword_ptr(rbp + block::CPUS), rsi)?;
        a.mov(qword_ptr(rbp + block::LOW_END), rdx)?;
        a.mov(rax, HIGH_START)?;
        a.sub(rax, rdx)?;
        a.mov(qword_ptr(rbp + block::GAP), rax)?;
        a.imul_3(rax, rdi, imm(status::CPU_LEN))?;
        a.add(rax, imm(status::CPU))?;
        a.mov(qword_ptr(rbp + block::STATUS), rax)?;
        a.mov(rax, qword_ptr(params::TICKS_PER_BEAT))?;
        a.mov(qword_ptr(rbp + block::TICKS_TO_BEAT), rax)?;

        // Is there enough memory for the pages to touch?
        a.sub(rdx, imm(FILL_START))?;
        a.xor(eax, eax)?;
        a.cmp(rdx, rax)?;
        a.cmovl(rdx, rax)?;
        a.shr(rdx, 12)?;
        a.shr(rcx, 12)?;
        a.add(rdx, rcx)?;
        a.cmp(qword_ptr(params::TOUCHED_PAGES), rdx)?;
        a.jbe(fits)?;
        a.cmp(qword_ptr(rbp + block::INDEX), 0)?;
        a.jne(wait)?;
        self.say("pulse: error: not enough memory for the pages to touch")?;
        self.say_end()?;
        self.exit(EXIT_BAD_PARAMS)?;

        self.a.set_label(&mut fits)?;
        let Self { a, labels, .. } = self;
        a.call(labels.prepare_dirtying)?;
        a.cmp(qword_ptr(rbp + block::INDEX), 0)?;
        a.jne(not_first)?;
        // From here on the nonce is in memory that the guest has written, and nowhere else.
        a.mov(rax, qword_ptr(params::NONCE))?;
        a.mov(qword_ptr(status::NONCE), rax)?;
        a.xor(eax, eax)?;
        a.mov(qword_ptr(params::NONCE), rax)?;
        a.mov(rax, qword_ptr(rbp + block::CPUS))?;
        a.mov(qword_ptr(status::CPUS), rax)?;
        a.mov(rax, qword_ptr(params::TOUCHED_PAGES))?;
        a.mov(qword_ptr(status::TOUCHED_PAGES), rax)?;
        a.mov(rax, MAGIC)?;
        a.mov(qword_ptr(status::MAGIC), rax)?;

        // Each vCPU fills its part; the first waits for the others and lets them go on together.
        a.set_label(&mut not_first)?;
        a.call(labels.fill)?;
        a.lock().inc(qword_ptr(shared::FILLED))?;
        a.cmp(qword_ptr(rbp + block::INDEX), 0)?;
        a.je(wait_for_fill)?;
        a.set_label(&mut wait)?;
        a.mov(byte_ptr(rbp + block::PENDING), 0)?;
        a.cmp(qword_ptr(shared::GO), 0)?;
        a.jne(go)?;
        a.mov(eax, Call::Idle as i32)?;
        a.call(labels.gate)?;
        a.jmp(wait)?;
        a.set_label(&mut go)?;
        self.start_timer()?;
        let Self { a, labels, .. } = self;
        a.jmp(labels.run)?;

        a.set_label(&mut wait_for_fill)?;
        a.mov(rax, qword_ptr(rbp + block::CPUS))?;
        a.cmp(qword_ptr(shared::FILLED), rax)?;
        a.je(filled)?;
        a.pause()?;
        a.jmp(wait_for_fill)?;
        a.set_label(&mut filled)?;
        self.ready()
    }

    /// Once all parts are filled: announces that, listens to the console and starts the timers.
    fn ready(&mut self) -> Emit {
        self.a.call(self.labels.sum)?;
        self.a.mov(qword_ptr(status::SUM), rax)?;
        self.say("pulse: ready nonce=")?;
        self.a.call(self.labels.put_nonce)?;
        self.say(" cpus=")?;
        self.a.mov(rax, qword_ptr(rbp + block::CPUS))?;
        self.a.call(self.labels.put_decimal)?;
        self.say(" touched=")?;
        self.a.mov(rax, qword_ptr(params::TOUCHED_PAGES))?;
        self.a.shl(rax, 12)?;
        self.a.call(self.labels.put_decimal)?;
        self.say(" sum=")?;
        self.a.mov(rax, qword_ptr(status::SUM))?;
        self.a.call(self.labels.put_hex)?;
        self.say_end()?;
        self.set_up_console()?;
        self.start_timer()?;
        self.a.mov(qword_ptr(shared::GO), 1)?;
        self.a.call(self.labels.wake_others)?;
        self.a.jmp(self.labels.run)
    }

    /// Routes the console's interrupt to this vCPU. A byte that came earlier is served like one that comes now.
    fn set_up_console(&mut self) -> Emit {
        let a = &mut self.a;
        a.mov(eax, LAPIC)?;
        a.mov(ecx, dword_ptr(rax + LAPIC_ID))?;
        a.mov(eax, IOAPIC)?;
        a.mov(dword_ptr(rax), IOAPIC_CONSOLE + 1)?;
        a.mov(dword_ptr(rax + IOAPIC_DATA), ecx)?;
        a.mov(dword_ptr(rax), IOAPIC_CONSOLE)?;
        a.mov(dword_ptr(rax + IOAPIC_DATA), i32::from(CONSOLE_VECTOR))?;
        // 8 data bits; interrupt on received data; DTR, RTS and the OUT2 that gates the interrupt on a PC.
        for (register, value) in [(3, 0x03), (1, 0x01), (4, 0x0b)] {
            a.mov(dx, 0x3f8 + register)?;
            a.mov(al, value)?;
            a.out(dx, al)?;
        }
        a.inc(qword_ptr(rbp + block::INPUTS))?;
        a.mov(byte_ptr(rbp + block::PENDING), 1)
    }

    fn start_timer(&mut self) -> Emit {
        let a = &mut self.a;
        a.mov(eax, LAPIC)?;
        a.mov(dword_ptr(rax + LAPIC_DIVIDE), DIVIDE_BY_128)?;
        a.mov(dword_ptr(rax + LAPIC_TIMER), PERIODIC | i32::from(TIMER_VECTOR))?;
        // A count of 0 leaves the timer stopped.
        a.mov(ecx, dword_ptr(params::TICK_COUNT))?;
        a.mov(dword_ptr(rax + LAPIC_COUNT), ecx)
    }

    /// Sends an interrupt to all other vCPUs.
    fn wake_others(&mut self) -> Emit {
        let Self { a, labels, .. } = self;
        a.set_label(&mut labels.wake_others)?;
        a.mov(eax, LAPIC)?;
        a.mov(dword_ptr(rax + LAPIC_COMMAND), ALL_OTHERS | i32::from(WAKE_VECTOR))?;
        a.ret()
    }

    /// Ends the VM with an exit code.
    pub(super) fn exit(&mut self, code: u8) -> Emit {
        self.a.mov(eax, u32::from(code))?;
        self.a.out(EXIT, al)
    }
}
