//! Tests the checks of KVM and the time stamp counter.

use super::*;

#[test]
fn without_the_device_nothing_that_needs_it_is_judged() {
    let gone = |facts: &mut HostFacts| {
        facts.kvm = None;
        facts.kvm_device = DeviceNode { path: "/dev/kvm".to_owned(), ..DeviceNode::default() };
        facts.kernel.kvm_module = None;
    };
    assert_alone("kvm-device", Verdict::Missing, "sudo modprobe kvm_amd", gone);
    let facts = but(gone);
    let ids: Vec<_> = judge(&facts).iter().map(|check| check.subject.id).collect();
    for id in ["capabilities", "boot", "clone", "tsc", "descriptors", "processes"] {
        assert!(!ids.contains(&id), "{id}");
    }
    assert!(find(&facts, "kvm-device").is_fatal());
}

/// The remedy for a missing device depends on why it is missing.
#[test]
fn remedies_for_no_device() {
    let remedy = |change: fn(&mut HostFacts)| {
        let facts = but(|facts| {
            facts.kvm = None;
            facts.kvm_device = DeviceNode::default();
            facts.kernel.kvm_module = None;
            change(facts);
        });
        find(&facts, "kvm-device").remedy.unwrap()
    };
    assert_eq!(remedy(|facts| facts.processor.vmx = true), "sudo modprobe kvm_intel");
    assert!(
        remedy(|facts| facts.kernel.kvm_module = Some("kvm_amd")).contains("mknod"),
        "loaded, but no node"
    );
    assert!(remedy(|facts| facts.processor.svm = false).contains("firmware"));
    let nested = remedy(|facts| {
        facts.processor.svm = false;
        facts.processor.is_virtual = true;
    });
    assert!(nested.contains("nested"), "{nested}");
    assert!(remedy(|facts| facts.kvm_device.exists = true).contains("sudo rm"), "a file in its place");
    // The device exists and does not work, as after the module was removed.
    let broken = remedy(|facts| {
        facts.kvm_device = DeviceNode { error: Some("No such device".to_owned()), ..good().kvm_device };
    });
    assert_eq!(broken, "sudo modprobe kvm_amd");
}

/// The remedy for a missing permission depends on which one is missing.
#[test]
fn remedies_for_no_permission() {
    let remedy = |change: fn(&mut HostFacts)| {
        let facts = but(|facts| {
            facts.kvm = None;
            facts.kvm_device.error = Some("Permission denied (os error 13)".to_owned());
            facts.kvm_device.is_forbidden = true;
            change(facts);
        });
        let check = find(&facts, "kvm-device");
        assert!(check.is_fatal() && check.value.contains("Permission denied"), "{check:?}");
        check.remedy.unwrap()
    };
    assert!(remedy(|_| ()).starts_with("sudo usermod -aG kvm jo"));
    let member = remedy(|facts| facts.kvm_device.group = Some(group(108, "kvm", &["jo"])));
    assert!(member.starts_with("newgrp kvm"), "{member}");
    let nameless = remedy(|facts| {
        facts.kvm_device.group = None;
        facts.kvm_group = None;
    });
    assert!(nameless.starts_with("sudo groupadd -g 108 kvm && sudo usermod -aG kvm jo"), "{nameless}");
    let other_id = remedy(|facts| facts.kvm_device.group = None);
    assert!(other_id.starts_with("sudo chgrp kvm /dev/kvm && sudo usermod"), "{other_id}");
    let roots = remedy(|facts| {
        facts.kvm_device.group = Some(group(0, "root", &[]));
        facts.kvm_device.mode_octal = Some("600".to_owned());
    });
    assert!(roots.starts_with("sudo chmod 660 /dev/kvm && sudo chgrp kvm /dev/kvm"), "{roots}");
    let no_group = remedy(|facts| {
        facts.kvm_device.group = Some(group(0, "root", &[]));
        facts.kvm_group = None;
    });
    assert!(no_group.contains("groupadd -r kvm") && no_group.contains("chgrp kvm"), "{no_group}");
    assert!(remedy(|facts| facts.user.id = 0).contains("--device /dev/kvm"), "not by its mode");
    assert!(remedy(|facts| facts.user.name = None).contains("$(id -un 1000)"));
}

