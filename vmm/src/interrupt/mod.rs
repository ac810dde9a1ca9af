//! The in-kernel interrupt controllers and timer: two 8259s, an I/O APIC, an 8254.

pub mod state;

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_PIT_SPEAKER_DUMMY, kvm_clock_data,
    kvm_irqchip, kvm_irqchip__bindgen_ty_1, kvm_pit_config, kvm_pit_state2,
};
use kvm_ioctls::VmFd;
use vmm_sys_util::errno;

use self::state::{InterruptStateV1, PitStateV1};
use crate::memory::layout;
use crate::sys::kvm;

/// A call to KVM that failed: its name, and the kernel's reason as the source.
#[derive(Debug, thiserror::Error)]
#[error("{name} failed")]
pub struct Error {
    name: &'static str,
    source: errno::Error,
}

fn ioctl<T>(name: &'static str, result: Result<T, errno::Error>) -> Result<T, Error> {
    result.map_err(|source| Error { name, source })
}

/// Creates the chips. Must come before the first vCPU, which otherwise gets no local APIC.
///
/// # Errors
/// [`Error`] names the call that KVM refused.
pub fn create(vm: &VmFd) -> Result<(), Error> {
    // Both are needed on Intel processors only, where KVM runs real mode in a small task of its own. They must not
    // overlap memory, and must come before the vCPUs.
    ioctl("KVM_SET_IDENTITY_MAP_ADDR", vm.set_identity_map_address(layout::IDENTITY_MAP_ADDRESS))?;
    ioctl("KVM_SET_TSS_ADDR", vm.set_tss_address(layout::TSS_ADDRESS))?;
    ioctl("KVM_CREATE_IRQCHIP", vm.create_irq_chip())?;
    // Port 0x61 belongs to the timer's third channel, with which Linux calibrates; let the kernel handle that as well.
    let config = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..kvm_pit_config::default() };
    ioctl("KVM_CREATE_PIT2", vm.create_pit2(config))
}

/// Saves chips, timer and clock. No vCPU may run. `unstarted` is the timer of a restored VM that has not run yet.
///
/// # Errors
/// [`Error`] names the call that KVM refused.
pub fn save(vm: &VmFd, unstarted: Option<&PitStateV1>) -> Result<InterruptStateV1, Error> {
    let clock = ioctl("KVM_GET_CLOCK", vm.get_clock())?;
    let pit = match unstarted {
        Some(pit) => pit.clone(),
        None => {
            let kvm_pit_state2 { channels, flags, reserved: _ } = ioctl("KVM_GET_PIT2", vm.get_pit2())?;
            PitStateV1 { channels: channels.each_ref().map(Into::into), flags }
        }
    };
    Ok(InterruptStateV1 {
        pic_master: (&kvm::pic(&get_chip(vm, KVM_IRQCHIP_PIC_MASTER)?)).into(),
        pic_slave: (&kvm::pic(&get_chip(vm, KVM_IRQCHIP_PIC_SLAVE)?)).into(),
        io_apic: kvm::io_apic(&get_chip(vm, KVM_IRQCHIP_IOAPIC)?).into(),
        pit,
        clock_ns: clock.clock,
    })
}

/// Restores clock and chips, after the vCPUs and before any of them runs. The timer is left to [`start_timer`].
///
/// # Errors
/// [`Error`] names the call that KVM refused.
pub fn restore(vm: &VmFd, state: &InterruptStateV1) -> Result<(), Error> {
    let InterruptStateV1 { pic_master, pic_slave, io_apic, pit: _, clock_ns } = state;
    // Flags 0: with KVM_CLOCK_REALTIME, which KVM_GET_CLOCK reports, the guest's clock would jump by the time that
    // passed since the snapshot. A clone's clock goes on from where its source's was.
    let clock = kvm_clock_data { clock: *clock_ns, ..kvm_clock_data::default() };
    ioctl("KVM_SET_CLOCK", vm.set_clock(&clock))?;
    for (chip_id, pic) in [(KVM_IRQCHIP_PIC_MASTER, pic_master), (KVM_IRQCHIP_PIC_SLAVE, pic_slave)] {
        let chip = kvm_irqchip__bindgen_ty_1 { pic: pic.into() };
        ioctl("KVM_SET_IRQCHIP (PIC)", vm.set_irqchip(&kvm_irqchip { chip_id, pad: 0, chip }))?;
    }
    let chip = kvm_irqchip__bindgen_ty_1 { ioapic: io_apic.into() };
    ioctl(
        "KVM_SET_IRQCHIP (IOAPIC)",
        vm.set_irqchip(&kvm_irqchip { chip_id: KVM_IRQCHIP_IOAPIC, pad: 0, chip }),
    )
}

/// Restores the timer, which counts from then on. Call it when the guest is about to run, not earlier.
///
/// KVM raises the timer's interrupt once, and again only after the guest has acknowledged it (`irq_ack` in arch/x86/kvm/i8254.c).
/// Restoring the chips would wipe out an interrupt raised before; it would never be acknowledged and would be the last. And the
/// interrupts that a periodic timer raises before the guest runs pile up and come all at once.
///
/// # Errors
/// The kernel's reason for refusing `KVM_SET_PIT2`: `ENXIO` if the VM has no timer.
pub fn start_timer(vm: &VmFd, pit: &PitStateV1) -> Result<(), Error> {
    let PitStateV1 { channels, flags } = pit;
    let pit =
        kvm_pit_state2 { channels: channels.each_ref().map(Into::into), flags: *flags, reserved: [0; 9] };
    ioctl("KVM_SET_PIT2", vm.set_pit2(&pit))
}

fn get_chip(vm: &VmFd, chip_id: u32) -> Result<kvm_irqchip, Error> {
    let mut irqchip = kvm_irqchip { chip_id, ..kvm_irqchip::default() };
    ioctl("KVM_GET_IRQCHIP", vm.get_irqchip(&mut irqchip))?;
    Ok(irqchip)
}
