//! A device node such as `/dev/kvm`: whether it exists, which user and group own it, and whether this process may open it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use rustix::io::Errno;
use serde::Serialize;

use super::user::Group;

/// One device node. Whether it can be opened was tried, not read from its mode: access control lists, containers and security
/// modules decide as well.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct DeviceNode {
    /// Path of the node.
    pub path: String,
    /// Whether there is anything at the path.
    pub exists: bool,
    /// Whether it is a character device.
    pub is_device: bool,
    /// Access mode in octal digits, such as `660`.
    pub mode_octal: Option<String>,
    /// Id of the user that owns it.
    pub owner_id: Option<u32>,
    /// Id of the group that owns it.
    pub group_id: Option<u32>,
    /// The group that owns it, if `/etc/group` names it.
    pub group: Option<Group>,
    /// The kernel's reason for not opening it for reading and writing; `None` if it could be opened.
    pub error: Option<String>,
    /// Whether that reason was a lack of permission.
    pub is_forbidden: bool,
}

impl DeviceNode {
    /// Looks at what is at `path`, and tries to open it.
    #[must_use]
    pub fn at(path: &str) -> Self {
        let metadata = fs::metadata(path).ok();
        let metadata = metadata.as_ref();
        let group_id = metadata.map(MetadataExt::gid);
        let opened = OpenOptions::new().read(true).write(true).open(path);
        let errno = opened.as_ref().err().and_then(Errno::from_io_error);
        Self {
            path: path.to_owned(),
            exists: metadata.is_some(),
            is_device: metadata.is_some_and(|metadata| metadata.file_type().is_char_device()),
            mode_octal: metadata.map(|metadata| format!("{:03o}", metadata.mode() & 0o7777)),
            owner_id: metadata.map(MetadataExt::uid),
            group_id,
            group: group_id.and_then(Group::with_id),
            error: opened.err().map(|error| error.to_string()),
            is_forbidden: matches!(errno, Some(Errno::ACCESS | Errno::PERM)),
        }
    }

    /// Whether it is a device that this process can open.
    #[must_use]
    pub const fn opens(&self) -> bool {
        self.is_device && self.error.is_none()
    }

    /// Whether its mode lets members of the group that owns it read and write.
    #[must_use]
    pub fn lets_group_in(&self) -> bool {
        let mode = self.mode_octal.as_deref().and_then(|mode| u32::from_str_radix(mode, 8).ok());
        mode.is_some_and(|mode| mode & 0o060 == 0o060)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_a_file_and_nothing_are_told_apart() {
        let null = DeviceNode::at("/dev/null");
        assert!(null.opens() && null.exists && null.lets_group_in(), "{null:?}");
        let file = DeviceNode::at("/proc/self/comm");
        assert!(file.exists && !file.is_device && !file.opens(), "{file:?}");
        let nothing = DeviceNode::at("/dev/no-such-device");
        assert!(!nothing.exists && !nothing.opens() && !nothing.is_forbidden, "{nothing:?}");
        assert!(nothing.error.is_some() && nothing.mode_octal.is_none());
    }
}
