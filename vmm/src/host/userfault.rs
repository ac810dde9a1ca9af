//! Whether this process may serve page faults, and what permits it: a device, a setting or a capability.

use serde::Serialize;

use super::device::DeviceNode;
use super::text;
use crate::sys::uffd;

/// Whether `userfaultfd` works for this process, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct UserfaultAccess {
    /// The kernel's last reason for not opening a `userfaultfd` that serves faults inside the kernel, on shared memory and on huge
    /// pages; `None` if it could be opened.
    pub error: Option<String>,
    /// Whether that reason was a lack of permission.
    pub is_forbidden: bool,
    /// The device `/dev/userfaultfd`.
    pub device: DeviceNode,
    /// The setting `vm.unprivileged_userfaultfd`. `None` if the kernel does not have it.
    pub unprivileged: Option<bool>,
}

impl UserfaultAccess {
    /// Reads the setting, and tries to open a `userfaultfd`.
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
            device: DeviceNode::at(uffd::DEVICE),
            unprivileged: text::number("/proc/sys/vm/unprivileged_userfaultfd").map(|on: u32| on != 0),
        }
    }
}
