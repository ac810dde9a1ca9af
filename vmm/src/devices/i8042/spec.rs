//! Constants of the PC's keyboard controller.

/// Number of I/O ports, of which the second to fourth belong to others.
pub const PORTS: u16 = 5;
/// Data register.
pub const DATA: u16 = 0;
/// Status on reading, command on writing.
pub const COMMAND: u16 = 4;
/// Command: pulse the processor's reset line.
pub const RESET: u8 = 0xfe;
