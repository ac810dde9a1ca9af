//! The `cloner` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    cloner_cli::main()
}
