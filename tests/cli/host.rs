//! Hosts that cannot run virtual machines, or may not.

use cloner_testing::own_dev::{EVERYBODYS_KVM, NOBODY, OwnDev, ROOT};

use crate::PROGRAM;

pub(super) const NO_KVM: &str = "true";
pub(super) const ROOTS_KVM: &str = "mknod -m 600 /dev/kvm c 10 232";
const NO_DEVICE: &str = "touch /dev/kvm";

const RUN: &str = "run --pulse --memory 4M";

#[test]
fn without_kvm_are_told_so() {
    let Some(host) = OwnDev::new(PROGRAM) else { return };
    host.run(NO_KVM, ROOT, RUN).assert_failed(1, &["cloner: ", "/dev/kvm does not exist", "kvm module"]);
    host.run(NO_DEVICE, ROOT, RUN).assert_failed(1, &["cloner: ", "/dev/kvm"]);
}

#[test]
fn without_permission_are_told_so() {
    let Some(host) = OwnDev::new(PROGRAM) else { return };
    host.run(ROOTS_KVM, NOBODY, RUN)
        .assert_failed(1, &["cloner: ", "no permission to open /dev/kvm", "group"]);
    // The device's group is all that is missing.
    let Some(_room) = cloner_testing::room_for(1) else { return };
    let a_second = "clone --pulse --memory 4M --when beat --branch --clones 1 --for 1";
    assert_eq!(host.run(EVERYBODYS_KVM, NOBODY, a_second).code, 0);
}
