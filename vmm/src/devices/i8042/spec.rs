//! Constants of the PC's keyboard controller.

/// Number of I/O ports, of which the second to fourth belong to others.
pub const PORTS: u16 = 5;
/// Data register.
pub const DATA: u16 = 0;
/// Status on reading, command on writing.
pub const COMMAND: u16 = 4;
/// Status: the data register has a byte for the processor.
pub const OUTPUT_FULL: u8 = 1;
/// Command: pulse the processor's reset line.
pub const RESET: u8 = 0xfe;
