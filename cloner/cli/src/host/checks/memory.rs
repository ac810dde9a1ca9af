//! Checks memory: how much there is, in which pages, and under which rules.

use vmm::host::pages::HugePagePool;
use vmm::memory::HUGE_PAGE_SIZE;

use super::super::super::size::Size;
use super::super::facts::HostFacts;
use super::{Check, Subject, counted};

const GROUP: &str = "Memory";

const MEMORY: Subject = Subject::new(GROUP, "memory", "guests and the pool").required();
const PAGEMAP: Subject = Subject::new(GROUP, "pagemap", "saving only what a guest has touched").required();
const HUGE_PAGES: Subject = Subject::new(GROUP, "huge-pages", "pools that are never swapped out");
const TRANSPARENT: Subject = Subject::new(GROUP, "thp", "guest memory in large pages: short pauses");
const TRANSPARENT_SHARED: Subject = Subject::new(GROUP, "thp-shared", "large pages for guests with --shared");
const USERFAULTFD: Subject = Subject::new(GROUP, "userfaultfd", "lazy clones (--lazy)");
const OVERCOMMIT: Subject =
    Subject::new(GROUP, "overcommit", "many clones that share what they have not written");
const MAPPINGS: Subject = Subject::new(GROUP, "mappings", "many clones in one process");

/// Bytes that are enough for the default guest of `cloner demo`, two clones of it and its pool.
const COMFORTABLE_BYTES: u64 = 512 << 20;
/// Bytes that a guest of 16 MiB, its clone and the program need, approximately.
const LEAST_BYTES: u64 = 64 << 20;
/// A limit that allows fewer guests than this at once is reported.
pub(super) const MANY_GUESTS: u64 = 100;

const THP_FOLDER: &str = "/sys/kernel/mm/transparent_hugepage";

pub(super) fn judge(facts: &HostFacts) -> Vec<Check> {
    let mut checks = vec![memory(facts), pagemap(facts), huge_pages(facts)];
    checks.push(transparent(TRANSPARENT, facts.transparent_huge_pages.private.as_deref(), "enabled"));
    checks.push(transparent(
        TRANSPARENT_SHARED,
        facts.transparent_huge_pages.shared.as_deref(),
        "shmem_enabled",
    ));
    checks.push(userfaultfd(facts));
    checks.push(overcommit(facts));
    checks.extend(mappings(facts));
    checks
}

fn memory(facts: &HostFacts) -> Check {
    const MOUNT: &str = "sudo mount -t proc proc /proc";
    let Some(available) = facts.memory.available_bytes else {
        return MEMORY.missing("unknown: /proc/meminfo cannot be read", MOUNT);
    };
    let swap = match facts.memory.swap_bytes {
        None | Some(0) => String::from("no swap"),
        Some(bytes) => format!("{} of swap", Size(bytes)),
    };
    let host = format!("{} available, {swap}", Size(available));
    // The tighter of the two: what the host has available or what a group's limit leaves.
    let limit = facts.cgroups.memory_bytes.as_ref().filter(|limit| limit.room() < available);
    let (room, value, remedy) = match limit {
        Some(limit) => (
            limit.room(),
            format!(
                "{} left of the {} that a control group allows; {host}",
                Size(limit.room()),
                Size(limit.limit)
            ),
            format!("echo {} | sudo tee {}", COMFORTABLE_BYTES << 2, limit.setting),
        ),
        None => (
            available,
            host,
            String::from("ps -eo pid,rss,comm --sort=-rss | head # and end what is not needed"),
        ),
    };
    match room {
        room if room >= COMFORTABLE_BYTES => MEMORY.ok(value),
        room if room >= LEAST_BYTES => MEMORY.slower(format!("{value}: small guests only"), remedy),
        _ => MEMORY.missing(value, remedy),
    }
}

fn pagemap(facts: &HostFacts) -> Check {
    if facts.security.own_pagemap {
        PAGEMAP.ok("/proc/self/pagemap opens")
    } else {
        PAGEMAP.missing("/proc/self/pagemap does not open", "sudo mount -t proc proc /proc")
    }
}

