//! `tiny-linux`: where its kernel and its initramfs are, built first if they are not.

use std::path::PathBuf;

use crate::script::{self, Error};

/// Kernel command line; a page-table based host needs [`ON_PAGE_TABLE_BASED`] as well.
pub const COMMAND_LINE: &str = "console=ttyS0 reboot=k panic=-1 tsc=reliable quiet";

/// What saves the init process from starting itself again, on hosts that show AVX to a kernel which does not save it.
pub const ON_PAGE_TABLE_BASED: &str = "retain_initrd \
    GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX,-AVX2,-AVX512F,-AVX512VL,-AVX512BW,-AVX_Fast_Unaligned_Load";

/// A line that says the guest is up begins with this; its nonce follows.
pub const READY: &str = "tiny-linux: ready nonce=";

/// The files of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// ELF kernel.
    pub vmlinux: PathBuf,
    /// The same, compressed.
    pub bzimage: PathBuf,
    /// Uncompressed initial RAM file system.
    pub initramfs: PathBuf,
}

/// The script that builds the image, beside the sources this library was built from.
#[must_use]
pub fn script() -> PathBuf {
    script::path("tiny-linux/build.sh")
}

/// The image, from the cache or built now, which takes minutes and shows its progress on standard error.
///
/// # Errors
/// See [`Error`].
pub fn image() -> Result<Image, Error> {
    let output = script::run(script())?;
    Ok(Image {
        vmlinux: output.path("vmlinux")?,
        bzimage: output.path("bzimage")?,
        initramfs: output.path("initramfs")?,
    })
}
