//! Tests every check both ways, with made-up facts.

mod limits;
mod memory;
mod virtualization;

use vmm::host::Virtualization;
use vmm::host::capabilities::Capabilities;
use vmm::host::cgroup::{CgroupLimit, Cgroups};
use vmm::host::clock::{Clocksource, GuestTsc};
use vmm::host::device::DeviceNode;
use vmm::host::limits::{ProcessLimits, ResourceLimit};
use vmm::host::memory::HostMemory;
use vmm::host::module::HostKernel;
use vmm::host::pages::{HugePagePool, TransparentHugePages};
use vmm::host::processor::Processor;
use vmm::host::security::Security;
use vmm::host::user::{Group, User};
use vmm::host::userfault::UserfaultAccess;

use super::super::facts::{HostFacts, KvmFacts};
use super::super::trial::{Trial, TrialOutcome};
use super::super::ups::Ups;
use super::{Check, Verdict, judge};

const GIB: u64 = 1 << 30;

fn group(id: u32, name: &str, members: &[&str]) -> Group {
    Group { id, name: name.to_owned(), members: members.iter().map(|&name| name.to_owned()).collect() }
}

/// An ordinary host on which nothing is amiss, as a user in group kvm sees it.
fn good() -> HostFacts {
    let went = |ms| TrialOutcome { milliseconds: Some(ms), error: None };
    HostFacts {
        kernel: HostKernel { release: "6.1.0".to_owned(), kvm_module: Some("kvm_amd"), nested: Some(true) },
        processor: Processor { svm: true, online: Some(4), usable: Some(4), ..Processor::default() },
        user: User { id: 1000, name: Some("jo".to_owned()), groups: vec![108], sys_ptrace: false },
        virtualization: Virtualization::Hardware,
        kvm_device: DeviceNode {
            path: "/dev/kvm".to_owned(),
            exists: true,
            is_device: true,
            mode_octal: Some("660".to_owned()),
            owner_id: Some(0),
            group_id: Some(108),
            group: Some(group(108, "kvm", &[])),
            error: None,
            is_forbidden: false,
        },
        kvm_group: Some(group(108, "kvm", &[])),
        kvm: Some(KvmFacts {
            capabilities: Capabilities {
                api_version: 12,
                missing: Vec::new(),
                max_vcpus: 1024,
                xsave2_bytes: 11008,
                tsc_deadline: true,
                tsc_scaling: true,
                nested_state_bytes: 4224,
            },
            guest_tsc: Some(GuestTsc { khz: 2_000_000, offset_kept: Some(true), is_stable: true }),
            guest_tsc_error: None,
            trial: Trial {
                boot: went(1.0),
                clone: went(2.0),
                dirty_log: went(0.1),
                descriptors_per_guest: 10,
                mappings_per_guest: 8,
                threads_per_guest: 1,
            },
        }),
        clocksource: Clocksource { current: Some("tsc".to_owned()), available: vec!["tsc".to_owned()] },
        memory: HostMemory {
            total_bytes: Some(32 * GIB),
            available_bytes: Some(16 * GIB),
            overcommit: Some(0),
            huge_page_bytes: Some(2 << 20),
            max_mappings: Some(65530),
            ..HostMemory::default()
        },
        cgroups: Cgroups::default(),
        huge_pages: vec![HugePagePool { page_bytes: 2 << 20, total: 9, free: 9, ..HugePagePool::default() }],
        transparent_huge_pages: TransparentHugePages {
            private: Some("madvise".to_owned()),
            shared: Some("advise".to_owned()),
        },
        userfaultfd: UserfaultAccess { unprivileged: Some(true), ..UserfaultAccess::default() },
        limits: ProcessLimits::default(),
        security: Security {
            yama_ptrace_scope: Some(1),
            seccomp_mode: Some(0),
            own_memory: true,
            own_pagemap: true,
            holder_error: None,
        },
        coder: "avx2",
        ups: Some(Ups { name: "ups@x".to_owned(), mains_present: Some(true), ..Ups::default() }),
    }
}

/// The facts of [`good`], changed by `change`.
fn but(change: impl FnOnce(&mut HostFacts)) -> HostFacts {
    let mut facts = good();
    change(&mut facts);
    facts
}

fn limit(limit: u64, used: u64, setting: &str) -> Option<CgroupLimit> {
    Some(CgroupLimit { limit, used, reclaimable: 0, setting: setting.to_owned() })
}

fn kvm(facts: &mut HostFacts) -> &mut KvmFacts {
    facts.kvm.as_mut().unwrap()
}

fn tsc(facts: &mut HostFacts) -> &mut GuestTsc {
    kvm(facts).guest_tsc.as_mut().unwrap()
}

#[track_caller]
fn find(facts: &HostFacts, id: &str) -> Check {
    judge(facts)
        .into_iter()
        .find(|check| check.subject.id == id)
        .unwrap_or_else(|| panic!("{id} is not judged"))
}

/// Asserts that the change gives this check, and no other, this verdict, and that its remedy contains `remedy`.
#[track_caller]
fn assert_alone(id: &str, verdict: Verdict, remedy: &str, change: impl FnOnce(&mut HostFacts)) {
    let facts = but(change);
    for check in judge(&facts) {
        let is_it = check.subject.id == id;
        assert_eq!(check.verdict, if is_it { verdict } else { Verdict::Ok }, "{check:?}");
        if is_it {
            let found = check.remedy.as_deref().unwrap_or_else(|| panic!("{check:?}"));
            assert!(found.contains(remedy) && !found.contains('\n'), "{check:?}");
        }
    }
    find(&facts, id);
}

#[test]
fn nothing_is_amiss_on_a_good_host() {
    let checks = judge(&good());
    assert!(checks.len() > 25);
    for check in &checks {
        assert_eq!((check.verdict, &check.remedy), (Verdict::Ok, &None), "{check:?}");
        assert!(!check.subject.purpose.is_empty() && !check.value.is_empty(), "{check:?}");
    }
    let mut ids: Vec<_> = checks.iter().map(|check| check.subject.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), checks.len(), "each has a name of its own");
}
