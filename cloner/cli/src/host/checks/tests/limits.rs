//! Tests the checks of processors, limits and the mains.

use super::*;

#[test]
fn processors_and_limits() {
    assert_alone("processors", Verdict::Slower, "taskset -p -c 0-3", |facts| {
        facts.processor.usable = Some(1);
    });
    assert_alone("processors", Verdict::Slower, "second", |facts| {
        (facts.processor.usable, facts.processor.online) = (Some(1), Some(1));
    });
    if !cfg!(feature = "portable") {
        assert_alone("coder", Verdict::Slower, "AVX2", |facts| facts.coder = "portable");
        assert_alone("coder", Verdict::Slower, "-cpu host", |facts| {
            facts.coder = "portable";
            facts.processor.is_virtual = true;
        });
    }
    let error =
        |facts: &mut HostFacts| facts.security.holder_error = Some("Operation not permitted".to_owned());
    assert_alone("held-memory", Verdict::Missing, "--mode stop", error);
    assert_alone("held-memory", Verdict::Missing, "yama.ptrace_scope=1", |facts| {
        error(facts);
        facts.security.yama_ptrace_scope = Some(2);
    });
    assert_alone("held-memory", Verdict::Missing, "seccomp=unconfined", |facts| {
        error(facts);
        facts.security.seccomp_mode = Some(2);
    });
    let few = |hard| {
        move |facts: &mut HostFacts| facts.limits.descriptors = ResourceLimit { soft: Some(256), hard }
    };
    assert_alone("descriptors", Verdict::Slower, "ulimit -n 1032", few(Some(4096)));
    assert_alone("descriptors", Verdict::Slower, "prlimit", few(Some(256)));
    let bounds = ResourceLimit { soft: Some(64), hard: Some(64) };
    assert_alone("processes", Verdict::Slower, "--nproc=", |facts| facts.limits.processes = bounds);
    assert_alone("processes", Verdict::Slower, "tee /p", |facts| {
        facts.cgroups.processes = limit(99, 9, "/p");
    });
    assert_alone("processes", Verdict::Slower, "kernel.pid_max", |facts| {
        facts.limits.host_processes = Some(99);
    });
    let root = but(|facts| {
        facts.limits.processes = bounds;
        facts.user.id = 0;
    });
    assert_eq!(find(&root, "processes").verdict, Verdict::Ok, "root has no such limit");
    let narrow = ResourceLimit { soft: Some(GIB), hard: None };
    assert_alone("address-space", Verdict::Slower, "ulimit -v", |facts| {
        facts.limits.address_space_bytes = narrow;
    });
}

#[test]
fn the_ups_if_it_was_asked() {
    let ups = |facts: &mut HostFacts, change: fn(&mut Ups)| change(facts.ups.as_mut().unwrap());
    assert_alone("ups", Verdict::Slower, "mains", |facts| ups(facts, |ups| ups.mains_present = Some(false)));
    assert_alone("ups", Verdict::Slower, "charged", |facts| ups(facts, |ups| ups.is_low = true));
    let unknown = |ups: &mut Ups| (ups.mains_present, ups.error) = (None, Some("no answer".to_owned()));
    assert_alone("ups", Verdict::Missing, "upsc ups@x", |facts| ups(facts, unknown));
    let silent = judge(&but(|facts| facts.ups = None));
    assert!(silent.iter().all(|check| check.subject.id != "ups"));
}
