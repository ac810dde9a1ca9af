//! Many machines from one.

pub mod battery;
pub mod chunk;
pub mod cli;
pub mod codec;
pub mod cold;
pub mod compare;
mod dedup;
pub mod durable;
pub mod flush;
pub mod format;
pub mod incremental;
pub mod live;
pub mod measure;
pub mod pool;
pub mod process;
pub mod restore;
pub mod save;
pub mod snapshot;
mod sync;
mod sys;
pub mod walk;
