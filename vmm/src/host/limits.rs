//! What this process may have at most of descriptors, processes and memory.

use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use super::text;

/// A limit that a process may raise by itself, up to another. `None`: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Bounds {
    /// The limit.
    pub soft: Option<u64>,
    /// How far it may be raised without privileges.
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
    /// Open descriptors.
    pub descriptors: Bounds,
    /// Processes and threads of this user. Root has no such limit.
    pub processes: Bounds,
    /// Memory that may be locked. Nothing here locks memory.
    pub locked_memory_bytes: Bounds,
    /// Address space.
    pub address_space_bytes: Bounds,
    /// Processes and threads of the whole host (`kernel.pid_max`, `kernel.threads-max`).
    pub host_processes: Option<u64>,
}

impl Limits {
    /// Asks the kernel.
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
