//! Constants of the 16550, from its data sheet.

/// Size of the receive FIFO in bytes, as `vm-superio` models it.
pub const FIFO_BYTES: usize = 64;
/// Number of I/O ports.
pub const PORTS: u16 = 8;
