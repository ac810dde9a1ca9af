//! Runs `cloner-bench` as a user does, on a real KVM.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod guests;
mod ordinary_user;
mod others;

use cloner_testing::program::{Executable, Outcome};

const MIB: u64 = 1 << 20;
/// The program under test.
const PROGRAM: Executable = Executable::at(env!("CARGO_BIN_EXE_cloner-bench"));

/// Runs the program to its end.
#[track_caller]
fn run(args: &[&str]) -> Outcome {
    PROGRAM.run(args)
}
