//! Constants of the PC's battery-backed clock and memory.

/// Number of I/O ports.
pub const PORTS: u16 = 2;
/// Offset of the port that accesses the register whose number was last written to the first port.
pub const DATA: u16 = 1;
