//! Constants of the 16550, from its data sheet.

/// Bytes the receive FIFO holds (as `vm-superio` models it).
pub const FIFO_BYTES: usize = 64;
/// Number of I/O ports.
pub const PORTS: u16 = 8;
