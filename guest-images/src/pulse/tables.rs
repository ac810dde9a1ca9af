//! The descriptor tables of the guest. The host makes them as part of the image, so that ring 0 has nothing to
//! compute.

use super::layout::{BLOCKS, CODE, GDT, IDT, MAX_CPUS, TSS, block};

/// Selectors. Those for code and data are the ones that the VMM starts a flat image with, so nothing needs reloading.
pub(super) const RING0_CODE: u16 = 0x10;
pub(super) const RING3_DATA: u16 = 0x2b;
pub(super) const RING3_CODE: u16 = 0x33;
pub(super) const FIRST_TSS: u64 = 0x40;

/// Interrupt vectors of the guest. The lower 32 belong to the processor.
pub(super) const TIMER_VECTOR: u8 = 0x20;
pub(super) const CONSOLE_VECTOR: u8 = 0x21;
pub(super) const WAKE_VECTOR: u8 = 0x22;
pub(super) const SPURIOUS_VECTOR: u8 = 0x2f;
pub(super) const VECTORS: usize = 0x30;

/// Offset in a TSS of the bitmap of the ports up to the console's, all open. A byte of ones ends it.
const TSS_BITMAP: usize = 0x68;
const TSS_LEN: usize = TSS_BITMAP + 0x400 / 8 + 1;
const TSS_STRIDE: usize = 0x100;
const GDT_LEN: u64 = FIRST_TSS + 16 * MAX_CPUS;

const _: () = assert!(
    GDT + GDT_LEN <= IDT && IDT + 16 * VECTORS as u64 <= TSS && TSS + MAX_CPUS * TSS_STRIDE as u64 <= CODE
);

/// Operand of LGDT.
pub(super) fn gdt_pointer() -> [u8; 10] {
    table_pointer(GDT, GDT_LEN)
}

/// Operand of LIDT.
pub(super) fn idt_pointer() -> [u8; 10] {
    table_pointer(IDT, 16 * VECTORS as u64)
}

fn table_pointer(address: u64, len: u64) -> [u8; 10] {
    let mut pointer = [0; 10];
    pointer[..2].copy_from_slice(&(len - 1).to_le_bytes()[..2]);
    pointer[2..].copy_from_slice(&address.to_le_bytes());
    pointer
}

pub(super) fn gdt() -> Vec<u8> {
    let flat = [
        0,
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0,
        0x00cf_f300_0000_ffff,
        0x00af_fb00_0000_ffff,
        0,
    ];
    let tss = (0..MAX_CPUS).flat_map(|cpu| {
        let base = TSS + cpu * TSS_STRIDE as u64;
        // Present, type 9 (available 64-bit TSS); the base is below 4 GiB, so the upper half is zero.
        let low = (TSS_LEN as u64 - 1) | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56;
        [low, 0]
    });
    flat.into_iter().chain(tss).flat_map(u64::to_le_bytes).collect()
}

/// One TSS per vCPU: stack 0 for calls and faults, interrupt stack 1 for interrupts, so that an interrupt finds the
/// variables of its vCPU at a fixed distance from the stack pointer, whatever it interrupts.
pub(super) fn tss() -> Vec<u8> {
    (0..MAX_CPUS)
        .flat_map(|cpu| {
            let block = BLOCKS + cpu * block::SIZE;
            let mut tss = [0; TSS_STRIDE];
            tss[0x04..0x0c].copy_from_slice(&(block + block::RING0_STACK).to_le_bytes());
            tss[0x24..0x2c].copy_from_slice(&(block + block::INTERRUPT_STACK).to_le_bytes());
            tss[0x66..0x68].copy_from_slice(&TSS_BITMAP.to_le_bytes()[..2]);
            tss[TSS_LEN - 1] = 0xff;
            tss
        })
        .collect()
}

/// Interrupt gates to ring 0, one per handler address; 0 leaves a gate absent.
pub(super) fn idt(handlers: &[u64; VECTORS]) -> Vec<u8> {
    handlers
        .iter()
        .enumerate()
        .flat_map(|(vector, &handler)| {
            let present = if handler == 0 { 0 } else { 0x8e00 };
            let stack = u64::from(vector >= usize::from(TIMER_VECTOR));
            let low = handler & 0xffff
                | u64::from(RING0_CODE) << 16
                | (stack | present) << 32
                | (handler >> 16 & 0xffff) << 48;
            [low, handler >> 32]
        })
        .flat_map(u64::to_le_bytes)
        .collect()
}
