//! Whether this process may serve page faults, and by which of three ways: a device, a setting, a capability.

use serde::Serialize;

use super::device::Device;
use super::text;
use crate::sys::uffd;

/// What stands in the way of `userfaultfd`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Userfault {
    /// What the kernel said when one was opened that serves faults inside the kernel, on shared memory and on huge pages, by
    /// the last of the ways; `None` if it opened.
    pub error: Option<String>,
    /// Whether that was a lack of permission.
    pub is_forbidden: bool,
    /// The device.
    pub device: Device,
    /// The setting. `None` where the kernel has none.
    pub unprivileged: Option<bool>,
}

impl Userfault {
    /// Asks the kernel, and opens one.
    #[must_use]
    pub fn read() -> Self {
        let (error, is_forbidden) = match uffd::Userfault::open() {
            Ok(_) => (None, false),
            Err(uffd::OpenError::NotAllowed { device }) => (Some(device.to_string()), true),
            Err(uffd::OpenError::Kernel(source)) => (Some(source.to_string()), false),
        };
        Self {
            error,
            is_forbidden,
            device: Device::at(uffd::DEVICE),
            unprivileged: text::number("/proc/sys/vm/unprivileged_userfaultfd").map(|on: u32| on != 0),
        }
    }
}
