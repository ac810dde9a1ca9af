//! Tests the checks of memory.

use super::*;

#[test]
fn memory_of_the_host_or_of_a_group() {
    assert_alone("memory", Verdict::Slower, "ps -e", |facts| facts.memory.available_bytes = Some(GIB / 4));
    assert_alone("memory", Verdict::Missing, "ps -e", |facts| facts.memory.available_bytes = Some(GIB / 64));
    assert_alone("memory", Verdict::Missing, "mount -t proc", |facts| facts.memory.available_bytes = None);
    let tight =
        |facts: &mut HostFacts| facts.cgroups.memory_bytes = limit(GIB, GIB - GIB / 8, "/c/memory.max");
    assert_alone("memory", Verdict::Slower, "| sudo tee /c/memory.max", tight);
    let roomy = but(|facts| facts.cgroups.memory_bytes = limit(GIB, 1 << 20, "/c/memory.max"));
    let check = find(&roomy, "memory");
    assert!(
        check.verdict == Verdict::Ok && check.value.contains("1 GiB that a control group allows"),
        "{check:?}"
    );
    let idle = but(|facts| facts.cgroups.memory_bytes = limit(64 * GIB, 0, "/c/memory.max"));
    assert!(!find(&idle, "memory").value.contains("group"), "the host itself has less");
    assert_alone("pagemap", Verdict::Missing, "mount -t proc", |facts| facts.security.own_pagemap = false);
}

#[test]
fn pages() {
    let none = |facts: &mut HostFacts| (facts.huge_pages[0].total, facts.huge_pages[0].free) = (0, 0);
    assert_alone("huge-pages", Verdict::Slower, "sysctl vm.nr_hugepages=512", none);
    assert_alone("huge-pages", Verdict::Slower, "echo 512 | sudo tee /s", |facts| {
        none(facts);
        facts.memory.huge_page_bytes = Some(GIB);
        facts.huge_pages[0].setting = "/s".to_owned();
    });
    let promised = |facts: &mut HostFacts| facts.huge_pages[0].promised = 9;
    assert_alone("huge-pages", Verdict::Slower, "vm.nr_hugepages=521", promised);
    assert_alone("huge-pages", Verdict::Slower, "CONFIG_HUGETLBFS", |facts| facts.huge_pages.clear());
    assert_alone("huge-pages", Verdict::Slower, "tee /h", |facts| {
        facts.cgroups.huge_pages_bytes = limit(0, 0, "/h");
    });
    let root = but(|facts| {
        none(facts);
        facts.huge_pages[0].may_set_aside = true;
        facts.huge_pages.push(HugePagePool { page_bytes: GIB, total: 3, ..HugePagePool::default() });
    });
    let check = find(&root, "huge-pages");
    assert!(check.verdict == Verdict::Ok && check.value.contains("3 of 1 GiB (not used)"), "{check:?}");
    for setting in [Some("never".to_owned()), None] {
        assert_alone("thp", Verdict::Slower, "", |facts| {
            facts.transparent_huge_pages.private = setting.clone();
        });
        assert_alone("thp-shared", Verdict::Slower, "", |facts| {
            facts.transparent_huge_pages.shared = setting;
        });
    }
    let never = |facts: &mut HostFacts| facts.transparent_huge_pages.shared = Some("never".to_owned());
    assert!(find(&but(never), "thp-shared").remedy.unwrap().ends_with("transparent_hugepage/shmem_enabled"));
}

#[test]
fn rules_of_memory() {
    let forbidden = |facts: &mut HostFacts| {
        facts.userfaultfd = UserfaultAccess {
            error: Some("Operation not permitted".to_owned()),
            is_forbidden: true,
            unprivileged: Some(false),
            ..UserfaultAccess::default()
        };
    };
    assert_alone("userfaultfd", Verdict::Missing, "vm.unprivileged_userfaultfd=1", forbidden);
    let value = find(&but(forbidden), "userfaultfd").value;
    for way in ["CAP_SYS_PTRACE", "vm.unprivileged_userfaultfd is 0", "/dev/userfaultfd does not exist"] {
        assert!(value.contains(way), "{way:?} is missing in {value}");
    }
    assert_alone("userfaultfd", Verdict::Missing, "CONFIG_USERFAULTFD", |facts| {
        facts.userfaultfd.error = Some("Function not implemented".to_owned());
    });
    assert_alone("overcommit", Verdict::Slower, "overcommit_memory=0", |facts| {
        facts.memory.overcommit = Some(2);
    });
    assert_alone("mappings", Verdict::Slower, "max_map_count", |facts| facts.memory.max_mappings = Some(799));
}
