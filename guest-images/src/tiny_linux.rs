//! `tiny-linux`: the paths of its kernel and its initramfs, which are built first if they do not exist.

use std::path::PathBuf;

use crate::script::{self, Error};

/// Kernel command line; a page-table based host needs [`ON_PAGE_TABLE_BASED`] as well.
pub const COMMAND_LINE: &str = "console=ttyS0 reboot=k panic=-1 tsc=reliable quiet";

/// Additions to the command line for hosts that show AVX to a kernel which does not save it. They spare the init process from
/// having to start itself again.
pub const ON_PAGE_TABLE_BASED: &str = "retain_initrd \
    GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX,-AVX2,-AVX512F,-AVX512VL,-AVX512BW,-AVX_Fast_Unaligned_Load";

/// Beginning of the line that says the guest is up; the nonce follows.
pub const READY: &str = "tiny-linux: ready nonce=";

/// Paths of the files of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The kernel as an ELF file.
    pub vmlinux: PathBuf,
    /// The same kernel, compressed.
    pub bzimage: PathBuf,
    /// Uncompressed initial RAM file system.
    pub initramfs: PathBuf,
}

/// Path of the script that builds the image, beside the sources that this library was built from.
#[must_use]
pub fn script() -> PathBuf {
    script::path("tiny-linux/build.sh")
}

/// The image, from the cache or built now. Building takes minutes and shows its progress on standard error.
///
/// # Errors
/// [`Error::Failed`] if the script could not fetch or build something, [`Error::Missing`] if packages must be installed first,
/// [`Error::Run`] or [`Error::Silent`] if the script cannot be run or does not print what it should.
pub fn image() -> Result<Image, Error> {
    let output = script::run(script())?;
    Ok(Image {
        vmlinux: output.path("vmlinux")?,
        bzimage: output.path("bzimage")?,
        initramfs: output.path("initramfs")?,
    })
}
