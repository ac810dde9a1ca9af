//! The processor, as `/proc/cpuinfo` describes it.

use std::num::NonZeroUsize;
use std::thread;

use serde::Serialize;

use super::text;

/// Model of the processors, and how many this process may use.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "flags of the processor, each on or off by itself")]
pub struct Processor {
    /// The vendor as CPUID names it, such as `GenuineIntel`.
    pub vendor: Option<String>,
    /// The name it is sold under.
    pub model_name: Option<String>,
    /// Whether the processor has VT-x.
    pub vmx: bool,
    /// Whether the processor has SVM.
    pub svm: bool,
    /// Whether this host is itself a virtual machine.
    pub is_virtual: bool,
    /// Whether the time stamp counter always runs at one frequency, also in sleep states.
    pub steady_tsc: bool,
    /// Number of processors that are online.
    pub online: Option<usize>,
    /// How many of them this process may use, given its affinity mask and CPU quota.
    pub usable: Option<usize>,
}

impl Processor {
    /// Reads `/proc/cpuinfo`, and counts the processors that this process may use.
    #[must_use]
    pub fn read() -> Self {
        let usable = thread::available_parallelism().ok().map(NonZeroUsize::get);
        Self { usable, ..Self::parse(&text::of("/proc/cpuinfo").unwrap_or_default()) }
    }

    /// Whether the processor itself can run guests, with VT-x or SVM.
    #[must_use]
    pub const fn has_virtualization(&self) -> bool {
        self.vmx || self.svm
    }

    fn parse(cpuinfo: &str) -> Self {
        let has = |flag: &str| {
            text::field(cpuinfo, "flags")
                .is_some_and(|flags| flags.split_ascii_whitespace().any(|f| f == flag))
        };
        let count = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
        Self {
            vendor: text::field(cpuinfo, "vendor_id").map(str::to_owned),
            model_name: text::field(cpuinfo, "model name").map(str::to_owned),
            vmx: has("vmx"),
            svm: has("svm"),
            is_virtual: has("hypervisor"),
            steady_tsc: has("constant_tsc") && has("nonstop_tsc"),
            online: (count > 0).then_some(count),
            usable: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpuinfo_is_read_as_the_kernel_writes_it() {
        let one = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 7\nflags\t\t: fpu svm hypervisor constant_tsc\n\n";
        let processor = Processor::parse(&format!("{one}{}", one.replace(": 0", ": 1")));
        assert_eq!(processor.vendor.as_deref(), Some("AuthenticAMD"));
        assert_eq!(processor.model_name.as_deref(), Some("AMD EPYC 7"));
        assert_eq!(processor.online, Some(2));
        assert!(processor.svm && processor.is_virtual && !processor.vmx && processor.has_virtualization());
        assert!(!processor.steady_tsc, "it may stop in sleep states");
        assert_eq!(Processor::parse(""), Processor::default());
        assert!(!Processor::parse("flags : vmx_vnmi svm_lock").has_virtualization(), "whole words only");
    }
}
