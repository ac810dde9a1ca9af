//! Saved state of the interrupt controllers, the timer and the clock.

use kvm_bindings::{kvm_ioapic_state, kvm_pic_state, kvm_pit_channel_state};
use serde::{Deserialize, Serialize};

use crate::schema::mirror;

mirror! {
    /// An 8259 interrupt controller, as `KVM_GET_IRQCHIP` gives it.
    pub struct PicStateV1 = kvm_pic_state {
        last_irr: u8,
        irr: u8,
        imr: u8,
        isr: u8,
        priority_add: u8,
        irq_base: u8,
        read_reg_select: u8,
        poll: u8,
        special_mask: u8,
        init_state: u8,
        auto_eoi: u8,
        rotate_on_auto_eoi: u8,
        special_fully_nested_mode: u8,
        init4: u8,
        elcr: u8,
        elcr_mask: u8,
    }
}

mirror! {
    /// One channel of the 8254 timer.
    pub struct PitChannelStateV1 = kvm_pit_channel_state {
        count: u32,
        latched_count: u16,
        count_latched: u8,
        status_latched: u8,
        status: u8,
        read_state: u8,
        write_state: u8,
        write_latch: u8,
        rw_mode: u8,
        mode: u8,
        bcd: u8,
        gate: u8,
        count_load_time: i64,
    }
}

/// The I/O APIC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IoApicStateV1 {
    /// Guest-physical address of the registers.
    pub base_address: u64,
    /// Number of the register that is selected, 0 to 255.
    pub ioregsel: u32,
    /// The APIC id of the I/O APIC, 0 to 15.
    pub id: u32,
    /// Pending interrupt lines, one bit each.
    pub irr: u32,
    /// The redirection table, one entry for each pin.
    pub redirections: [u64; 24],
}

/// The 8254 timer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PitStateV1 {
    /// The three channels, by number.
    pub channels: [PitChannelStateV1; 3],
    /// Bits of `KVM_PIT_FLAGS_…`.
    pub flags: u32,
}

/// Everything below the vCPUs that raises or routes interrupts, and the paravirtual clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InterruptStateV1 {
    /// The master 8259, lines 0 to 7.
    pub pic_master: PicStateV1,
    /// The slave 8259, lines 8 to 15.
    pub pic_slave: PicStateV1,
    /// The I/O APIC and its redirection table.
    pub io_apic: IoApicStateV1,
    /// The 8254 timer.
    pub pit: PitStateV1,
    /// The guest's kvmclock, in ns.
    pub clock_ns: u64,
}

impl From<(kvm_ioapic_state, [u64; 24])> for IoApicStateV1 {
    fn from((chip, redirections): (kvm_ioapic_state, [u64; 24])) -> Self {
        let kvm_ioapic_state { base_address, ioregsel, id, irr, pad: _, redirtbl: _ } = chip;
        Self { base_address, ioregsel, id, irr, redirections }
    }
}

impl From<&IoApicStateV1> for kvm_ioapic_state {
    fn from(state: &IoApicStateV1) -> Self {
        let IoApicStateV1 { base_address, ioregsel, id, irr, redirections } = *state;
        let redirtbl = redirections.map(|bits| kvm_bindings::kvm_ioapic_state__bindgen_ty_1 { bits });
        Self { base_address, ioregsel, id, irr, pad: 0, redirtbl }
    }
}
