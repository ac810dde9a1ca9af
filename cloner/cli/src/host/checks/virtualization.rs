//! Checks KVM: the device, what it offers, and whether it boots and clones a guest.

use vmm::host::capabilities::REQUIRED;
use vmm::host::{KVM_API_VERSION, KVM_PATH, Virtualization};

use super::super::facts::{HostFacts, KvmFacts};
use super::super::trial::TrialOutcome;
use super::{Check, Subject};

const GROUP: &str = "Virtualization";

const DEVICE: Subject = Subject::new(GROUP, "kvm-device", "running any guest").required();
const CAPABILITIES: Subject = Subject::new(GROUP, "capabilities", "running any guest").required();
const KIND: Subject = Subject::new(GROUP, "kind", "guest kernels at full speed");
const BOOT: Subject = Subject::new(GROUP, "boot", "running any guest").required();
const CLONE: Subject = Subject::new(GROUP, "clone", "cloning any guest").required();
const DIRTY_LOG: Subject = Subject::new(GROUP, "dirty-log", "incremental snapshots");
const VCPUS: Subject = Subject::new(GROUP, "vcpus", "guests with up to 16 processors");
const EXTENDED_STATE: Subject =
    Subject::new(GROUP, "extended-state", "guests with registers beyond AVX-512 (AMX)");
const NESTED: Subject = Subject::new(GROUP, "nested", "guests that run guests of their own");

/// Most vCPUs that a guest may have.
const VCPUS_MAX: usize = 16;

pub(super) fn judge(facts: &HostFacts) -> Vec<Check> {
    let mut checks = vec![device(facts)];
    let Some(kvm) = &facts.kvm else {
        checks.push(kind(facts));
        return checks;
    };
    checks.push(capabilities(facts, kvm));
    checks.push(kind(facts));
    let again = "cloner -vv host # shows what led to this";
    let tried = |subject: Subject, what: &str, outcome: &TrialOutcome| match outcome {
        TrialOutcome { milliseconds: Some(ms), error: None } => subject.ok(format!("{what} in {ms:.1} ms")),
        TrialOutcome { error, .. } => subject.missing(error.as_deref().unwrap_or("not reached"), again),
    };
    checks.push(tried(BOOT, "booted a guest of 4 MiB", &kvm.trial.boot));
    checks.push(tried(CLONE, "cloned that guest", &kvm.trial.clone));
    checks.push(tried(DIRTY_LOG, "switched on, read and switched off", &kvm.trial.dirty_log));
    checks.push(vcpus(kvm));
    checks.push(extended_state(kvm));
    checks.push(nested(facts, kvm));
    checks
}

fn device(facts: &HostFacts) -> Check {
    let device = &facts.kvm_device;
    if device.opens() {
        let version = facts.kvm.as_ref().map_or(0, |kvm| kvm.capabilities.api_version);
        return DEVICE.ok(format!("{KVM_PATH} opens, API version {version}"));
    }
    if !device.exists {
        let value = format!("{KVM_PATH} does not exist");
        return DEVICE.missing(value, load_kvm(facts));
    }
    if !device.is_device {
        let value = format!("{KVM_PATH} is not a device");
        return DEVICE.missing(value, format!("sudo rm {KVM_PATH} && sudo mknod -m 660 {KVM_PATH} c 10 232"));
    }
    let owner = device.group.as_ref().map_or_else(
        || format!("group {}, which has no name", device.group_id.unwrap_or(0)),
        |group| format!("group {}", group.name),
    );
    let why = device.error.as_deref().unwrap_or("it does not open");
    let mode = device.mode_octal.as_deref().unwrap_or("unknown");
    let value = format!("{KVM_PATH} (mode {mode}, {owner}): {why}");
    let remedy = if device.is_forbidden { let_in(facts) } else { load_kvm(facts) };
    DEVICE.missing(value, remedy)
}

/// The command that makes the device appear or work.
fn load_kvm(facts: &HostFacts) -> String {
    let module = match facts.kernel.kvm_module {
        // The module is loaded, but its device node is missing: a container, or a separate /dev.
        Some(_) if !facts.kvm_device.exists => return format!("sudo mknod -m 660 {KVM_PATH} c 10 232"),
        Some(module) => module,
        None if facts.processor.vmx => "kvm_intel",
        None if facts.processor.svm => "kvm_amd",
        None if facts.processor.is_virtual => {
            return String::from("switch on nested virtualization for this machine where it is hosted");
        }
        None => return String::from("switch on VT-x or SVM in the firmware of this machine"),
    };
    format!("sudo modprobe {module}")
}

