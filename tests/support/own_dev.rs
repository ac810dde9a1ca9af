//! Runs the program on a host with other devices, and as another user.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use super::folder::Folder;
use super::program::{Outcome, Program};
use super::room::skip;

/// Gives the program a separate `/dev`, in a mount namespace, with few devices.
const OWN_DEV: &str =
    "mount -t tmpfs -o mode=755 dev /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/zero c 1 5";

pub(crate) const EVERYBODYS_KVM: &str = "mknod -m 666 /dev/kvm c 10 232";

pub(crate) const ROOT: &str = "";
pub(crate) const NOBODY: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups --";

/// The program, in a place where any user can run it.
pub(crate) struct OwnDev {
    _folder: Folder,
    program: PathBuf,
}

impl OwnDev {
    /// `None`, after a note, if this user may not do this.
    pub(crate) fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skip("it gives the program a /dev of its own, which only root can");
            return None;
        }
        let folder = Folder::new();
        let program = folder.path().join("cloner");
        fs::copy(crate::PROGRAM, &program).unwrap();
        for path in [folder.path(), &program] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Some(Self { _folder: folder, program })
    }

    /// Runs the program after this shell command has made devices, with `user` before the program's name.
    pub(crate) fn run(&self, devices: &str, user: &str, args: &str) -> Outcome {
        let script = format!("{OWN_DEV} && {devices} && exec {user} {} {args}", self.program.display());
        Program::start(Command::new("unshare").args(["--mount", "sh", "-ec", &script])).finish()
    }
}
