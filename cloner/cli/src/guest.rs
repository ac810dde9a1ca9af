//! Which guest to boot: options that several commands share.

use std::borrow::Cow;
use std::path::PathBuf;

use vmm::Announce;
use vmm::config::{Config, Kernel};
use vmm::host::random;
use vmm::memory::{Backing, PageSize, layout};

use guest_images::pulse;

use crate::size::Size;
use crate::{Error, announce, emulated};

/// The options of the machine.
#[derive(Debug, Clone, clap::Args)]
pub struct MachineArgs {
    /// Memory of the guest, 1M to 64G
    #[arg(long, value_name = "SIZE", default_value = "256M")]
    pub memory: Size,
    /// Virtual processors of the guest, 1 to 16
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub cpus: u8,
    /// Show the guest VT-x or SVM, so that it can run guests of its own; the host's KVM must offer it
    #[arg(long)]
    pub nested: bool,
    /// Put guest memory on reserved 2 MiB pages (default: transparent huge pages)
    #[arg(long)]
    pub hugepages: bool,
    /// Put guest memory in a memfd, which can be handed to another process (default: private memory)
    #[arg(long)]
    pub shared: bool,
}

/// The options that choose what the machine boots.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "What to boot")]
#[group(skip)]
#[command(group(clap::ArgGroup::new("boot").required(true).args(["kernel", "flat", "pulse"])))]
pub struct BootArgs {
    /// A Linux kernel: ELF vmlinux or bzImage. Stock kernels find neither ACPI nor PCI, so no disk and no network, and
    /// those without MP tables (Debian's cloud kernel) only one processor
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Initial RAM file system of the kernel
    // Clap does not enforce `requires` for an argument that conflicts with another one given, hence both.
    #[arg(long, value_name = "FILE", requires = "kernel", conflicts_with_all = ["flat", "pulse"])]
    initrd: Option<PathBuf>,
    /// Command line of the kernel; on hosts that emulate ring 0, the options needed there are appended
    #[arg(long, value_name = "TEXT", requires = "kernel", conflicts_with_all = ["flat", "pulse"], default_value = DEFAULT_COMMAND_LINE)]
    cmdline: String,
    /// A bare-metal image, loaded at 512 KiB and entered there in 64-bit mode
    #[arg(long, value_name = "FILE")]
    flat: Option<PathBuf>,
    /// The built-in bare-metal guest
    #[arg(long)]
    pulse: bool,
}

/// The guest has no ACPI: stock kernels that are told so do not complain about it.
const DEFAULT_COMMAND_LINE: &str = "console=ttyS0 reboot=k panic=-1 tsc=reliable acpi=off quiet";

/// Milliseconds between beats of the built-in guest.
pub const BEAT_MS: u32 = 200;

impl MachineArgs {
    /// The kind of memory the guest gets.
    #[must_use]
    pub fn backing(&self) -> Backing {
        let pages = if self.hugepages { PageSize::Huge } else { PageSize::Transparent };
        if self.shared { Backing::Shared(pages) } else { Backing::Private(pages) }
    }

    /// The configuration of the machine, with this kernel.
    #[must_use]
    pub fn config(&self, kernel: Kernel) -> Config {
        Config {
            memory_bytes: self.memory.0,
            backing: self.backing(),
            vcpus: self.cpus,
            nested: self.nested,
            kernel,
        }
    }
}

impl BootArgs {
    /// How the guest can be told who it is, as far as that is known.
    #[must_use]
    pub const fn announce(&self) -> Announce {
        if self.pulse { announce::PULSE } else { Announce::Never }
    }

    /// The kernel asked for, or the built-in guest if none was.
    ///
    /// # Errors
    /// [`Error::FlatImage`] if an image cannot be read; [`Error::Pulse`] if the memory is too small for the built-in guest.
    pub fn kernel(&self, memory: Size) -> Result<Kernel, Error> {
        if let Some(path) = &self.kernel {
            emulated::warn_if_compressed(path);
            let (path, initramfs) = (path.clone(), self.initrd.clone());
            return Ok(Kernel::Linux { path, initramfs, cmdline: self.cmdline.clone() });
        }
        if let Some(path) = &self.flat {
            let image =
                std::fs::read(path).map_err(|source| Error::FlatImage { path: path.clone(), source })?;
            return Ok(Kernel::Flat { image: Cow::Owned(image) });
        }
        let params = pulse_params(random_nonce()?, default_touched(memory.0));
        Ok(Kernel::Flat { image: Cow::Owned(pulse::image(&params)?) })
    }
}

/// Parameters with which the built-in guest beats and touches this many bytes.
#[must_use]
pub fn pulse_params(nonce: u64, touched_bytes: u64) -> pulse::Params {
    pulse::Params { beat_ms: BEAT_MS, ..pulse::Params::new(nonce, touched_bytes) }
}

/// A quarter of the memory, in whole pages, limited to the part that `pulse` can fill.
pub fn default_touched(memory_bytes: u64) -> u64 {
    let room = memory_bytes.saturating_sub(layout::HIGH_MEMORY_ADDRESS);
    (memory_bytes / 4).min(room) & !0xfff
}

/// A number that nobody can guess, from the kernel's random numbers.
///
/// # Errors
/// [`Error::Random`].
pub fn random_nonce() -> Result<u64, Error> {
    random::bytes().map(u64::from_le_bytes).map_err(Error::Random)
}
