//! `tiny-linux`: where its kernel and its initramfs are, built first if they are not.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The build script cannot be run.
    #[error("cannot run {}", script.display())]
    Run {
        /// The script.
        script: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The build script failed; it has said why on standard error.
    #[error("{} failed: {status}", script.display())]
    Failed {
        /// The script.
        script: PathBuf,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// What the build script needs is not installed, and this user cannot install it.
    #[error("tiny-linux cannot be built without {0}")]
    Missing(String),
    /// The build script did not name a file it should have.
    #[error("{} did not say where its {what} is", script.display())]
    Silent {
        /// The script.
        script: PathBuf,
        /// Which file.
        what: &'static str,
    },
}

/// The script that builds the image, beside the sources this library was built from.
#[must_use]
pub fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tiny-linux/build.sh")
}

/// The image, from the cache or built now, which takes minutes and shows its progress on standard error.
///
/// # Errors
/// See [`Error`].
pub fn image() -> Result<Image, Error> {
    let script = script();
    let output = Command::new(&script)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|source| Error::Run { script: script.clone(), source })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let missing = text.lines().find_map(|line| line.strip_prefix("missing "));
        return Err(match missing {
            Some(what) => Error::Missing(what.to_owned()),
            None => Error::Failed { script, status: output.status },
        });
    }
    let path = |what: &'static str| {
        // Lines of `name path sha256`.
        let line = text.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(' '));
        let path = line.and_then(|rest| rest.rsplit_once(' ')).map(|(path, _sha256)| PathBuf::from(path));
        path.ok_or_else(|| Error::Silent { script: script.clone(), what })
    };
    Ok(Image { vmlinux: path("vmlinux")?, bzimage: path("bzimage")?, initramfs: path("initramfs")? })
}
