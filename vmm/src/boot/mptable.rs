//! The MP table: how a guest without ACPI finds its processors and interrupt lines.
//!
//! Source: Intel Multiprocessor Specification 1.4, chapter 4. The tables lie in the first KiB of the extended BIOS data
//! area, one of the places where guests look for the floating pointer.

use crate::memory::layout::{self, EBDA_ADDRESS};
use crate::memory::{Error, GuestMemory};

const SPEC_REVISION: u8 = 4;
const LOCAL_APIC_VERSION: u8 = 0x14;
const IO_APIC_VERSION: u8 = 0x11;
/// Interrupt lines of the ISA bus, each wired to the pin of the same number.
const ISA_LINES: u8 = 16;
const ISA_BUS: u8 = 0;
const TO_ALL_APICS: u8 = 0xff;

const ENTRY_PROCESSOR: u8 = 0;
const ENTRY_BUS: u8 = 1;
const ENTRY_IO_APIC: u8 = 2;
const ENTRY_IO_INTERRUPT: u8 = 3;
const ENTRY_LOCAL_INTERRUPT: u8 = 4;

const CPU_ENABLED: u8 = 1;
const CPU_BOOT: u8 = 2;
const INTERRUPT_VECTORED: u8 = 0;
const INTERRUPT_NMI: u8 = 1;
const INTERRUPT_EXTERNAL: u8 = 3;

const POINTER_BYTES: u64 = 16;

/// Writes the table for `vcpus` processors.
pub(super) fn write(memory: &GuestMemory, vcpus: u8) -> Result<(), Error> {
    let table = configuration(vcpus);
    let table_address = EBDA_ADDRESS + POINTER_BYTES;
    debug_assert!(
        table_address + table.len() as u64 <= layout::EBDA_END,
        "16 processors need 540 bytes of 1024"
    );
    memory.write(EBDA_ADDRESS, &floating_pointer(table_address))?;
    memory.write(table_address, &table)
}

fn floating_pointer(table_address: u64) -> Vec<u8> {
    let address = u32::try_from(table_address).expect("the EBDA is below 1 MiB");
    let mut pointer = b"_MP_".to_vec();
    pointer.extend(address.to_le_bytes());
    // Length in paragraphs, revision, checksum, and five feature bytes: zero says "there is a table", and that the
    // chips start in virtual wire mode.
    pointer.extend([1, SPEC_REVISION, 0, 0, 0, 0, 0, 0]);
    pointer[10] = checksum(&pointer);
    pointer
}

fn configuration(vcpus: u8) -> Vec<u8> {
    let io_apic_id = vcpus;
    let mut entries: Vec<Vec<u8>> = Vec::new();
    for cpu in 0..vcpus {
        let flags = CPU_ENABLED | if cpu == 0 { CPU_BOOT } else { 0 };
        let mut entry = vec![ENTRY_PROCESSOR, cpu, LOCAL_APIC_VERSION, flags];
        // Family 6, with an FPU and an APIC; guests ask CPUID instead.
        entry.extend(0x600_u32.to_le_bytes());
        entry.extend(0x201_u32.to_le_bytes());
        entry.extend([0; 8]);
        entries.push(entry);
    }
    entries.push([&[ENTRY_BUS, ISA_BUS], b"ISA   ".as_slice()].concat());
    let mut io_apic = vec![ENTRY_IO_APIC, io_apic_id, IO_APIC_VERSION, 1];
    io_apic.extend(layout::IO_APIC_ADDRESS.to_le_bytes());
    entries.push(io_apic);
    // Polarity and trigger mode 0: as defined by the bus, which means edges for ISA.
    for line in 0..ISA_LINES {
        entries.push(vec![ENTRY_IO_INTERRUPT, INTERRUPT_VECTORED, 0, 0, ISA_BUS, line, io_apic_id, line]);
    }
    entries.push(vec![ENTRY_LOCAL_INTERRUPT, INTERRUPT_EXTERNAL, 0, 0, ISA_BUS, 0, TO_ALL_APICS, 0]);
    entries.push(vec![ENTRY_LOCAL_INTERRUPT, INTERRUPT_NMI, 0, 0, ISA_BUS, 0, TO_ALL_APICS, 1]);

    let count = u16::try_from(entries.len()).expect("at most 16 processors and 20 other entries");
    let entries = entries.concat();
    let mut table = b"PCMP".to_vec();
    let length = u16::try_from(44 + entries.len()).expect("540 bytes at most");
    table.extend(length.to_le_bytes());
    table.extend([SPEC_REVISION, 0]);
    table.extend(b"CLONER  CLONER VM   ");
    table.extend([0; 6]);
    table.extend(count.to_le_bytes());
    table.extend(layout::LOCAL_APIC_ADDRESS.to_le_bytes());
    table.extend([0; 4]);
    table.extend(entries);
    table[7] = checksum(&table);
    table
}

/// The byte that makes all bytes add up to zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_add_up_and_fit() {
        for vcpus in [1, 2, layout::MAX_VCPUS] {
            let table = configuration(vcpus);
            assert_eq!(table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
            assert_eq!(usize::from(u16::from_le_bytes([table[4], table[5]])), table.len());
            assert!(EBDA_ADDRESS + POINTER_BYTES + table.len() as u64 <= layout::EBDA_END);
        }
        let pointer = floating_pointer(0x9_fc10);
        assert_eq!(pointer.len() as u64, POINTER_BYTES);
        assert_eq!(pointer.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    }
}
