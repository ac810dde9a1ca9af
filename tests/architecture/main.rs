//! The layers that DESIGN.md draws, held: who may import whom, where `unsafe` may stand, how long a file may be, and
//! which turns of phrase its prose does without.
//!
//! Code that is for tests only is left out, except for the length of files and for prose.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod prose;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use source::{Package, files};

const LINES_MAX: usize = 400;

/// A package: its folder, the name of its crate, which of our crates it may import, and which of its own modules each may.
struct Rules {
    folder: &'static str,
    name: &'static str,
    crates: &'static [&'static str],
    /// From the bottom up. A module that is not named here may be imported by none and may import nothing.
    modules: &'static [(&'static str, &'static [&'static str])],
}

const OURS: [&str; 7] =
    ["vmm", "cloner_codec", "cloner", "cloner_cli", "cloner_bench", "cloner_testing", "guest_images"];

const VMM: Rules = Rules {
    folder: "vmm",
    name: "vmm",
    crates: &[],
    modules: &[
        ("sys", &[]),
        ("schema", &[]),
        ("host", &["sys"]),
        ("memory", &["host", "sys"]),
        ("config", &["memory"]),
        ("bus", &[]),
        ("devices", &["bus", "memory", "schema"]),
        ("interrupt", &["memory", "schema", "sys"]),
        ("vcpu", &["bus", "devices", "host", "memory", "schema", "sys"]),
        ("boot", &["config", "host", "memory", "vcpu"]),
        ("state", &["devices", "host", "interrupt", "memory", "schema", "sys", "vcpu"]),
        (
            "machine",
            &[
                "boot",
                "bus",
                "config",
                "devices",
                "host",
                "interrupt",
                "memory",
                "schema",
                "state",
                "sys",
                "vcpu",
            ],
        ),
    ],
};

const CODEC: Rules = Rules {
    folder: "cloner/codec",
    name: "cloner_codec",
    crates: &[],
    modules: &[("chunk", &[]), ("hot", &["chunk"]), ("cold", &["chunk", "hot"])],
};

const CLONER: Rules = Rules {
    folder: "cloner",
    name: "cloner",
    crates: &["vmm", "cloner_codec"],
    modules: &[
        ("sys", &[]),
        ("sync", &[]),
        ("chain", &[]),
        ("progress", &[]),
        ("chunk_id", &[]),
        ("walk", &["sync"]),
        ("layout", &[]),
        ("dedup", &["layout"]),
        ("image", &["dedup", "layout", "progress", "sync", "sys", "walk"]),
        ("compare", &["layout", "walk"]),
        ("pool", &["chunk_id", "sync", "sys"]),
        ("snapshot", &["chunk_id", "dedup", "layout", "pool"]),
        ("admission", &["pool"]),
        ("moment", &["admission", "layout", "snapshot"]),
        ("save", &["chunk_id", "dedup", "layout", "moment", "pool", "progress", "snapshot", "sync", "walk"]),
        ("restore", &["layout", "pool", "progress", "snapshot", "sync", "walk"]),
        ("process", &["admission", "chain", "moment", "pool", "restore", "sys"]),
        ("machine", &["admission", "moment", "process"]),
        ("rate", &[]),
        ("battery", &["pool", "rate", "sync"]),
        ("flush", &["battery", "chunk_id", "pool", "progress", "rate", "snapshot", "sync", "sys", "walk"]),
        ("durable", &["battery", "flush", "pool", "progress", "rate", "snapshot", "sync", "walk"]),
    ],
};

const PACKAGES: [&Rules; 3] = [&VMM, &CODEC, &CLONER];

