//! `cloner run`: runs one guest on this terminal.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use vmm::{Ending, Vm};

use crate::exit_code::{EXIT_GUEST_CRASHED, EXIT_INTERRUPTED};
use crate::guest::{BootArgs, MachineArgs};
use crate::terminal::{self, EscapeFilter, RawMode};
use crate::{Error, interrupt};

/// How often to check whether the guest has ended or the user wants to leave.
const POLL: Duration = Duration::from_millis(50);

/// Options of `cloner run`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    machine: MachineArgs,
    #[command(flatten)]
    boot: BootArgs,
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    let config = args.machine.config(args.boot.kernel(args.machine.memory)?);
    let vm = Vm::boot(&config, Box::new(io::stdout())).map_err(Error::source_vm)?;
    let vm = Arc::new(vm);
    let raw = RawMode::enter().map_err(Error::Terminal)?;
    if raw.is_some() {
        // In raw mode a line feed does not return the carriage.
        let _ = write!(io::stderr(), "cloner: Ctrl-A x leaves\r\n");
    }
    let leave = Arc::new(AtomicBool::new(false));
    spawn_input(&vm, Arc::clone(&leave))?;

    vm.start();
    let ending = loop {
        if let Some(ending) = vm.wait_timeout(POLL) {
            break Some(ending);
        }
        if leave.load(Ordering::Relaxed) || interrupt::requested() {
            break None;
        }
    };
    drop(raw);
    match ending {
        None if interrupt::requested() => Ok(EXIT_INTERRUPTED),
        None | Some(Ending::Reset) => Ok(0),
        Some(Ending::Shutdown { code }) => Ok(code),
        Some(crash) => {
            let _ = writeln!(io::stderr(), "\ncloner: the guest crashed: {crash}");
            Ok(EXIT_GUEST_CRASHED)
        }
    }
}

/// Passes on what is typed to the guest. The thread is not joined: it may be blocked in `read` until the process ends.
fn spawn_input(vm: &Arc<Vm>, leave: Arc<AtomicBool>) -> Result<(), Error> {
    let mut input = terminal::input().map_err(Error::Terminal)?;
    let vm = Arc::downgrade(vm);
    let forward = move || {
        let mut escape = EscapeFilter::default();
        while let Ok(typed) = terminal::read(&mut input) {
            // The end of input does not end the guest: `cloner run … < commands` lets it go on when all have been given.
            let (false, Some(vm)) = (typed.is_empty(), vm.upgrade()) else { return };
            let typed = escape.filter(&typed);
            vm.console_input(&typed.bytes);
            if typed.leave {
                leave.store(true, Ordering::Relaxed);
                return;
            }
        }
    };
    thread::Builder::new().name(String::from("input")).spawn(forward).map_err(Error::Terminal)?;
    Ok(())
}
