//! Tests of the whole, on a real KVM: boot, clone, refuse, crash, clean up.
//!
//! There is one binary, so that Linux boots once per run (`cloner_testing::linux`): use `cargo test`, not a runner that starts a
//! process per test. Tests that run machines begin with [`cloner_testing::room_for`], which skips them loudly where `/dev/kvm`
//! cannot be used, or fails them there if `CLONER_REQUIRE_KVM=1`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod bad_config;
mod boot;
mod branch;
mod chain;
mod children;
mod cli;
mod clone;
mod crash;
mod fork;
mod hostile_snapshot;
mod hostile_state;
mod identity;
mod incremental;
mod lazy;
mod leaks;
mod linux;
mod live;
mod machine;
mod power;
mod refused;
mod registers;
mod state;
mod stock;

use cloner_testing::program::{Executable, Outcome};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// The program under test.
const PROGRAM: Executable = Executable::at(env!("CARGO_BIN_EXE_cloner"));

/// Runs the program to its end.
#[track_caller]
fn run(args: &[&str]) -> Outcome {
    PROGRAM.run(args)
}
