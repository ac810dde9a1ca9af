//! Lines on the console: each is put together in the vCPU's own buffer and sent as a whole.

use iced_x86::code_asm::*;

use super::{CONSOLE_DATA, Emit, Program, imm};
use crate::pulse::layout::{block, shared, status};

impl Program {
    pub(super) fn printing(&mut self) -> Emit {
        self.put_text()?;
        self.put_hex()?;
        self.put_decimal()?;
        self.put_nonce()?;
        self.end_line()
    }

    /// Emits a call that puts `text` into the line.
    pub(super) fn say(&mut self, text: &'static str) -> Emit {
        let Self { a, labels, texts } = self;
        let label = a.create_label();
        texts.push((label, text.as_bytes()));
        a.lea(rsi, ptr(label))?;
        a.mov(ecx, imm(text.len() as u64))?;
        a.call(labels.put_text)
    }

    /// Emits a call that sends the line.
    pub(super) fn say_end(&mut self) -> Emit {
        self.a.call(self.labels.end_line)
    }

    /// Puts the RCX bytes at RSI into the line.
    fn put_text(&mut self) -> Emit {
        let Self { a, labels, .. } = self;
        a.set_label(&mut labels.put_text)?;
        a.mov(rdi, qword_ptr(rbp + block::LINE_LEN))?;
        a.add(qword_ptr(rbp + block::LINE_LEN), rcx)?;
        a.lea(rdi, ptr(rbp + rdi + block::LINE))?;
        a.rep().movsb()?;
        a.ret()
    }

    /// Puts RAX into the line as sixteen hexadecimal digits, or AL as two.
    fn put_hex(&mut self) -> Emit {
        let Self { a, labels, .. } = self;
        let mut put = a.create_label();
        let mut digit = a.create_label();
        a.set_label(&mut labels.put_byte)?;
        a.mov(ecx, 2)?;
        a.ror(rax, 8)?;
        a.jmp(put)?;
        a.set_label(&mut labels.put_hex)?;
        a.mov(ecx, 16)?;
        a.set_label(&mut put)?;
        a.lea(rsi, ptr(labels.digits))?;
        a.mov(rdi, qword_ptr(rbp + block::LINE_LEN))?;
        a.add(qword_ptr(rbp + block::LINE_LEN), rcx)?;
        a.lea(rdi, ptr(rbp + rdi + block::LINE))?;
        a.set_label(&mut digit)?;
        a.rol(rax, 4)?;
        a.mov(edx, eax)?;
        a.and(edx, 0xf)?;
        a.mov(dl, byte_ptr(rsi + rdx))?;
        a.mov(byte_ptr(rdi), dl)?;
        a.inc(rdi)?;
        a.dec(ecx)?;
        a.jne(digit)?;
        a.ret()
    }

    /// Puts RAX into the line as a decimal number.
    fn put_decimal(&mut self) -> Emit {
        let Self { a, labels, .. } = self;
        let mut digit = a.create_label();
        let room = 32;
        a.set_label(&mut labels.put_decimal)?;
        a.sub(rsp, room)?;
        a.lea(rsi, ptr(rsp + room))?;
        a.mov(ecx, 10)?;
        a.set_label(&mut digit)?;
        a.xor(edx, edx)?;
        a.div(rcx)?;
        a.add(dl, i32::from(b'0'))?;
        a.dec(rsi)?;
        a.mov(byte_ptr(rsi), dl)?;
        a.test(rax, rax)?;
        a.jne(digit)?;
        a.lea(rcx, ptr(rsp + room))?;
        a.sub(rcx, rsi)?;
        a.call(labels.put_text)?;
        a.add(rsp, room)?;
        a.ret()
    }

    fn put_nonce(&mut self) -> Emit {
        let Self { a, labels, .. } = self;
        a.set_label(&mut labels.put_nonce)?;
        a.mov(rax, qword_ptr(status::NONCE))?;
        a.jmp(labels.put_hex)
    }

    /// Sends the line, under a lock so that lines of other vCPUs do not mix with it.
    fn end_line(&mut self) -> Emit {
        let Self { a, labels, .. } = self;
        let mut lock = a.create_label();
        let mut locked = a.create_label();
        let mut character = a.create_label();
        a.set_label(&mut labels.end_line)?;
        a.mov(rcx, qword_ptr(rbp + block::LINE_LEN))?;
        a.mov(byte_ptr(rbp + rcx + block::LINE), i32::from(b'\n'))?;
        a.inc(ecx)?;
        a.set_label(&mut lock)?;
        a.mov(eax, 1)?;
        a.xchg(dword_ptr(shared::CONSOLE_LOCK), eax)?;
        a.test(eax, eax)?;
        a.je(locked)?;
        a.pause()?;
        a.jmp(lock)?;
        a.set_label(&mut locked)?;
        a.lea(rsi, ptr(rbp + block::LINE))?;
        a.mov(edx, CONSOLE_DATA)?;
        // Not REP OUTSB: it exits to the VMM for every byte just the same, and each exit costs more.
        a.set_label(&mut character)?;
        a.mov(al, byte_ptr(rsi))?;
        a.out(dx, al)?;
        a.inc(rsi)?;
        a.dec(ecx)?;
        a.jne(character)?;
        a.mov(dword_ptr(shared::CONSOLE_LOCK), 0)?;
        a.mov(qword_ptr(rbp + block::LINE_LEN), 0)?;
        a.ret()
    }
}
