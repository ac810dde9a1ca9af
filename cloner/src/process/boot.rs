//! A configuration on its way to the process that boots it.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vmm::config::{Config, Kernel};
use vmm::memory::memfd;
use vmm::memory::{Backing, PageSize};

use super::Error;

/// A [`Config`] without the image of a flat kernel, which is passed as a file beside it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BootRequest {
    memory_bytes: u64,
    vcpus: u8,
    nested: bool,
    shared: bool,
    pages: PageSize,
    kernel: BootKernel,
}

/// Paths are bytes, because they need not be valid UTF-8.
#[derive(Debug, Serialize, Deserialize)]
enum BootKernel {
    Linux { path: Vec<u8>, initramfs: Option<Vec<u8>>, cmdline: String },
    Flat,
}

impl BootRequest {
    /// The message, and the file that goes with it, which is empty if the kernel is not a flat image.
    pub(super) fn of(config: &Config) -> Result<(Self, File), Error> {
        let Config { memory_bytes, backing, vcpus, nested, kernel } = config;
        let (shared, pages) = match backing {
            Backing::Private(pages) => (false, *pages),
            Backing::Shared(pages) => (true, *pages),
            Backing::OverTemplate(_) => return Err(Error::OverTemplate),
        };
        let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
        let (kernel, image) = match kernel {
            Kernel::Linux { path, initramfs, cmdline } => {
                let (path, initramfs) = (bytes(path), initramfs.as_deref().map(bytes));
                (BootKernel::Linux { path, initramfs, cmdline: cmdline.clone() }, &[][..])
            }
            Kernel::Flat { image } => (BootKernel::Flat, &image[..]),
        };
        let file = memfd::create(c"image", image.len() as u64, false)?;
        file.write_all_at(image, 0)?;
        Ok((
            Self { memory_bytes: *memory_bytes, vcpus: *vcpus, nested: *nested, shared, pages, kernel },
            file,
        ))
    }

    /// Puts the configuration together again.
    pub(super) fn config(self, image: &File) -> io::Result<Config> {
        let Self { memory_bytes, vcpus, nested, shared, pages, kernel } = self;
        let path = |bytes| PathBuf::from(OsString::from_vec(bytes));
        let kernel = match kernel {
            BootKernel::Linux { path: kernel, initramfs, cmdline } => {
                Kernel::Linux { path: path(kernel), initramfs: initramfs.map(path), cmdline }
            }
            BootKernel::Flat => {
                let len_bytes =
                    usize::try_from(image.metadata()?.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
                let mut bytes = vec![0; len_bytes];
                image.read_exact_at(&mut bytes, 0)?;
                Kernel::Flat { image: Cow::Owned(bytes) }
            }
        };
        let backing = if shared { Backing::Shared(pages) } else { Backing::Private(pages) };
        Ok(Config { memory_bytes, backing, vcpus, nested, kernel })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_arrive_as_they_were() {
        let linux = Kernel::Linux {
            path: PathBuf::from(OsString::from_vec(vec![b'/', 0xff])),
            initramfs: Some(PathBuf::from("initrd")),
            cmdline: String::from("quiet"),
        };
        let flat = Kernel::Flat { image: Cow::Owned(vec![1, 2, 3]) };
        for kernel in [linux, flat] {
            for pages in [PageSize::Base, PageSize::Transparent, PageSize::Huge] {
                for backing in [Backing::Private(pages), Backing::Shared(pages)] {
                    let config = Config { vcpus: 3, backing, ..Config::new(5 << 20, kernel.clone()) };
                    let (message, file) = BootRequest::of(&config).unwrap();
                    let sent = serde_json::to_vec(&message).unwrap();
                    let message: BootRequest = serde_json::from_slice(&sent).unwrap();
                    assert_eq!(format!("{:?}", message.config(&file).unwrap()), format!("{config:?}"));
                }
            }
        }
        let template = Backing::OverTemplate(std::sync::Arc::new(File::open("/dev/null").unwrap()));
        let config =
            Config { backing: template, ..Config::new(1 << 20, Kernel::Flat { image: Cow::Borrowed(&[]) }) };
        assert!(matches!(BootRequest::of(&config), Err(Error::OverTemplate)));
    }
}
