//! `cloner host`: on this host, as an unprivileged user, in a control group, and where `/dev/kvm` is missing or may not be opened.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use cloner_testing::folder::Folder;
use cloner_testing::own_dev::{EVERYBODYS_KVM, NOBODY, OwnDev, ROOT};
use cloner_testing::program::{Outcome, Program};
use cloner_testing::{room_for, skip};
use serde_json::Value;

use super::host::{NO_KVM, ROOTS_KVM};
use crate::{GIB, PROGRAM, run};
use vmm::host::{Host, Virtualization};

const VERDICTS: [&str; 3] = ["ok", "works, slower", "missing"];

/// Parses the report, and asserts what must hold for every report.
#[track_caller]
fn object(outcome: &Outcome) -> Value {
    assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
    let object: Value =
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:?}"));
    let checks = object["checks"].as_array().unwrap();
    let is_fatal = |check: &&Value| check["required"] == true && check["verdict"] == "missing";
    let usable = !checks.iter().any(|check| is_fatal(&check));
    assert_eq!(object["usable"], usable, "{object:#}");
    assert_eq!(outcome.code, i32::from(!usable), "{object:#}");
    for check in checks {
        for text in ["group", "id", "for", "value"] {
            assert!(check[text].as_str().is_some_and(|text| !text.is_empty()), "{text}: {check:#}");
        }
        let verdict = check["verdict"].as_str().unwrap();
        assert!(VERDICTS.contains(&verdict), "{check:#}");
        let remedy = check["remedy"].as_str();
        assert_eq!(remedy.is_none(), verdict == "ok", "{check:#}");
        assert!(remedy.is_none_or(|remedy| !remedy.is_empty() && !remedy.contains('\n')), "{check:#}");
    }
    for (key, verdict) in [("ok", "ok"), ("works_slower", "works, slower"), ("missing", "missing")] {
        assert_eq!(object[key], checks.iter().filter(|check| check["verdict"] == verdict).count(), "{key}");
    }
    object
}

#[track_caller]
fn check<'o>(object: &'o Value, id: &str) -> &'o Value {
    let mut checks = object["checks"].as_array().unwrap().iter();
    checks.find(|check| check["id"] == id).unwrap_or_else(|| panic!("{id} is missing in {object:#}"))
}

#[test]
fn this_host_boots_and_clones() {
    let Some(_room) = room_for(2) else { return };
    let object = object(&run(&["host", "--json"]));
    assert_eq!(object["usable"], true);
    for id in ["kvm-device", "capabilities", "boot", "clone", "dirty-log", "memory", "pagemap"] {
        assert_eq!(check(&object, id)["verdict"], "ok", "{id}");
    }
    let trial = &object["facts"]["kvm"]["trial"];
    assert!(trial["clone"]["milliseconds"].as_f64().unwrap() > 0.0, "{trial:#}");
    assert!(trial["descriptors_per_guest"].as_u64().unwrap() > 0, "{trial:#}");
    assert!(object["facts"]["kvm"]["guest_tsc"]["khz"].as_u64().unwrap() > 0);
    let emulated = Host::get().unwrap().virtualization() == Virtualization::PageTableBased;
    let kind = check(&object, "kind");
    assert_eq!(kind["verdict"], if emulated { "works, slower" } else { "ok" });
    assert_eq!(kind["value"].as_str().unwrap().contains("ring 0 is emulated"), emulated, "{kind:#}");
}

