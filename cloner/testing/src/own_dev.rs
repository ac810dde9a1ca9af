//! Runs the program on a host with other devices, and as another user.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::folder::Folder;
use crate::program::{Executable, Outcome, Program};
use crate::skip;

/// Gives the program a separate `/dev`, in a mount namespace, with few devices.
const OWN_DEV: &str =
    "mount -t tmpfs -o mode=755 dev /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/zero c 1 5";

/// Makes a `/dev/kvm` that any user can open.
pub const EVERYBODYS_KVM: &str = "mknod -m 666 /dev/kvm c 10 232";

/// Runs the program as root.
pub const ROOT: &str = "";
/// Runs the program as a user without privileges.
pub const NOBODY: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups --";

/// The program, in a place where any user can run it.
pub struct OwnDev {
    _folder: Folder,
    program: PathBuf,
}

impl OwnDev {
    /// `None`, after a note, if this user may not do this.
    pub fn new(program: Executable) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skip("it gives the program a /dev of its own, which only root can");
            return None;
        }
        let folder = Folder::new();
        let copy = folder.path().join("cloner");
        fs::copy(program.path(), &copy).unwrap();
        for path in [folder.path(), &copy] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Some(Self { _folder: folder, program: copy })
    }

    /// Runs the program after this shell command has made devices, with `user` before the program's name.
    pub fn run(&self, devices: &str, user: &str, args: &str) -> Outcome {
        let script = format!("{OWN_DEV} && {devices} && exec {user} {} {args}", self.program.display());
        Program::start(Command::new("unshare").args(["--mount", "sh", "-ec", &script])).finish()
    }
}
