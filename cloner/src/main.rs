//! The `cloner` program: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    cloner::cli::main()
}
