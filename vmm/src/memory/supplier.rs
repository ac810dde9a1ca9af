//! Memory that is not all there yet.
//!
//! A lazy clone runs while its memory arrives. Who brings it is a [`Supplier`], which the memory owns; this crate knows no more
//! of it. The guest's own accesses wait in the kernel for missing pages. Accesses of this process ask the supplier first, so
//! that they end in an error, not in a signal, if the pages cannot be had.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Brings pages that a guest's memory still misses. Dropped with the memory, before it is unmapped.
pub trait Supplier: fmt::Debug + Send + Sync {
    /// Returns when all pages of the range are there. `region` is an index among the memory's regions, `offset` and `len_bytes`
    /// lie within it. Called by any thread; costs next to nothing for pages that are there.
    ///
    /// # Errors
    /// They will never be.
    fn supply(&self, region: usize, offset: usize, len_bytes: usize) -> Result<(), Lost>;

    /// Returns when all memory is there, and no page is missing any more.
    ///
    /// # Errors
    /// Some will never be.
    fn supply_all(&self) -> Result<(), Lost>;

    /// Calls `stop`, once, when a page turns out to be lost: at once if that is so already. A vCPU that waits for the page
    /// learns of it only afterwards.
    fn on_loss(&self, stop: Box<dyn FnOnce(&Lost) + Send>);
}

/// Memory that a guest still needs cannot be had, and why.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the memory of a lazy clone is lost")]
pub struct Lost(#[source] Arc<dyn Error + Send + Sync>);

impl Lost {
    /// Lost for this reason.
    pub fn new(reason: impl Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(reason))
    }

    /// The reason and what led to it, in one line.
    #[must_use]
    pub fn reason(&self) -> String {
        let mut text = self.0.to_string();
        let mut cause = self.0.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
