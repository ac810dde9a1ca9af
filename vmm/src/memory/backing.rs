//! What guest memory is made of.
//!
//! The kind is chosen by how the VM came to be, stated, and never hidden: it decides how memory can be frozen, handed
//! to another process, and shared between clones.

use std::fmt;
use std::fs::File;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The kind of memory: which processes share it, and which pages it is made of.
#[derive(Debug, Clone)]
pub enum Backing {
    /// Belongs to this process alone: cheap to freeze by `fork()`.
    Private(PageSize),
    /// A memfd, which can be handed to another process.
    Shared(PageSize),
    /// Private over a sealed template: the template's bytes until first written.
    ///
    /// The file holds the layout's ranges one after the other.
    OverTemplate(Arc<File>),
}

/// The pages that private and shared memory is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PageSize {
    /// 4 KiB pages only.
    Base,
    /// 4 KiB pages that the kernel may merge into 2 MiB ones.
    Transparent,
    /// Reserved 2 MiB pages (hugetlb).
    Huge,
}

impl fmt::Display for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Private(pages) => write!(f, "private, {pages}"),
            Self::Shared(pages) => write!(f, "shared memfd, {pages}"),
            Self::OverTemplate(_) => write!(f, "private over a sealed template"),
        }
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base => "4 KiB pages",
            Self::Transparent => "transparent huge pages",
            Self::Huge => "2 MiB pages",
        })
    }
}
