//! After the ready line: work, beats and commands.

use iced_x86::code_asm::*;

use super::interrupt::Call;
use super::{CONSOLE_DATA, Emit, Program};
use crate::pulse::EXIT_QUIT;
use crate::pulse::layout::{block, params, shared, status};

const CONSOLE_LINE_STATUS: i32 = CONSOLE_DATA + 5;
const DATA_READY: i32 = 1;

impl Program {
    pub(super) fn running(&mut self) -> Emit {
        self.run()?;
        self.service()?;
        self.beat()?;
        self.announce_clone()?;
        self.command()
    }

    /// Works as long as there is credit, sleeps when there is none, and serves whatever is pending in between.
    fn run(&mut self) -> Emit {
        let Self { a, labels, .. } = self;
        let mut work = a.create_label();
        let mut idle = a.create_label();
        a.set_label(&mut labels.run)?;
        // Cleared before looking, so that an event that comes meanwhile is seen on the next turn.
        a.mov(byte_ptr(rbp + block::PENDING), 0)?;
        a.call(labels.service)?;
        a.cmp(qword_ptr(params::SELF_TEST), 0)?;
        a.jne(labels.self_test)?;

        a.set_label(&mut work)?;
        a.mov(rax, qword_ptr(rbp + block::CREDIT))?;
        a.sub(rax, qword_ptr(rbp + block::COST))?;
        a.jb(idle)?;
        a.mov(qword_ptr(rbp + block::CREDIT), rax)?;
        a.call(labels.dirty_page)?;
        a.cmp(byte_ptr(rbp + block::PENDING), 0)?;
        a.je(work)?;
        a.jmp(labels.run)?;

        a.set_label(&mut idle)?;
        a.mov(eax, Call::Idle as i32)?;
        a.call(labels.gate)?;
        a.jmp(labels.run)
    }

    /// Serves what has become due: ticks, console input, self-test reports. Changes all registers but RBP.
    fn service(&mut self) -> Emit {
        let Self { a, labels, .. } = self;
        let mut same_generation = a.create_label();
        let mut tick = a.create_label();
        let mut ticked = a.create_label();
        let mut input = a.create_label();
        let mut byte = a.create_label();
        let mut reports = a.create_label();
        let mut done = a.create_label();
        a.set_label(&mut labels.service)?;
        a.cmp(qword_ptr(rbp + block::INDEX), 0)?;
        a.jne(same_generation)?;
        a.mov(rax, qword_ptr(status::GENERATION))?;
        a.cmp(qword_ptr(rbp + block::GENERATION), rax)?;
        a.je(same_generation)?;
        a.mov(qword_ptr(rbp + block::GENERATION), rax)?;
        a.call(labels.announce_clone)?;

        // Each tick adds credit. If a slow console has delayed several beats, only one of them is done.
        a.set_label(&mut same_generation)?;
        a.xor(ebx, ebx)?;
        a.set_label(&mut tick)?;
        a.mov(rax, qword_ptr(rbp + block::TICKS_SEEN))?;
        a.cmp(qword_ptr(rbp + block::TICKS), rax)?;
        a.je(ticked)?;
        a.inc(qword_ptr(rbp + block::TICKS_SEEN))?;
        a.mov(rax, qword_ptr(params::CREDIT_PER_TICK))?;
        a.add(qword_ptr(rbp + block::CREDIT), rax)?;
        a.dec(qword_ptr(rbp + block::TICKS_TO_BEAT))?;
        a.jne(tick)?;
        a.mov(rax, qword_ptr(params::TICKS_PER_BEAT))?;
        a.mov(qword_ptr(rbp + block::TICKS_TO_BEAT), rax)?;
        a.mov(ebx, 1)?;
        a.jmp(tick)?;
        a.set_label(&mut ticked)?;
        a.test(ebx, ebx)?;
        a.je(input)?;
        a.call(labels.beat)?;

        a.set_label(&mut input)?;
        a.mov(rax, qword_ptr(rbp + block::INPUTS))?;
        a.cmp(qword_ptr(rbp + block::INPUTS_SEEN), rax)?;
        a.je(reports)?;
        a.mov(qword_ptr(rbp + block::INPUTS_SEEN), rax)?;
        a.set_label(&mut byte)?;
        a.mov(edx, CONSOLE_LINE_STATUS)?;
        a.in_(al, dx)?;
        a.test(al, DATA_READY)?;
        a.je(reports)?;
        a.mov(edx, CONSOLE_DATA)?;
        a.in_(al, dx)?;
        a.movzx(eax, al)?;
        a.call(labels.command)?;
        a.jmp(byte)?;

        a.set_label(&mut reports)?;
        a.mov(rax, qword_ptr(shared::REPORTS))?;
        a.cmp(qword_ptr(rbp + block::REPORTS_SEEN), rax)?;
        a.je(done)?;
        a.mov(qword_ptr(rbp + block::REPORTS_SEEN), rax)?;
        a.call(labels.report)?;
        a.set_label(&mut done)?;
        a.ret()
    }

