//! One KVM virtual machine.
