//! Many machines from one.

pub mod battery;
mod chain;
pub mod compare;
mod dedup;
pub mod durable;
pub mod flush;
pub mod image;
pub mod layout;
pub mod moment;
pub mod pool;
pub mod process;
pub mod rate;
pub mod restore;
pub mod save;
pub mod snapshot;
mod sync;
mod sys;
pub mod walk;

pub use chain::chain;
