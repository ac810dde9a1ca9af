//! Memory that is not all there yet.
//!
//! A lazy clone runs while its memory arrives. A [`Supplier`], which the memory owns, brings it; this crate knows nothing else
//! about it. The guest's own accesses wait in the kernel for missing pages. Accesses by this process ask the supplier first, so
//! that they end in an error, not in a signal, if the pages never arrive.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Brings pages that are still missing from a guest's memory. Dropped with the memory, before it is unmapped.
pub trait Supplier: fmt::Debug + Send + Sync {
    /// Returns when all pages of the range are there. `region` is an index among the memory's regions; `offset` and `len_bytes`
    /// lie within that region. May be called by any thread, and must cost next to nothing for pages that are there already.
    ///
    /// # Errors
    /// [`MemoryLost`] if some of the pages will never arrive.
    fn supply(&self, region: usize, offset: usize, len_bytes: usize) -> Result<(), MemoryLost>;

    /// Returns when all memory is there and no page is missing.
    ///
    /// # Errors
    /// [`MemoryLost`] if some of it will never arrive.
    fn supply_all(&self) -> Result<(), MemoryLost>;

    /// Calls `stop` once, when a page turns out to be lost, or right away if one is lost already. A vCPU that waits for the page
    /// learns of the loss only after `stop` was called.
    fn on_loss(&self, stop: Box<dyn FnOnce(&MemoryLost) + Send>);

    /// Gives up all that is missing, because the machine is being dropped, and lets every thread go that waits in the kernel for a
    /// page: with an error, never with zeros. Nothing touches the memory afterwards.
    ///
    /// KVM may have handed the wait for a page over to a thread of the kernel, and waits for that one when the machine is closed.
    /// Closing it would therefore take until the page arrives; if the process is killed meanwhile, that is for ever.
    fn give_up(&self);
}

/// Memory that a guest still needs will never arrive. Carries the reason.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the memory of a lazy clone is lost")]
pub struct MemoryLost(#[source] Arc<dyn Error + Send + Sync>);

impl MemoryLost {
    /// A loss for this reason.
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