#[test]
fn what_kvm_offers() {
    let lacking =
        |facts: &mut HostFacts| kvm(facts).capabilities.missing = vec!["KVM_CAP_XCRS", "KVM_CAP_PIT2"];
    assert_alone("capabilities", Verdict::Missing, "newer kernel", lacking);
    let check = find(&but(lacking), "capabilities");
    assert!(check.is_fatal() && check.value == "KVM_CAP_XCRS, KVM_CAP_PIT2", "{check:?}");
    assert_alone("capabilities", Verdict::Missing, "kernel", |facts| {
        kvm(facts).capabilities.api_version = 11;
    });
    assert_alone("vcpus", Verdict::Slower, "--cpus 8", |facts| kvm(facts).capabilities.max_vcpus = 8);
    assert_alone("extended-state", Verdict::Missing, "5.17", |facts| {
        kvm(facts).capabilities.xsave2_bytes = 0;
    });
    assert_alone("nested", Verdict::Missing, "5.8", |facts| kvm(facts).capabilities.nested_state_bytes = 0);
    assert_alone("nested", Verdict::Missing, "modprobe kvm_amd nested=1", |facts| {
        facts.kernel.nested = Some(false);
    });
    let none = |facts: &mut HostFacts| facts.processor.svm = false;
    assert!(find(&but(none), "kind").value.contains("unknown"), "it works all the same");
    let neither = but(|facts| {
        facts.processor.svm = false;
        facts.kvm = None;
    });
    assert_eq!(find(&neither, "kind").verdict, Verdict::Missing);
}

#[test]
fn what_was_tried() {
    let failed = || TrialOutcome { milliseconds: None, error: Some("KVM_RUN failed".to_owned()) };
    for (id, fatal) in [("boot", true), ("clone", true), ("dirty-log", false)] {
        let change = |facts: &mut HostFacts| {
            let trial = &mut kvm(facts).trial;
            *match id {
                "boot" => &mut trial.boot,
                "clone" => &mut trial.clone,
                _ => &mut trial.dirty_log,
            } = failed();
        };
        assert_alone(id, Verdict::Missing, "-vv", change);
        let check = find(&but(change), id);
        assert_eq!((check.is_fatal(), check.value.as_str()), (fatal, "KVM_RUN failed"));
    }
    // Something that was not reached because something before it failed.
    let not_reached = but(|facts| kvm(facts).trial.clone = TrialOutcome::default());
    assert_eq!(find(&not_reached, "clone").verdict, Verdict::Missing);
}

/// The report says that ring 0 is emulated and which kernel to use, and that there are no nested guests and no time stamp counter
/// of a guest's own.
#[test]
fn page_table_based_hosts() {
    let facts = but(|facts| {
        facts.virtualization = Virtualization::PageTableBased;
        facts.kernel = HostKernel { kvm_module: Some("kvm_pvm"), nested: None, ..good().kernel };
        facts.processor.svm = false;
        tsc(facts).offset_kept = Some(false);
    });
    let kind = find(&facts, "kind");
    assert_eq!(kind.verdict, Verdict::Slower);
    assert!(kind.value.contains("ring 0 is emulated") && kind.value.contains("bzImage"), "{kind:?}");
    assert!(kind.remedy.unwrap().contains("uncompressed ELF vmlinux"));
    assert_eq!(find(&facts, "nested").verdict, Verdict::Missing);
    let offset = find(&facts, "tsc-offset");
    assert_eq!(offset.verdict, Verdict::Missing);
    assert!(offset.value.contains("host's own counter"), "{offset:?}");
    assert!(!judge(&facts).iter().any(Check::is_fatal), "it boots and clones guests");
}

#[test]
fn clocks() {
    assert_alone("tsc", Verdict::Slower, "tsc=reliable", |facts| tsc(facts).is_stable = false);
    assert_alone("tsc", Verdict::Slower, "current_clocksource", |facts| {
        tsc(facts).is_stable = false;
        facts.clocksource.current = Some("hpet".to_owned());
    });
    assert_alone("tsc-offset", Verdict::Missing, "kernel", |facts| tsc(facts).offset_kept = Some(false));
    assert_alone("tsc-offset", Verdict::Slower, "5.16", |facts| tsc(facts).offset_kept = None);
    assert_alone("tsc-scaling", Verdict::Missing, "frequency", |facts| {
        kvm(facts).capabilities.tsc_scaling = false;
    });
    assert_alone("tsc-deadline", Verdict::Slower, "kernel", |facts| {
        kvm(facts).capabilities.tsc_deadline = false;
    });
    let unstable = but(|facts| {
        tsc(facts).is_stable = false;
        tsc(facts).offset_kept = Some(false);
    });
    assert_eq!(find(&unstable, "tsc-offset").verdict, Verdict::Slower, "it goes on, though not to the cycle");
    let failed = but(|facts| {
        kvm(facts).guest_tsc = None;
        kvm(facts).guest_tsc_error = Some("KVM_CREATE_VCPU failed".to_owned());
    });
    assert_eq!(find(&failed, "tsc").verdict, Verdict::Missing);
}
