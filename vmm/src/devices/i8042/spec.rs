//! Constants of the PC's keyboard controller.

/// Number of I/O ports. The second to fourth belong to other devices.
pub const PORTS: u16 = 5;
/// Offset of the data register's port.
pub const DATA: u16 = 0;
/// Offset of the port that gives the status on reading and takes a command on writing.
pub const COMMAND: u16 = 4;
/// Status bit: the data register has a byte for the processor.
pub const OUTPUT_FULL: u8 = 1;
/// Command: pulse the processor's reset line.
pub const RESET: u8 = 0xfe;
