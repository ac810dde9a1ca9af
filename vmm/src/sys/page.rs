//! Sizes of pages.

/// Size and alignment of a huge page: 2 MiB, the only size this program uses.
pub const HUGE_PAGE_SIZE: usize = 2 << 20;
/// Size of an ordinary page: 4 KiB.
pub const PAGE_SIZE: usize = 4096;
