//! Command lines that cannot work: each gives an exit code and a message that names value and limit, and leaves nothing behind.

use cloner_testing::elf::Elf;
use cloner_testing::folder::Folder;
use cloner_testing::{host, huge_pages, note, room_for};

use crate::{GIB, MIB, run};

#[test]
fn usage() {
    for (args, parts) in [
        (&["clone", "--pulse"][..], &["--when"][..]),
        (&["clone", "--pulse", "--when", "("], &["--when", "regex"]),
        (&["run"], &["--kernel", "--flat", "--pulse"]),
        (&["run", "--pulse", "--kernel", "x"], &["--pulse", "--kernel"]),
        (&["run", "--pulse", "--initrd", "x"], &["--pulse", "--initrd"]),
        (&["run", "--pulse", "--cmdline", "x"], &["--pulse", "--cmdline"]),
        (&["run", "--flat", "x", "--initrd", "x"], &["--flat", "--initrd"]),
        (&["run", "--initrd", "x"], &["--kernel"]),
        (&["run", "--pulse", "--cpus", "300"], &["300"]),
        (&["run", "--pulse", "--cpus", "-1"], &["-1"]),
        (&["run", "--pulse", "--memory", "1.5G"], &["1.5G", "256M"]),
        (&["run", "--pulse", "--memory", "99999999999999999999G"], &["99999999999999999999G", "64 bits"]),
        (&["run", "--pulse", "--memory", ""], &["--memory"]),
        (&["demo", "--clones", "0"], &["--clones", "0"]),
        (&["demo", "--generations", "0"], &["--generations", "0"]),
        (&["demo", "--linux", "--touched", "1M"], &["--linux", "--touched"]),
        (&["demo", "surprise"], &["surprise"]),
        (&["surprise"], &["surprise"]),
    ] {
        let outcome = run(args);
        outcome.assert_failed(2, parts);
        assert_eq!(outcome.stdout, "", "{args:?}");
    }
    assert_eq!(run(&[]).code, 2);
}

/// Help lists what there is, and is not an error.
#[test]
fn help() {
    for (args, parts) in [
        (&["--help"][..], &["demo", "run", "clone", "Exit codes", "125", "130"][..]),
        (&["demo", "--help"], &["--linux", "--memory", "--cpus", "--clones", "--hugepages", "--json"]),
        (&["run", "--help"], &["--kernel", "--initrd", "--cmdline"]),
        (&["clone", "--help"], &["--kernel", "--when", "--clones"]),
        (&["--version"], &["cloner 0."]),
    ] {
        let outcome = run(args);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{args:?}");
        for part in parts {
            assert!(outcome.stdout.contains(part), "{part:?} is missing in {}", outcome.stdout);
        }
    }
}

#[test]
fn machines_that_cannot_be() {
    let Some(_room) = room_for(1) else { return };
    let Some(huge) = huge_pages(0) else { return };
    // All memory of the host: slightly too much for a guest, and too much in huge pages, since some of it is in use.
    let all = host::memory_bytes() & !(2 * MIB - 1);
    let (beyond, all_pages) = ((all + 2 * MIB).to_string(), (all / (2 * MIB)).to_string());
    let all = all.to_string();
    let mut cases = vec![
        (&["--memory", "0"][..], &["0 bytes of guest memory", "1048576"][..]),
        (&["--memory", "1048577"], &["1048577 bytes of guest memory", "multiple of the page size 4096"]),
        (&["--memory", "65G"], &["69793218560 bytes", "68719476736", "64 GiB"]),
        (&["--cpus", "0"], &["0 vCPUs", "1 to 16"]),
        (&["--cpus", "17"], &["17 vCPUs", "1 to 16"]),
        (&["--hugepages", "--memory", "3M"], &["3145728 bytes", "2097152"]),
    ];
    let beyond: (&[&str], &[&str]) = (&["--memory", &beyond], &[&beyond, "more than"]);
    let hugepages: (&[&str], &[&str]) =
        (&["--hugepages", "--memory", &all], &[&all_pages, "2 MiB pages", "nr_hugepages"]);
    if host::memory_bytes() < 64 * GIB {
        cases.extend([beyond, hugepages]);
    } else {
        note(format_args!(
            "this host has as much memory as a guest can have, so larger guests are not tried"
        ));
    }
    for (args, parts) in cases {
        let outcome = run(&[&["run", "--pulse"], args].concat());
        outcome.assert_failed(1, parts);
        assert!(outcome.stderr.starts_with("cloner: ") && outcome.stderr.lines().count() == 1, "{outcome:?}");
        assert_eq!(outcome.stdout, "", "{args:?}");
    }
    // The demo sets things up in another order, but prints the same.
    for (args, part) in [(&["--memory", "0"], "0 bytes of guest memory"), (&["--cpus", "17"], "17 vCPUs")] {
        run(&[&["demo"][..], args].concat()).assert_failed(1, &[part]);
        huge.assert_as_before();
    }
}

