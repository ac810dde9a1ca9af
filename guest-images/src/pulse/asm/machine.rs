//! Numbers of the machine that several parts of the code need.

/// Flags of ring 3: interrupts on. The TSS opens its ports, not IOPL 3, because an emulated IRETQ does not
/// load that.
pub(super) const RING3_FLAGS: i32 = 0x202;
pub(super) const LAPIC: u32 = 0xfee0_0000;
pub(super) const LAPIC_ID: i32 = 0x20;
pub(super) const LAPIC_EOI: u64 = 0xb0;

/// FS base minus GS base, which is the vCPU's block.
pub(super) const FS_OFFSET: u64 = 0x40;