#[test]
fn the_table_fits_a_terminal_and_says_what_mends() {
    let Some(_room) = room_for(2) else { return };
    let Outcome { code, stdout, stderr } = run(&["host"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.trim_end().ends_with("This host boots and clones guests."), "{stdout}");
    assert!(stdout.contains("  ok             kvm-device"), "{stdout}");
    assert!(!stdout.contains('\x1b'), "not a terminal");
    for line in stdout.lines() {
        // Commands are not broken, however long they are.
        assert!(line.chars().count() <= 80 || line.starts_with("      => "), "{line:?}");
    }
}

/// Needs no privileges: it is enough that every user may open this `/dev/kvm`.
#[test]
fn as_nobody() {
    let Some(_room) = room_for(2) else { return };
    let Some(host) = OwnDev::new(PROGRAM) else { return };
    let object = object(&host.run(EVERYBODYS_KVM, NOBODY, "host --json"));
    assert_eq!(object["usable"], true);
    assert_eq!(object["facts"]["user"]["id"], 65534);
    assert_eq!(object["facts"]["user"]["sys_ptrace"], false);
    assert_eq!(check(&object, "clone")["verdict"], "ok");
    for pool in object["facts"]["huge_pages"].as_array().unwrap() {
        assert_eq!(pool["may_set_aside"], false);
    }
    let userfaultfd = check(&object, "userfaultfd");
    let allowed = object["facts"]["userfaultfd"]["unprivileged"] == true;
    assert_eq!(userfaultfd["verdict"], if allowed { "ok" } else { "missing" }, "{userfaultfd:#}");
}

#[test]
fn without_kvm() {
    let Some(host) = OwnDev::new(PROGRAM) else { return };
    let object = object(&host.run(NO_KVM, ROOT, "host --json"));
    let device = check(&object, "kvm-device");
    assert_eq!((&device["verdict"], &object["facts"]["kvm"]), (&Value::from("missing"), &Value::Null));
    assert!(device["value"].as_str().unwrap().contains("/dev/kvm does not exist"), "{device:#}");

    let outcome = host.run(NO_KVM, ROOT, "host");
    let last = outcome.stdout.lines().last().unwrap();
    assert_eq!((outcome.code, last), (1, "This host CANNOT boot and clone guests, for want of: kvm-device"));
}

#[test]
fn without_permission() {
    let Some(host) = OwnDev::new(PROGRAM) else { return };
    let object = object(&host.run(ROOTS_KVM, NOBODY, "host --json"));
    let device = check(&object, "kvm-device");
    let value = device["value"].as_str().unwrap();
    assert!(value.contains("mode 600, group root") && value.contains("Permission denied"), "{device:#}");
    assert!(device["remedy"].as_str().unwrap().contains("chgrp kvm /dev/kvm"), "{device:#}");
}

/// The files that most facts come from are missing.
#[test]
fn without_proc_and_sys() {
    let hidden = format!("{EVERYBODYS_KVM} && mount -t tmpfs none /proc && mount -t tmpfs none /sys");
    let Some(host) = OwnDev::new(PROGRAM) else { return };
    let object = object(&host.run(&hidden, ROOT, "host --json"));
    assert_eq!(object["usable"], false, "the host's memory is unknown");
    assert!(check(&object, "memory")["remedy"].as_str().unwrap().contains("mount -t proc"));
    assert_eq!(check(&object, "kvm-device")["verdict"], "ok");
}

/// Makes a control group with this much memory, of the version that has the controller, in a mount namespace, and runs in it.
const IN_A_GROUP: &str = r#"
    if [ -e /sys/fs/cgroup/memory/memory.limit_in_bytes ]; then
        group=/sys/fs/cgroup/memory/$NAME limit=memory.limit_in_bytes
    else
        grep -q memory /sys/fs/cgroup/cgroup.controllers 2>/dev/null || mount -t cgroup2 none /sys/fs/cgroup
        echo +memory >/sys/fs/cgroup/cgroup.subtree_control
        group=/sys/fs/cgroup/$NAME limit=memory.max
    fi
    mkdir "$group"
    trap 'rmdir "$group"' EXIT
    echo "$BYTES" >"$group/$limit"
    (echo 0 >"$group/cgroup.procs" && exec "$PROGRAM" host --json) && code=0 || code=$?
    exit $code
"#;

#[test]
fn in_a_control_group() {
    let Some(_room) = room_for(2) else { return };
    if !rustix::process::geteuid().is_root() {
        return skip("it makes a control group, which only root can");
    }
    let name = format!("cloner-test-{}", std::process::id());
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", IN_A_GROUP]).env("NAME", &name).env("PROGRAM", PROGRAM.path());
    let object = object(&Program::start(command.env("BYTES", GIB.to_string())).finish());
    let limit = &object["facts"]["cgroups"]["memory_bytes"];
    assert_eq!(limit["limit"], GIB, "{limit:#}");
    assert!(limit["setting"].as_str().unwrap().contains(&name), "{limit:#}");
    let memory = check(&object, "memory");
    assert_eq!(memory["verdict"], "ok", "{memory:#}");
    assert!(memory["value"].as_str().unwrap().contains("1 GiB that a control group allows"), "{memory:#}");
    for folder in ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"] {
        assert!(!std::path::Path::new(folder).join(&name).exists(), "left behind");
    }
}

/// A UPS is queried only if it is named; the report says if it does not answer, and nothing else depends on it.
#[test]
fn the_ups() {
    let Some(_room) = room_for(2) else { return };
    let outcome = run(&["host", "--json", "--ups", "ups@127.0.0.1:1"]);
    let object = object(&outcome);
    assert_eq!(object["usable"], true);
    let ups = check(&object, "ups");
    assert_eq!(ups["verdict"], "missing");
    assert!(ups["value"].as_str().unwrap().contains("127.0.0.1:1"), "{ups:#}");
    run(&["host", "--ups", "no-host"]).assert_failed(2, &["--ups", "NAME@HOST"]);
}

/// The first kilobyte of a file that says it is a bzImage, which is enough to be taken for one.
#[test]
fn a_compressed_kernel_is_warned_of_where_ring_0_is_emulated() {
    let Some(_room) = room_for(1) else { return };
    let folder = Folder::new();
    let file = |name: &str, at: usize, magic: &[u8]| {
        let mut bytes = [0; 1024];
        bytes[at..at + magic.len()].copy_from_slice(magic);
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        path
    };
    let emulated = Host::get().unwrap().virtualization() == Virtualization::PageTableBased;
    for (path, is_compressed) in
        [(file("bzImage", 0x202, b"HdrS"), true), (file("vmlinux", 0, b"\x7fELF"), false)]
    {
        for command in [&["run"][..], &["clone", "--when", "x"], &["clone", "--when", "x", "--branch"]] {
            let outcome = Program::start(PROGRAM.command(command).arg("--kernel").arg(&path)).finish();
            outcome.assert_failed(1, &[path.to_str().unwrap()]);
            let warnings = outcome.stderr.matches("emulates the guest's ring 0").count();
            assert_eq!(warnings, usize::from(emulated && is_compressed), "{command:?}: {outcome:?}");
            if warnings > 0 {
                assert!(
                    outcome.stderr.contains("vmlinux") && outcome.stderr.contains("--linux"),
                    "{outcome:?}"
                );
            }
        }
    }
}
