//! Checks the time stamp counter, by which guests count time.

use vmm::host::Virtualization;
use vmm::host::clock::GuestTsc;
use vmm::vcpu::tsc::TOLERANCE_PPM;

use super::super::facts::HostFacts;
use super::{Check, Subject};

const GROUP: &str = "Clock";

const TSC: Subject = Subject::new(GROUP, "tsc", "counters of several vCPUs that agree");
const OFFSET: Subject = Subject::new(GROUP, "tsc-offset", "clones whose time goes on from their snapshot");
const SCALING: Subject = Subject::new(GROUP, "tsc-scaling", "clones of hosts with another frequency");
const DEADLINE: Subject = Subject::new(GROUP, "tsc-deadline", "the timer that costs guests least");

pub(super) fn judge(facts: &HostFacts) -> Vec<Check> {
    let Some(kvm) = &facts.kvm else { return Vec::new() };
    let Some(tsc) = &kvm.guest_tsc else {
        let why = kvm.guest_tsc_error.as_deref().unwrap_or("not reached");
        return vec![TSC.missing(why, "cloner -vv host # shows what led to this")];
    };
    let offered = &kvm.capabilities;
    vec![
        stability(facts, tsc),
        offset(facts, tsc),
        scaling(offered.tsc_scaling, tsc),
        deadline(offered.tsc_deadline),
    ]
}

fn stability(facts: &HostFacts, tsc: &GuestTsc) -> Check {
    let source = facts.clocksource.current.as_deref().unwrap_or("unknown");
    let value = format!("{} kHz, clock source {source}", tsc.khz);
    let listed = facts.clocksource.available.iter().any(|name| name == "tsc");
    match (tsc.is_stable, listed && source != "tsc") {
        (true, _) => TSC.ok(format!("{value}, KVM trusts it")),
        (false, true) => TSC.slower(
            format!("{value}, although tsc is available: KVM does not trust it"),
            "echo tsc | sudo tee /sys/devices/system/clocksource/clocksource0/current_clocksource",
        ),
        (false, false) => TSC.slower(
            format!(
                "{value}: KVM does not trust it, and sets a vCPU's offset anew whenever it loads the vCPU"
            ),
            "boot this host with tsc=reliable, if its processors' counters really agree",
        ),
    }
}

fn offset(facts: &HostFacts, tsc: &GuestTsc) -> Check {
    match (facts.virtualization, tsc.offset_kept) {
        (Virtualization::PageTableBased, kept) if kept != Some(true) => OFFSET.missing(
            "guests see the host's own counter: their time jumps ahead by the age of the snapshot",
            "use a host with VT-x or SVM",
        ),
        (_, Some(true)) => OFFSET.ok("each guest has its own, which stays as it is set"),
        (_, Some(false)) if !tsc.is_stable => OFFSET.slower(
            "can be set, but not exact to the cycle",
            "boot this host with tsc=reliable, if its processors' counters really agree",
        ),
        (_, Some(false)) => OFFSET.missing("accepted, but not kept", "boot a newer kernel, with all of KVM"),
        (_, None) => {
            OFFSET.slower("set by writing the counter (no KVM_VCPU_TSC_OFFSET)", "boot Linux 5.16 or newer")
        }
    }
}

fn scaling(has_it: bool, tsc: &GuestTsc) -> Check {
    if has_it {
        SCALING.ok("any frequency (KVM_CAP_TSC_CONTROL)")
    } else {
        SCALING.missing(
            format!(
                "only snapshots of {} kHz, give or take {TOLERANCE_PPM} ppm (no KVM_CAP_TSC_CONTROL)",
                tsc.khz
            ),
            "use a host whose processor scales its counter, or one of the same frequency",
        )
    }
}

fn deadline(has_it: bool) -> Check {
    if has_it {
        DEADLINE.ok("KVM_CAP_TSC_DEADLINE_TIMER")
    } else {
        DEADLINE.slower("no KVM_CAP_TSC_DEADLINE_TIMER", "boot a newer kernel, with all of KVM")
    }
}
