//! Hosts that cannot run virtual machines, or may not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use crate::support::folder::Folder;
use crate::support::program::{Outcome, PATH, Program};
use crate::support::room::skip;
use crate::support::{huge_pages, room_for};

/// Gives the program a `/dev` of its own, by mount namespace, with little in it.
const OWN_DEV: &str =
    "mount -t tmpfs -o mode=755 dev /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/zero c 1 5";

/// Runs the program on a host with this `/dev/kvm`, as nobody if so said. `None` without the right to.
fn run_on(kvm: &str, user: &str, args: &str) -> Option<Outcome> {
    if !rustix::process::geteuid().is_root() {
        skip("it hides /dev/kvm from the program, which only root can");
        return None;
    }
    // Where nobody can get at it.
    let folder = Folder::new();
    let program = folder.path().join("cloner");
    fs::copy(PATH, &program).unwrap();
    for path in [folder.path(), &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let script = format!("{OWN_DEV} && {kvm} && exec {user} {} {args}", program.display());
    let outcome = Program::start(Command::new("unshare").args(["--mount", "sh", "-ec", &script])).finish();
    Some(outcome)
}

const NO_KVM: &str = "true";
const ROOTS_KVM: &str = "mknod -m 600 /dev/kvm c 10 232";
const EVERYBODYS_KVM: &str = "mknod -m 666 /dev/kvm c 10 232";
const NO_DEVICE: &str = "touch /dev/kvm";
const ROOT: &str = "";
const NOBODY: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups --";

#[test]
fn without_kvm_are_told_so() {
    let Some(outcome) = run_on(NO_KVM, ROOT, "run --pulse --memory 4M") else { return };
    outcome.assert_failed(1, &["cloner: ", "/dev/kvm does not exist", "kvm module"]);
    let Some(outcome) = run_on(NO_DEVICE, ROOT, "run --pulse --memory 4M") else { return };
    outcome.assert_failed(1, &["cloner: ", "/dev/kvm"]);
}

#[test]
fn without_permission_are_told_so() {
    let Some(outcome) = run_on(ROOTS_KVM, NOBODY, "run --pulse --memory 4M") else { return };
    outcome.assert_failed(1, &["cloner: ", "no permission to open /dev/kvm", "group"]);
}

/// Setting huge pages aside takes root; being without them is said, and allowed only if asked for.
#[test]
fn without_huge_pages_are_told_so() {
    let Some(_room) = room_for(2) else { return };
    let Some(huge) = huge_pages(0) else { return };
    let args = "demo --json --memory 16M --clones 1";
    let Some(outcome) = run_on(EVERYBODYS_KVM, NOBODY, args) else { return };
    outcome.assert_failed(1, &["cloner: ", "huge pages of 2 MiB", "nr_hugepages"]);

    let Some(outcome) = run_on(EVERYBODYS_KVM, NOBODY, &format!("{args} --ordinary-pages")) else { return };
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let object: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(object["pool"]["hugepages"], false);
    let backing = object["pool"]["backing"].as_str().unwrap();
    assert!(backing.starts_with("ordinary pages, because"), "{backing}");
    assert_eq!(object["clones"][0]["verified"], true);
    huge.assert_all_back();
}
