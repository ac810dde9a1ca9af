//! ELF files that a loader must refuse as kernels, and one that it accepts.

const EHDR_BYTES: u64 = 64;
const PHDR_BYTES: u64 = 56;

/// An ELF executable with one segment.
pub struct Elf {
    /// Guest-physical address at which the segment is loaded.
    pub address: u64,
    /// Content of the segment.
    pub content: Vec<u8>,
    /// Length of the segment in memory, in bytes.
    pub memory_bytes: u64,
    /// Guest-physical address at which the kernel is entered.
    pub entry: u64,
}

impl Elf {
    /// A kernel that fits any guest: 256 bytes of `hlt` at 1 MiB.
    pub fn small() -> Self {
        let content = vec![0xf4; 256];
        Self { address: 0x10_0000, memory_bytes: content.len() as u64, content, entry: 0x10_0000 }
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let Self { address, content, memory_bytes, entry } = self;
        let content_at = EHDR_BYTES + PHDR_BYTES;
        // Magic, 64 bits, little-endian, version 1; executable, x86-64, version 1.
        let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
        // Entry, program headers right after this header, no section headers, no flags.
        bytes.extend([*entry, EHDR_BYTES, 0].iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend(0_u32.to_le_bytes());
        // Lengths of headers, one program header, no section header.
        bytes.extend([64_u16, 56, 1, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()));
        // PT_LOAD, readable and executable; place in the file, virtual and physical address, lengths, alignment.
        bytes.extend([1_u32, 5].iter().flat_map(|word| word.to_le_bytes()));
        let segment = [content_at, *address, *address, content.len() as u64, *memory_bytes, 0x1000];
        bytes.extend(segment.iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend(content);
        bytes
    }
}