    fn beat(&mut self) -> Emit {
        let Self { a, labels, .. } = self;
        let mut not_first = a.create_label();
        let mut done = a.create_label();
        a.set_label(&mut labels.beat)?;
        a.mov(rax, qword_ptr(rbp + block::STATUS))?;
        a.inc(qword_ptr(rax + status::CPU_COUNTER))?;
        a.cmp(qword_ptr(rbp + block::INDEX), 0)?;
        a.jne(not_first)?;
        a.inc(qword_ptr(status::BEATS))?;
        self.say("pulse: beat ")?;
        self.a.mov(rax, qword_ptr(status::BEATS))?;
        self.a.call(self.labels.put_decimal)?;
        self.say(" nonce=")?;
        self.a.call(self.labels.put_nonce)?;
        self.say_end()?;
        let Self { a, labels, .. } = self;
        a.set_label(&mut not_first)?;
        a.cmp(qword_ptr(params::SELF_TEST), 0)?;
        a.je(done)?;
        a.call(labels.report)?;
        a.set_label(&mut done)?;
        a.ret()
    }

    /// Announces that this is a clone: the host has written an identity into the status block.
    fn announce_clone(&mut self) -> Emit {
        self.a.set_label(&mut self.labels.announce_clone)?;
        self.say("pulse: clone generation=")?;
        self.a.mov(rax, qword_ptr(status::GENERATION))?;
        self.a.call(self.labels.put_decimal)?;
        self.say(" id=")?;
        for half in [status::UNIQUE_ID + 8, status::UNIQUE_ID] {
            self.a.mov(rax, qword_ptr(half))?;
            self.a.call(self.labels.put_hex)?;
        }
        self.a.jmp(self.labels.end_line)
    }

    /// Obeys the one-letter command in EAX.
    fn command(&mut self) -> Emit {
        let commands = [b'n', b's', b'r', b'q', b't', b'e'].map(|letter| (letter, self.a.create_label()));
        let [
            (_, mut nonce),
            (_, mut sum),
            (_, mut report),
            (_, mut quit),
            (_, mut triple_fault),
            (_, mut emulation),
        ] = commands;
        let Self { a, labels, .. } = self;
        a.set_label(&mut labels.command)?;
        for (letter, label) in commands {
            a.cmp(al, i32::from(letter))?;
            a.je(label)?;
        }
        a.mov(ebx, eax)?;
        self.say("pulse: ? ")?;
        self.a.mov(eax, ebx)?;
        self.a.call(self.labels.put_byte)?;
        self.a.jmp(self.labels.end_line)?;

        self.a.set_label(&mut nonce)?;
        self.say("pulse: nonce=")?;
        self.a.call(self.labels.put_nonce)?;
        self.say(" counter=")?;
        self.a.mov(rax, qword_ptr(rbp + block::STATUS))?;
        self.a.mov(rax, qword_ptr(rax + status::CPU_COUNTER))?;
        self.a.call(self.labels.put_decimal)?;
        self.say(" cpu=0")?;
        self.a.jmp(self.labels.end_line)?;

        self.a.set_label(&mut sum)?;
        self.a.call(self.labels.sum)?;
        self.a.mov(qword_ptr(status::SUM), rax)?;
        self.say("pulse: sum=")?;
        self.a.mov(rax, qword_ptr(status::SUM))?;
        self.a.call(self.labels.put_hex)?;
        self.a.jmp(self.labels.end_line)?;

        let Self { a, labels, .. } = self;
        a.set_label(&mut report)?;
        a.inc(qword_ptr(shared::REPORTS))?;
        a.jmp(labels.wake_others)?;

        a.set_label(&mut triple_fault)?;
        a.mov(eax, Call::TripleFault as i32)?;
        a.jmp(labels.gate)?;
        a.set_label(&mut emulation)?;
        a.mov(eax, Call::FailEmulation as i32)?;
        a.jmp(labels.gate)?;

        a.set_label(&mut quit)?;
        self.exit(EXIT_QUIT)
    }
}
