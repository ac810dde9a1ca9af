//! The most descriptors, processes and memory that this process may have.

use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use super::text;

/// A soft limit, which a process may raise by itself up to the hard one. `None` means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ResourceLimit {
    /// The limit in force.
    pub soft: Option<u64>,
    /// How far the process may raise it without privileges.
    pub hard: Option<u64>,
}

impl ResourceLimit {
    fn of(resource: Resource) -> Self {
        let limit = getrlimit(resource);
        Self { soft: limit.current, hard: limit.maximum }
    }
}

/// Limits of this process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ProcessLimits {
    /// Number of open descriptors.
    pub descriptors: ResourceLimit,
    /// Number of processes and threads of this user. Root has no such limit.
    pub processes: ResourceLimit,
    /// Memory that may be locked, in bytes. This crate locks no memory.
    pub locked_memory_bytes: ResourceLimit,
    /// Address space of the process, in bytes.
    pub address_space_bytes: ResourceLimit,
    /// Number of processes and threads of the whole host: the smaller of `kernel.pid_max` and `kernel.threads-max`.
    pub host_processes: Option<u64>,
}

impl ProcessLimits {
    /// Reads the limits from the kernel.
    #[must_use]
    pub fn read() -> Self {
        let host = ["pid_max", "threads-max"].map(|name| text::number(format!("/proc/sys/kernel/{name}")));
        Self {
            descriptors: ResourceLimit::of(Resource::Nofile),
            processes: ResourceLimit::of(Resource::Nproc),
            locked_memory_bytes: ResourceLimit::of(Resource::Memlock),
            address_space_bytes: ResourceLimit::of(Resource::As),
            host_processes: host.into_iter().flatten().min(),
        }
    }
}
