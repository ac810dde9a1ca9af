//! The most descriptors, processes and memory that this process may have.

use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use super::text;

/// A soft limit, which a process may raise by itself up to the hard one. `None` means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Bounds {
    /// The limit in force.
    pub soft: Option<u64>,
    /// How far the process may raise it without privileges.
    pub hard: Option<u64>,
}

impl Bounds {
    fn of(resource: Resource) -> Self {
        let limit = getrlimit(resource);
        Self { soft: limit.current, hard: limit.maximum }
    }
}

/// Limits of this process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Limits {
    /// Number of open descriptors.
    pub descriptors: Bounds,
    /// Number of processes and threads of this user. Root has no such limit.
    pub processes: Bounds,
    /// Memory that may be locked, in bytes. This crate locks no memory.
    pub locked_memory_bytes: Bounds,
    /// Address space of the process, in bytes.
    pub address_space_bytes: Bounds,
    /// Number of processes and threads of the whole host: the smaller of `kernel.pid_max` and `kernel.threads-max`.
    pub host_processes: Option<u64>,
}

impl Limits {
    /// Reads the limits from the kernel.
    #[must_use]
    pub fn read() -> Self {
        let host = ["pid_max", "threads-max"].map(|name| text::number(format!("/proc/sys/kernel/{name}")));
        Self {
            descriptors: Bounds::of(Resource::Nofile),
            processes: Bounds::of(Resource::Nproc),
            locked_memory_bytes: Bounds::of(Resource::Memlock),
            address_space_bytes: Bounds::of(Resource::As),
            host_processes: host.into_iter().flatten().min(),
        }
    }
}