fn huge_pages(facts: &HostFacts) -> Check {
    let other_sizes: String = facts
        .huge_pages
        .iter()
        .filter(|pool| pool.page_bytes != HUGE_PAGE_SIZE as u64)
        .map(|pool| format!("; {} of {} (not used)", pool.total, Size(pool.page_bytes)))
        .collect();
    let Some(pool) = facts.huge_pages.iter().find(|pool| pool.page_bytes == HUGE_PAGE_SIZE as u64) else {
        return HUGE_PAGES
            .slower(format!("none of 2 MiB{other_sizes}"), "boot a kernel with CONFIG_HUGETLBFS");
    };
    let value = format!("{} of {} of 2 MiB free{other_sizes}", pool.available(), pool.total);
    if let Some(limit) =
        facts.cgroups.huge_pages_bytes.as_ref().filter(|limit| limit.room() < HUGE_PAGE_SIZE as u64)
    {
        let value = format!("{value}; a control group allows {}", Size(limit.limit));
        return HUGE_PAGES.slower(value, format!("echo 1G | sudo tee {}", limit.setting));
    }
    if pool.may_set_aside {
        return HUGE_PAGES.ok(format!("{value}; this user may set more aside"));
    }
    if pool.available() > 0 {
        return HUGE_PAGES.ok(format!("{value}; this user may not set more aside"));
    }
    HUGE_PAGES.slower(format!("{value}; this user may not set any aside"), set_aside(facts, pool))
}

fn set_aside(facts: &HostFacts, pool: &HugePagePool) -> String {
    let pages = pool.total + (1 << 30) / pool.page_bytes;
    // The short setting counts pages of the host's default size, which is nearly always 2 MiB.
    if facts.memory.huge_page_bytes == Some(pool.page_bytes) {
        return format!("sudo sysctl vm.nr_hugepages={pages} # 1 GiB more");
    }
    format!("echo {pages} | sudo tee {}", pool.setting)
}

fn transparent(subject: Subject, setting: Option<&str>, file: &str) -> Check {
    let advise = if file == "enabled" { "madvise" } else { "advise" };
    match setting {
        Some(on @ ("always" | "madvise" | "advise" | "within_size" | "force")) => {
            subject.ok(format!("set to {on}"))
        }
        Some(off) => {
            subject.slower(format!("set to {off}"), format!("echo {advise} | sudo tee {THP_FOLDER}/{file}"))
        }
        None => subject.slower(
            "this kernel has no transparent huge pages",
            "boot a kernel with CONFIG_TRANSPARENT_HUGEPAGE",
        ),
    }
}

fn userfaultfd(facts: &HostFacts) -> Check {
    let found = &facts.userfaultfd;
    let Some(error) = &found.error else {
        let by = match (facts.user.sys_ptrace, found.unprivileged) {
            (true, _) => "by CAP_SYS_PTRACE",
            (false, Some(true)) => "by vm.unprivileged_userfaultfd",
            (false, _) => "by /dev/userfaultfd",
        };
        return USERFAULTFD
            .ok(format!("opens {by}; handles missing pages of shared and huge memory as well"));
    };
    if !found.is_forbidden {
        return USERFAULTFD.missing(error, "boot Linux 4.11 or newer, with CONFIG_USERFAULTFD");
    }
    let device = match (found.device.exists, found.device.opens()) {
        (_, true) => String::from("opens"),
        (true, false) => format!("does not open ({error})"),
        (false, false) => String::from("does not exist"),
    };
    let setting = match found.unprivileged {
        Some(true) => "1",
        Some(false) => "0",
        None => "unknown",
    };
    USERFAULTFD.missing(
        format!("no CAP_SYS_PTRACE, vm.unprivileged_userfaultfd is {setting}, /dev/userfaultfd {device}"),
        "sudo sysctl vm.unprivileged_userfaultfd=1",
    )
}

fn overcommit(facts: &HostFacts) -> Check {
    match facts.memory.overcommit {
        Some(2) => {
            let size =
                |bytes: Option<u64>| bytes.map_or_else(|| String::from("?"), |bytes| Size(bytes).to_string());
            let (promised, limit) = (facts.memory.committed_bytes, facts.memory.commit_limit_bytes);
            OVERCOMMIT.slower(
                format!(
                    "vm.overcommit_memory is 2: every clone counts in full; {} of {} are promised",
                    size(promised),
                    size(limit)
                ),
                "sudo sysctl vm.overcommit_memory=0",
            )
        }
        Some(mode) => OVERCOMMIT.ok(format!("vm.overcommit_memory is {mode}")),
        None => OVERCOMMIT.ok("vm.overcommit_memory is unknown; the default allows it"),
    }
}

fn mappings(facts: &HostFacts) -> Option<Check> {
    let each = facts.kvm.as_ref()?.trial.mappings_per_guest.max(1);
    let max = facts.memory.max_mappings?;
    let guests = max / each;
    let value = format!("vm.max_map_count is {max}, {each} per guest: {}", counted(guests, "guest"));
    Some(if guests >= MANY_GUESTS {
        MAPPINGS.ok(value)
    } else {
        MAPPINGS.slower(value, "sudo sysctl vm.max_map_count=65530")
    })
}
