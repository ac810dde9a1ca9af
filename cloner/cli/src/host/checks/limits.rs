//! Checks what this process is allowed, and the mains.

use vmm::host::cgroup::CgroupLimit;
use vmm::host::limits::ResourceLimit;

use super::super::facts::HostFacts;
use super::super::ups::Ups;
use super::memory::MANY_GUESTS;
use super::{Check, Subject, counted};

const GROUP: &str = "Limits";

const HOLDER: Subject = Subject::new(GROUP, "held-memory", "live snapshots, which read a child's memory");
const DESCRIPTORS: Subject = Subject::new(GROUP, "descriptors", "many clones at once");
const PROCESSES: Subject = Subject::new(GROUP, "processes", "many clones at once");
const ADDRESS_SPACE: Subject = Subject::new(GROUP, "address-space", "large guests");
const UPS: Subject = Subject::new("Power", "ups", "keeping snapshots that exist only in the pool");

/// Descriptors that a process needs besides those of its guests.
const DESCRIPTORS_BESIDE: u64 = 32;
/// Address space, in bytes, that is enough for guests of any size and everything else.
const WIDE_BYTES: u64 = 1 << 40;

pub(super) fn judge(facts: &HostFacts) -> Vec<Check> {
    let mut checks = vec![holder(facts)];
    if let Some(kvm) = &facts.kvm {
        checks.push(descriptors(facts.limits.descriptors, kvm.trial.descriptors_per_guest.max(1)));
        checks.push(processes(facts, kvm.trial.threads_per_guest));
    }
    checks.push(address_space(facts.limits.address_space_bytes));
    checks.extend(facts.ups.as_ref().map(ups));
    checks
}

fn holder(facts: &HostFacts) -> Check {
    let security = &facts.security;
    let yama =
        security.yama_ptrace_scope.map_or_else(|| String::from("no yama"), |scope| format!("yama {scope}"));
    let seccomp = match security.seccomp_mode {
        Some(0) => "no seccomp filter",
        Some(_) => "a seccomp filter",
        None => "seccomp unknown",
    };
    match &security.holder_error {
        None => HOLDER.ok(format!("a child's memory and page table can be read ({yama}, {seccomp})")),
        Some(error) => HOLDER.missing(
            format!("{error} ({yama}, {seccomp})"),
            if security.yama_ptrace_scope.is_some_and(|scope| scope > 1) {
                // A scope of 3 cannot be changed until the next boot.
                "sudo sysctl kernel.yama.ptrace_scope=1 # if it is 3, only at boot"
            } else if security.seccomp_mode == Some(2) {
                "let this container do so (docker run --security-opt seccomp=unconfined)"
            } else {
                "cloner clone --mode stop # does not need it"
            },
        ),
    }
}

fn descriptors(limit: ResourceLimit, each: u64) -> Check {
    let Some(soft) = limit.soft else { return DESCRIPTORS.ok("unlimited") };
    let guests = soft.saturating_sub(DESCRIPTORS_BESIDE) / each;
    let value = format!("{soft}, {each} per guest: {} in one process", counted(guests, "guest"));
    if guests >= MANY_GUESTS {
        return DESCRIPTORS.ok(value);
    }
    let wanted = DESCRIPTORS_BESIDE + MANY_GUESTS * each;
    let remedy = if limit.hard.is_none_or(|hard| hard >= wanted) {
        format!("ulimit -n {wanted}")
    } else {
        format!("sudo prlimit --pid $$ --nofile={wanted}:{wanted}")
    };
    DESCRIPTORS.slower(value, remedy)
}

fn processes(facts: &HostFacts, threads_per_guest: u64) -> Check {
    // A clone that is forked or branched is a process of its own: its first thread, those of its vCPUs, and one that newer
    // kernels start in it for KVM (kvm-nx-lpage-recovery).
    let each = threads_per_guest + 2;
    let group = facts.cgroups.processes.as_ref();
    let user = if facts.user.is_root() { None } else { facts.limits.processes.soft };
    let all = [
        (group.map(CgroupLimit::room), "left by a control group"),
        (user, "by ulimit -u"),
        (facts.limits.host_processes, "by the kernel"),
    ];
    let tightest = all.into_iter().filter_map(|(limit, by)| Some((limit?, by))).min();
    let Some((limit, by)) = tightest else { return PROCESSES.ok("unlimited") };
    let guests = limit / each;
    let value = format!("{limit} {by}, {each} per clone: {}", counted(guests, "clone"));
    if guests >= MANY_GUESTS {
        return PROCESSES.ok(value);
    }
    let remedy = match group.filter(|group| group.room() == limit) {
        Some(group) => format!("echo max | sudo tee {}", group.setting),
        None if user == Some(limit) => String::from("sudo prlimit --pid $$ --nproc=unlimited"),
        None => String::from("sudo sysctl kernel.pid_max=4194304 kernel.threads-max=100000"),
    };
    PROCESSES.slower(value, remedy)
}

fn address_space(limit: ResourceLimit) -> Check {
    match limit.soft {
        None => ADDRESS_SPACE.ok("unlimited"),
        Some(bytes) if bytes >= WIDE_BYTES => ADDRESS_SPACE.ok(format!("{} GiB", bytes >> 30)),
        Some(bytes) => {
            let raise = if limit.hard.is_none() {
                "ulimit -v unlimited"
            } else {
                "sudo prlimit --pid $$ --as=unlimited"
            };
            ADDRESS_SPACE.slower(format!("{} MiB", bytes >> 20), raise)
        }
    }
}

fn ups(ups: &Ups) -> Check {
    let charge = ups.charge_share.map_or_else(
        || String::from("charge not measured"),
        |share| format!("charged to {:.0} %", share * 100.0),
    );
    match ups {
        Ups { error: Some(error), name, .. } => {
            UPS.missing(error, format!("upsc {name} # from the machine of its server"))
        }
        Ups { mains_present: Some(true), is_low: false, .. } => {
            UPS.ok(format!("{}: on mains, {charge}", ups.name))
        }
        Ups { mains_present: Some(true), .. } => UPS.slower(
            format!("{}: on mains, {charge}, but its battery is low", ups.name),
            "wait until it has charged; until then the pool admits less",
        ),
        _ => UPS.slower(
            format!("{}: on battery, {charge}", ups.name),
            "bring the mains back; until then the pool admits nothing",
        ),
    }
}
