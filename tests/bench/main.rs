//! Runs `cloner-bench` as a user does, on a real KVM.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod guests;
mod ordinary_user;
mod others;
#[path = "../support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "most of it is for the tests of `cloner`")]
mod support;

const MIB: u64 = 1 << 20;
/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_cloner-bench");
