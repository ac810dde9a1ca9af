//! The kernel, and its modules for KVM.

use std::path::Path;

use serde::Serialize;

use super::text;

/// The kernel's release, and which KVM module it has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct HostKernel {
    /// The kernel's release, as `uname -r` prints it.
    pub release: String,
    /// `kvm_intel`, `kvm_amd` or `kvm_pvm`, whichever is loaded or built in. `None` if none of them is.
    pub kvm_module: Option<&'static str>,
    /// The module's parameter `nested`. `None` if it does not have that parameter.
    pub nested: Option<bool>,
}

impl HostKernel {
    /// Reads the facts from the kernel and from `/sys/module`.
    #[must_use]
    pub fn read() -> Self {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let loaded = |name: &&str| Path::new("/sys/module").join(name).exists();
        let kvm_module = ["kvm_intel", "kvm_amd", "kvm_pvm"].into_iter().find(loaded);
        let nested = kvm_module.and_then(|name| text::of(format!("/sys/module/{name}/parameters/nested")));
        let nested = nested.map(|value| value == "Y" || value == "1");
        Self { release, kvm_module, nested }
    }
}
