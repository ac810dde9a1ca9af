//! `stock-linux`: Debian's kernels, fetched by a script, and an initramfs whose only program notices changes that a clone must not
//! see.
//!
//! `stock-linux/README.md` says what that program watches, and how it is talked to.

use std::path::PathBuf;

use crate::script::{self, Error};

/// Kernel command line. These kernels are for ordinary hosts only: where ring 0 is emulated, booting them would take many minutes.
pub const COMMAND_LINE: &str = "console=ttyS0 reboot=k panic=-1 tsc=reliable acpi=off quiet";

/// Beginning of the line that says the guest is up; the nonce follows.
pub const READY: &str = "witness-ready: nonce=";

/// Paths of the files of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// bzImage of Debian's kernel for PCs.
    pub generic: PathBuf,
    /// bzImage of Debian's kernel for cloud machines. Without ACPI it finds only one processor, because it reads no MP table.
    pub cloud: PathBuf,
    /// Uncompressed initial RAM file system with the witness.
    pub initramfs: PathBuf,
    /// For the generic kernel: a program that runs a guest of its own with that kernel's KVM.
    pub nested: PathBuf,
    /// The initrd that Debian's `initramfs-tools` make for the cloud kernel: it looks for a root file system, and gives a shell if
    /// there is none.
    pub initrd: PathBuf,
}

/// Path of the script that makes the image.
#[must_use]
pub fn script() -> PathBuf {
    script::path("stock-linux/build.sh")
}

/// The image, from the cache or made now, which downloads 100 MB from Debian's mirror and has to be done as root. The script shows
/// its progress on standard error.
///
/// # Errors
/// [`Error::Failed`] if the script could not fetch or build something, [`Error::Missing`] if packages must be installed first,
/// [`Error::Run`] or [`Error::Silent`] if the script cannot be run or does not print what it should.
pub fn image() -> Result<Image, Error> {
    let output = script::run(script())?;
    Ok(Image {
        generic: output.path("generic")?,
        cloud: output.path("cloud")?,
        initramfs: output.path("initramfs")?,
        nested: output.path("nested")?,
        initrd: output.path("initrd")?,
    })
}