/// Packages whose modules may import each other freely: they are small, and nothing stands on them.
const PROGRAMS: [(&str, &[&str]); 4] = [
    ("guest-images", &[]),
    ("cloner/cli", &["vmm", "cloner_codec", "cloner", "guest_images"]),
    ("cloner/bench", &["vmm", "cloner_codec", "cloner", "cloner_cli", "guest_images"]),
    ("cloner/testing", &["vmm", "cloner_codec", "cloner", "guest_images"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn read(folder: &str) -> Package {
    Package::read(&root().join(folder).join("src"))
}

/// Fails with everything that is wrong, one line each.
#[track_caller]
fn assert_none(what: &str, wrong: &BTreeSet<String>) {
    let lines: Vec<&str> = wrong.iter().map(String::as_str).collect();
    assert!(wrong.is_empty(), "{what}:\n{}", lines.join("\n"));
}

#[test]
fn packages_import_downward_only() {
    let rules = PACKAGES.iter().map(|rules| (rules.folder, rules.crates)).chain(PROGRAMS);
    let mut wrong = BTreeSet::new();
    for (folder, allowed) in rules {
        for file in read(folder).files {
            for path in &file.outer {
                let name = path[0].as_str();
                let is_own = folder == "cloner/cli" && name == "cloner_cli";
                if OURS.contains(&name) && !allowed.contains(&name) && !is_own {
                    wrong.insert(format!("{} imports {}", file.path.display(), path.join("::")));
                }
                if name == "vmm" && path.get(1).is_some_and(|second| second == "sys") {
                    wrong.insert(format!("{} imports vmm::sys", file.path.display()));
                }
            }
        }
    }
    assert_none("imports against the packages' order", &wrong);
}

#[test]
fn modules_import_downward_only() {
    let mut wrong = BTreeSet::new();
    for rules in PACKAGES {
        let allowed: BTreeMap<&str, &[&str]> = rules.modules.iter().copied().collect();
        assert_eq!(allowed.len(), rules.modules.len());
        let package = read(rules.folder);
        for (file, uses) in package.files.iter().zip(package.uses()) {
            let Some(from) = file.module.first() else { continue };
            for target in uses {
                let Some(to) = package.files[target].module.first() else { continue };
                if from != to && !allowed.get(from.as_str()).is_some_and(|names| names.contains(&to.as_str()))
                {
                    let path = file.path.strip_prefix(root()).unwrap().display();
                    wrong.insert(format!("{}: {from} imports {to} in {path}", rules.name));
                }
            }
        }
    }
    assert_none("imports against the layers", &wrong);
}

#[test]
fn files_import_in_no_circle() {
    let mut wrong = BTreeSet::new();
    for folder in PACKAGES.iter().map(|rules| rules.folder).chain(PROGRAMS.iter().map(|(folder, _)| *folder))
    {
        let package = read(folder);
        let uses = package.uses();
        let name = |file: usize| package.files[file].path.strip_prefix(root()).unwrap().display().to_string();
        let reaches: Vec<BTreeSet<usize>> = (0..uses.len()).map(|file| reachable(&uses, file)).collect();
        for file in 0..uses.len() {
            let circle: Vec<String> = (0..uses.len())
                .filter(|&other| reaches[file].contains(&other) && reaches[other].contains(&file))
                .map(name)
                .collect();
            if !circle.is_empty() {
                wrong.insert(circle.join(" ⇄ "));
            }
        }
    }
    assert_none("circles of files", &wrong);
}

/// What a file uses, and what that uses, and so on.
fn reachable(uses: &[BTreeSet<usize>], from: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut open: Vec<usize> = uses[from].iter().copied().collect();
    while let Some(file) = open.pop() {
        if found.insert(file) {
            open.extend(&uses[file]);
        }
    }
    found
}

#[test]
fn unsafe_stands_in_sys_and_simd_only() {
    let mut wrong = BTreeSet::new();
    for folder in PACKAGES.iter().map(|rules| rules.folder).chain(PROGRAMS.iter().map(|(folder, _)| *folder))
    {
        for file in read(folder).files {
            let is_allowed = file.module.iter().any(|name| ["sys", "simd"].contains(&name.as_str()));
            if file.has_unsafe && !is_allowed {
                wrong.insert(file.path.display().to_string());
            }
        }
    }
    assert_none("unsafe outside of modules named sys or simd", &wrong);
}

#[test]
fn no_file_is_long() {
    let mut wrong = BTreeSet::new();
    for folder in ["vmm", "cloner", "guest-images", "tests", "benches"] {
        for path in files(&root().join(folder), &["rs"]) {
            let lines = fs::read_to_string(&path).unwrap().lines().count();
            if lines > LINES_MAX {
                wrong.insert(format!("{} has {lines} lines", path.display()));
            }
        }
    }
    assert_none("files of more than 400 lines", &wrong);
}

/// What the library does not carry: the command line, the baselines it is measured with, the guests it is tested with.
#[test]
fn the_library_depends_on_no_part_of_the_programs() {
    let dependencies = dependencies("cloner");
    for name in ["clap", "ctrlc", "guest-images", "indicatif", "lz4-sys", "regex", "tracing-subscriber"] {
        assert!(!dependencies.contains(name), "cloner depends on {name}");
    }
}

#[test]
fn only_tests_and_benches_depend_on_what_they_share() {
    let mut wrong = BTreeSet::new();
    for folder in PACKAGES.iter().map(|rules| rules.folder).chain(PROGRAMS.iter().map(|(folder, _)| *folder))
    {
        let dependencies = dependencies(folder);
        assert!(!dependencies.is_empty(), "{folder} depends on nothing");
        if dependencies.contains("cloner-testing") {
            wrong.insert(folder.to_owned());
        }
    }
    assert_none("packages whose product depends on cloner-testing", &wrong);
}

/// The packages that the product of the package in this folder depends on: what its tests and benches need is left out.
fn dependencies(folder: &str) -> BTreeSet<String> {
    dependencies_in(&fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap())
}

/// Reads `[dependencies]`, `[build-dependencies]`, both of a target, and the form `[dependencies.NAME]`.
fn dependencies_in(manifest: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut is_list = false;
    for line in manifest.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.split(']').next().unwrap();
            let tables: Vec<&str> = section.split('.').collect();
            let is_table = |table: &&str| ["dependencies", "build-dependencies"].contains(table);
            is_list = tables.last().is_some_and(is_table);
            if let [.., table, name] = tables[..]
                && is_table(&table)
            {
                names.insert(name.to_owned());
            }
        } else if is_list && let Some((name, _)) = line.split_once(['.', '=', ' ']) {
            names.insert(name.to_owned());
        }
    }
    names
}

#[test]
fn every_form_of_a_dependency_is_found() {
    let manifest = "[package]\nname = \"x\"\n[dependencies]\n# a = \"1\"\n#b = \"1\"\none.workspace = true\ntwo = \"1\"\n\n\
        [dev-dependencies]\nnot = \"1\"\n[dependencies.three]\nversion = \"1\"\n[build-dependencies]\nfour=\"1\"\n\
        [target.'cfg(unix)'.dependencies]\nfive = { path = \".\" }\n[lints]\nworkspace = true\n";
    assert_eq!(dependencies_in(manifest), ["five", "four", "one", "three", "two"].map(String::from).into());
}