/// The command that gives this user the right to open the device.
fn let_in(facts: &HostFacts) -> String {
    let (device, user) = (&facts.kvm_device, &facts.user);
    if user.is_root() {
        // The mode is not the cause: a container's list of devices or a security module is.
        return format!("let this container have the device (docker run --device {KVM_PATH})");
    }
    let name = user.name.clone().unwrap_or_else(|| format!("\"$(id -un {})\"", user.id));
    let rights =
        if device.lets_group_in() { String::new() } else { format!("sudo chmod 660 {KVM_PATH} && ") };
    let join = |group: &str| format!("sudo usermod -aG {group} {name} # then log in again");
    match (&device.group, &facts.kvm_group) {
        (Some(group), _) if group.id != 0 && group.members.contains(&name) && rights.is_empty() => {
            format!("newgrp {} # or log in again: {name} is in the group since", group.name)
        }
        (Some(group), _) if group.id != 0 => format!("{rights}{}", join(&group.name)),
        // Nobody should join root's group, and a group without a name cannot be joined.
        (_, Some(kvm)) => format!("{rights}sudo chgrp {} {KVM_PATH} && {}", kvm.name, join(&kvm.name)),
        (None, None) => {
            let id = device.group_id.unwrap_or(0);
            format!("{rights}sudo groupadd -g {id} kvm && {}", join("kvm"))
        }
        (Some(_), None) => {
            format!("{rights}sudo groupadd -r kvm && sudo chgrp kvm {KVM_PATH} && {}", join("kvm"))
        }
    }
}

fn capabilities(facts: &HostFacts, kvm: &KvmFacts) -> Check {
    let (found, missing) = (kvm.capabilities.api_version, &kvm.capabilities.missing);
    let upgrade = format!("boot a newer kernel than {}, with all of KVM", facts.kernel.release);
    if found != KVM_API_VERSION {
        return CAPABILITIES.missing(format!("API version {found}, not {KVM_API_VERSION}"), upgrade);
    }
    if missing.is_empty() {
        CAPABILITIES.ok(format!("all {} that are required", REQUIRED.len()))
    } else {
        CAPABILITIES.missing(missing.join(", "), upgrade)
    }
}

fn kind(facts: &HostFacts) -> Check {
    let within = if facts.processor.is_virtual { "; this host is itself a virtual machine" } else { "" };
    let by_module = facts.kernel.kvm_module.map_or(String::new(), |module| format!(" ({module})"));
    match facts.virtualization {
        Virtualization::PageTableBased => KIND.slower(
            format!(
                "page-table based{by_module}: ring 3 of a guest runs natively, ring 0 is emulated; bzImages take many \
                 minutes"
            ),
            "cloner demo --linux # boots the kind of kernel to use: an uncompressed ELF vmlinux",
        ),
        Virtualization::Hardware if facts.processor.vmx => KIND.ok(format!("VT-x{by_module}{within}")),
        Virtualization::Hardware if facts.processor.svm => KIND.ok(format!("SVM{by_module}{within}")),
        // KVM may still work: the flags are only what /proc/cpuinfo shows.
        Virtualization::Hardware if facts.kvm.is_some() => KIND.ok(format!("unknown{by_module}{within}")),
        Virtualization::Hardware => {
            KIND.missing(format!("the processor shows neither VT-x nor SVM{within}"), load_kvm(facts))
        }
    }
}

fn vcpus(kvm: &KvmFacts) -> Check {
    match kvm.capabilities.max_vcpus {
        max if max >= VCPUS_MAX => VCPUS.ok(format!("up to {max} by KVM")),
        max => VCPUS.slower(format!("up to {max} by KVM"), format!("cloner run --cpus {max} # or fewer")),
    }
}

fn extended_state(kvm: &KvmFacts) -> Check {
    match kvm.capabilities.xsave2_bytes {
        0 => EXTENDED_STATE.missing("4096 bytes (no KVM_CAP_XSAVE2)", "boot Linux 5.17 or newer"),
        bytes => EXTENDED_STATE.ok(format!("{bytes} bytes (KVM_CAP_XSAVE2)")),
    }
}

fn nested(facts: &HostFacts, kvm: &KvmFacts) -> Check {
    let module = facts.kernel.kvm_module.unwrap_or("kvm");
    match (facts.virtualization, facts.kernel.nested, kvm.capabilities.nested_state_bytes) {
        (Virtualization::PageTableBased, ..) => {
            NESTED.missing("a page-table based KVM has none", "use a host with VT-x or SVM")
        }
        (_, Some(true), bytes) if bytes > 0 => {
            NESTED.ok(format!("available; its state of up to {bytes} bytes can be saved"))
        }
        (_, Some(true), _) => NESTED.missing(
            "available, but its state cannot be saved (no KVM_CAP_NESTED_STATE)",
            "boot Linux 5.8 or newer",
        ),
        _ => NESTED.missing(
            format!("switched off ({module}, parameter nested)"),
            format!("sudo modprobe -r {module} && sudo modprobe {module} nested=1"),
        ),
    }
}
