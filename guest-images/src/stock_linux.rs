//! `stock-linux`: Debian's kernels, fetched by a script, and an initramfs whose only program notices what a clone must not notice.
//!
//! `stock-linux/README.md` says what that program watches, and how it is talked to.

use std::path::PathBuf;

use crate::script::{self, Error};

/// Kernel command line. These kernels run on ordinary hosts only: where ring 0 is emulated they would need many minutes.
pub const COMMAND_LINE: &str = "console=ttyS0 reboot=k panic=-1 tsc=reliable acpi=off quiet";

/// A line that says the guest is up begins with this; its nonce follows.
pub const READY: &str = "witness-ready: nonce=";

/// The files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// bzImage of Debian's kernel for PCs.
    pub generic: PathBuf,
    /// bzImage of Debian's kernel for cloud machines. Without ACPI it finds one processor only, as it reads no MP table.
    pub cloud: PathBuf,
    /// Uncompressed initial RAM file system with the witness.
    pub initramfs: PathBuf,
    /// For the generic kernel: a program that runs a guest of its own, by that kernel's KVM.
    pub nested: PathBuf,
    /// What Debian's `initramfs-tools` make for the cloud kernel: it looks for a root file system, and gives a shell if there is none.
    pub initrd: PathBuf,
}

/// The script that makes the image.
#[must_use]
pub fn script() -> PathBuf {
    script::path("stock-linux/build.sh")
}

/// The image, from the cache or made now: 100 MB from Debian's mirror, and as root. It shows its progress on standard error.
///
/// # Errors
/// [`Error::Failed`] if the script could not fetch or build something, the others if it is not what it should be.
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
