//! Runs the program on a host with other devices, and as another user.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::folder::Folder;
use crate::program::{Executable, Outcome, Program};
use crate::{huge_pages, skip};

/// Gives the program a separate `/dev`, in a mount namespace, with few devices.
const OWN_DEV: &str =
    "mount -t tmpfs -o mode=755 dev /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/zero c 1 5";

/// Makes a `/dev/kvm` that any user can open.
pub const EVERYBODYS_KVM: &str = "mknod -m 666 /dev/kvm c 10 232";

/// Runs the program as root.
pub const ROOT: &str = "";
/// Runs the program as a user without privileges.
pub const NOBODY: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups --";

/// What lazy clones need beside `/dev/kvm`: one of these, as the program names them.
const WAYS_TO_CLONE_LAZILY: [&str; 3] =
    ["chgrp kvm /dev/userfaultfd", "vm.unprivileged_userfaultfd=1", "CAP_SYS_PTRACE"];

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

    /// Asserts that the program refuses `args` to a user whose only privilege is `/dev/kvm`: with `parts` in a single line on
    /// standard error, and before it has printed anything else.
    #[track_caller]
    pub fn assert_refused_to_nobody(&self, args: &str, parts: &[&str]) {
        let outcome = self.run(EVERYBODYS_KVM, NOBODY, args);
        outcome.assert_failed(1, parts);
        assert_eq!((outcome.stderr.lines().count(), outcome.stdout.as_str()), (1, ""), "{args}: {outcome:?}");
    }

    /// Asserts that huge pages that were asked for by name, on a host that has none, are refused with their remedy. Each case has
    /// arguments and what the message begins with.
    #[track_caller]
    pub fn assert_huge_pages_refused_to_nobody(&self, cases: &[(&str, &str)]) {
        let Some(huge) = huge_pages(0) else { return };
        for (args, what) in cases {
            let parts = [
                *what,
                "huge pages of 2 MiB are needed, 0 of the host's",
                "as root, `sysctl vm.nr_hugepages=",
            ];
            self.assert_refused_to_nobody(args, &parts);
        }
        huge.assert_all_back();
    }

    /// Asserts that lazy clones are refused with all that would permit them. `what` is what the message begins with.
    #[track_caller]
    pub fn assert_lazy_clones_refused_to_nobody(&self, args: &str, what: &str) {
        self.assert_refused_to_nobody(args, &[&[what][..], &WAYS_TO_CLONE_LAZILY].concat());
    }
}

/// Whether this host lets any user serve page faults, and so clone lazily.
#[must_use]
pub fn everybody_may_clone_lazily() -> bool {
    fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd").is_ok_and(|setting| setting.trim() == "1")
}