#[test]
fn files_that_cannot_be() {
    let Some(_room) = room_for(1) else { return };
    let folder = Folder::new();
    let at = |name: &str, content: &[u8]| folder.file(name, content).to_str().unwrap().to_owned();
    let missing = folder.path().join("missing").to_str().unwrap().to_owned();
    let directory = folder.path().to_str().unwrap();
    let kernel = Elf::small().bytes();
    let (text, cut, good) = (at("text", b"hello"), at("cut", &kernel[..200]), at("good", &kernel));
    let oversized = at("oversized", &Elf { memory_bytes: 1 << 30, ..Elf::small() }.bytes());
    let large = at("large", &vec![0; 9 << 20]);
    let long = "x".repeat(2048);
    for (args, parts) in [
        (&["--kernel", &missing][..], &["cannot read the kernel", &missing, "No such file"][..]),
        (&["--kernel", directory], &["cannot read the kernel", directory]),
        (&["--kernel", &text], &["not a kernel", &text, "5 bytes"]),
        (&["--kernel", &cut], &[&cut, "200 bytes", "truncated"]),
        (&["--kernel", &oversized], &[&oversized, "0x40100000", "0x800000"]),
        (&["--kernel", &good, "--initrd", &missing], &["cannot read the initramfs", &missing]),
        (&["--kernel", &good, "--initrd", &large], &["initramfs", &large, "9437184", "7335936"]),
        (&["--kernel", &good, "--cmdline", &long], &["command line", "2047"]),
        (&["--flat", &missing], &["cannot read the flat image", &missing]),
        (&["--flat", &at("empty", b"")], &["the flat image is empty"]),
        (&["--flat", &large], &["9437184 bytes"]),
    ] {
        let outcome = run(&[&["run", "--memory", "8M"], args].concat());
        outcome.assert_failed(1, parts);
        assert!(outcome.stderr.starts_with("cloner: "), "{outcome:?}");
        assert_eq!(outcome.stdout, "", "{args:?}");
    }
}

#[test]
fn a_pool_that_cannot_be_or_is_too_small() {
    let Some(_room) = room_for(1) else { return };
    let Some(huge) = huge_pages(0) else { return };
    run(&["demo", "--memory", "16M", "--pool", "0"]).assert_failed(1, &["a pool of 0 bytes cannot be made"]);
    huge.assert_as_before();
    let demo = ["demo", "--memory", "16M", "--pool", "1T", "--pages"];
    for (pages, parts) in [
        ("huge", &["huge pages of 2 MiB", "nr_hugepages"][..]),
        ("auto", &["1099511627776 bytes in ordinary pages", "has available"]),
        ("ordinary", &["1099511627776 bytes in ordinary pages", "has available"]),
    ] {
        let outcome = run(&[&demo[..], &[pages]].concat());
        outcome.assert_failed(1, parts);
        assert_eq!((outcome.stderr.lines().count(), outcome.stdout.as_str()), (1, ""), "{outcome:?}");
        huge.assert_as_before();
    }
    let outcome = run(&["demo", "--memory", "64M", "--touched", "48M", "--pool", "2M"]);
    outcome.assert_failed(1, &["the pool is full", "2097152"]);
    huge.assert_all_back();
}
