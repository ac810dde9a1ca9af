//! The two guests that come with the program, and how to tell from their consoles who they are and how far they have come.

use std::borrow::Cow;

use guest_images::{pulse, tiny_linux};
use vmm::config::Kernel;
use vmm::host::{Host, Virtualization};
use vmm::{Announce, Identity};

use crate::guest::{default_touched, pulse_params, random_nonce};
use crate::size::Size;
use crate::{Error, announce};

/// A guest that the demo and the benches can talk to.
pub enum KnownGuest {
    /// The bare-metal guest: its image, and how many bytes of memory it fills.
    #[expect(missing_docs, reason = "said above")]
    Pulse { image: Vec<u8>, touched_bytes: u64 },
    /// The tiny Linux.
    Linux(tiny_linux::Image),
}

impl KnownGuest {
    /// `pulse` for this much memory, of which it fills `touched` bytes, by default a quarter.
    ///
    /// # Errors
    /// [`Error::Pulse`] if that does not fit in the memory.
    pub fn pulse(memory: Size, touched: Option<u64>) -> Result<Self, Error> {
        let touched_bytes = touched.unwrap_or_else(|| default_touched(memory.0)) & !0xfff;
        Self::pulse_with(&pulse_params(random_nonce()?, touched_bytes))
    }

    /// `pulse` with these parameters.
    ///
    /// # Errors
    /// [`Error::Pulse`] if the parameters contradict each other.
    pub fn pulse_with(params: &pulse::Params) -> Result<Self, Error> {
        Ok(Self::Pulse { image: pulse::image(params)?, touched_bytes: params.touched_bytes })
    }

    /// The tiny Linux, which is built if it does not exist yet.
    ///
    /// # Errors
    /// [`Error::TinyLinux`] if it cannot be built.
    pub fn linux() -> Result<Self, Error> {
        Ok(Self::Linux(tiny_linux::image()?))
    }

    /// The guest's name, for people and for JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Pulse { .. } => "pulse",
            Self::Linux(_) => "tiny-linux",
        }
    }

    /// The kernel to boot.
    #[must_use]
    pub fn kernel(&self) -> Kernel {
        match self {
            Self::Pulse { image, .. } => Kernel::Flat { image: Cow::Owned(image.clone()) },
            Self::Linux(image) => {
                let emulated =
                    Host::get().is_ok_and(|host| host.virtualization() == Virtualization::PageTableBased);
                let additions = if emulated { tiny_linux::ON_PAGE_TABLE_BASED } else { "" };
                Kernel::Linux {
                    path: image.vmlinux.clone(),
                    initramfs: Some(image.initramfs.clone()),
                    cmdline: format!("{} {additions}", tiny_linux::COMMAND_LINE),
                }
            }
        }
    }

    /// An upper bound of the bytes that the guest touches.
    pub const fn touched_at_most(&self, memory_bytes: u64) -> u64 {
        match self {
            // The image, its tables, and the huge pages they lie on.
            Self::Pulse { touched_bytes, .. } => *touched_bytes + (8 << 20),
            Self::Linux(_) => memory_bytes,
        }
    }

    /// The start of the line by which the guest says that it has booted.
    #[must_use]
    pub const fn ready_text(&self) -> &'static str {
        match self {
            Self::Pulse { .. } => "pulse: ready nonce=",
            Self::Linux(_) => tiny_linux::READY,
        }
    }

    /// The nonce, if this is the line by which the guest says that it has booted. The nonce is a random number that the guest keeps
    /// only in its memory, and that its clones must know as well.
    pub fn ready(&self, line: &str) -> Option<String> {
        first_word(line.strip_prefix(self.ready_text())?).map(str::to_owned)
    }

    /// How a clone is told who it is.
    pub const fn announce(&self) -> Announce {
        match self {
            Self::Pulse { .. } => announce::PULSE,
            Self::Linux(_) => Announce::OnConsole,
        }
    }

    /// Whether this is the line by which a clone confirms that it knows who it is.
    pub fn confirms(&self, identity: Identity, line: &str) -> bool {
        let Identity { generation, id } = identity;
        match self {
            Self::Pulse { .. } => line == format!("pulse: clone generation={generation} id={id:032x}"),
            Self::Linux(_) => identity.is_confirmed_by(line),
        }
    }

    /// What to type so that the guest does nothing until it is asked, and what it answers. `None` if it is quiet already.
    pub const fn quiet(&self) -> Option<(&'static [u8], &'static str)> {
        match self {
            Self::Pulse { .. } => None,
            Self::Linux(_) => Some((b"quiet\n", "quiet")),
        }
    }

    /// What to type to ask for the nonce.
    pub const fn question(&self) -> &'static [u8] {
        match self {
            Self::Pulse { .. } => b"n",
            Self::Linux(_) => b"nonce\n",
        }
    }

    /// The nonce, if this line answers the question.
    pub fn nonce(&self, line: &str) -> Option<String> {
        let prefix = match self {
            Self::Pulse { .. } => "pulse: nonce=",
            Self::Linux(_) => "nonce ",
        };
        first_word(line.strip_prefix(prefix)?).map(str::to_owned)
    }

    /// The number of the beat or tick, if this line reports one.
    pub fn beat(&self, line: &str) -> Option<u64> {
        let prefix = match self {
            Self::Pulse { .. } => "pulse: beat ",
            Self::Linux(_) => "tick ",
        };
        first_word(line.strip_prefix(prefix)?)?.parse().ok()
    }
}

fn first_word(text: &str) -> Option<&str> {
    text.split_ascii_whitespace().next()
}
