//! Constants of the PC's battery-backed clock and memory.

/// Number of I/O ports.
pub const PORTS: u16 = 2;
/// The register whose number was last written to the port before.
pub const DATA: u16 = 1;
