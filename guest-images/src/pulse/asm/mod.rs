//! The guest's code, assembled part by part.
//!
//! Conventions of the ring-3 code: RBP points to the private block of the vCPU, everywhere except in the self-test.
//! A routine may change RAX, RCX, RDX, RSI and RDI, and the registers that its comment names; it keeps the rest.
//!
//! Ring 0 is emulated on some hosts, at about a microsecond per instruction and with gaps. So it only enters ring 3,
//! waits for interrupts, takes them and hands faults down to ring 3, and the guest leaves it as fast as possible.

mod boot;
mod dirty;
mod fill;
mod interrupt;
mod machine;
mod print;
mod run;
mod self_test;

use iced_x86::code_asm::{CodeAssembler, CodeLabel};
use iced_x86::{BlockEncoderOptions, IcedError};

use super::layout::{CODE, LOAD_ADDRESS};
use super::pattern::{RANDOM, STRUCTURED, Table};
use super::tables::{self, VECTORS};

type Emit = Result<(), IcedError>;

/// Ports of the console's data register and of the exit code.
const CONSOLE_DATA: i32 = 0x3f8;
const EXIT: i32 = 0xf4;

/// An address, offset or count as an immediate operand.
const fn imm(value: u64) -> i32 {
    assert!(value <= i32::MAX as u64, "it does not fit");
    #[expect(clippy::cast_possible_truncation, reason = "asserted above")]
    {
        value as i32
    }
}

/// The assembled code, to be placed at [`CODE`], and the addresses that the interrupt table needs.
pub(super) struct Code {
    pub(super) bytes: Vec<u8>,
    pub(super) entry: u64,
    pub(super) handlers: [u64; VECTORS],
}

impl Code {
    /// The instruction at the load address: a jump to the code.
    pub(super) fn jump_from_start(&self) -> [u8; 5] {
        let [a, b, c, d, ..] = (self.entry - LOAD_ADDRESS - 5).to_le_bytes();
        [0xe9, a, b, c, d]
    }
}

/// Code under construction.
struct Program {
    a: CodeAssembler,
    labels: Labels,
    texts: Vec<(CodeLabel, &'static [u8])>,
}

macro_rules! labels {
    ($($name:ident),* $(,)?) => {
        /// Places in one part of the code that other parts refer to.
        struct Labels {
            /// Interrupt handlers by vector. A vector whose label was never placed has no handler.
            handlers: [CodeLabel; VECTORS],
            $($name: CodeLabel),*
        }

        impl Labels {
            fn new(a: &mut CodeAssembler) -> Self {
                Self { handlers: std::array::from_fn(|_| a.create_label()), $($name: a.create_label()),* }
            }
        }
    };
}

labels! {
    // Start and work.
    entry, ring3, run, service, beat, announce_clone, command, wake_others,
    // Calls of ring 0, and faults.
    gate, load_debug, read_debug, set_bases, recover, triple_fault, fail_emulation, faults, report_fault,
    // Printing.
    put_text, put_hex, put_byte, put_decimal, put_nonce, end_line,
    // Memory.
    page_address, generate, fill, sum, prepare_dirtying, dirty_page,
    // Self-test.
    prepare_self_test, self_test, self_test_failed, recovered, report,
    // Data.
    gdt_pointer, idt_pointer, structured, random, digits, part_names,
}

/// Assembles the whole guest.
pub(super) fn assemble() -> Result<Code, IcedError> {
    let mut program = Program::new()?;
    program.boot()?;
    program.interrupts()?;
    program.printing()?;
    program.filling()?;
    program.dirtying()?;
    program.running()?;
    program.self_testing()?;
    program.constants()?;
    program.finish()
}

impl Program {
    fn new() -> Result<Self, IcedError> {
        let mut a = CodeAssembler::new(64)?;
        let labels = Labels::new(&mut a);
        Ok(Self { a, labels, texts: Vec::new() })
    }

    /// Emits the data that the code refers to by label.
    fn constants(&mut self) -> Emit {
        let Self { a, labels, texts } = self;
        a.set_label(&mut labels.gdt_pointer)?;
        a.db(&tables::gdt_pointer())?;
        a.set_label(&mut labels.idt_pointer)?;
        a.db(&tables::idt_pointer())?;
        let words = |table: &Table| table.iter().flat_map(|&(mask, base)| [mask, base]).collect::<Vec<_>>();
        a.set_label(&mut labels.structured)?;
        a.dq(&words(&STRUCTURED))?;
        a.set_label(&mut labels.random)?;
        a.dq(&words(&RANDOM))?;
        a.set_label(&mut labels.digits)?;
        a.db(b"0123456789abcdef")?;
        for (label, text) in texts {
            a.set_label(label)?;
            a.db(text)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Code, IcedError> {
        let options = BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS;
        let code = self.a.assemble_options(CODE, options)?;
        let mut handlers = [0; VECTORS];
        for (address, label) in handlers.iter_mut().zip(&self.labels.handlers) {
            // A vector whose label was never placed has no handler.
            *address = code.label_ip(label).unwrap_or(0);
        }
        let entry = code.label_ip(&self.labels.entry)?;
        Ok(Code { entry, handlers, bytes: code.inner.code_buffer })
    }
}
