//! The guest process itself: one machine, and one thread that serves its console and its control channel.
//!
//! ```text
//!              ┌────────────────────────────────────────────┐
//!   built ──►  │ attend: type, branch, until the guest ends │ ──► say how ──► exit
//!              └──────┬─────────────────────────────▲───────┘
//!                branch│ fork()                      │
//!                      ├── in the source ────────────┤
//!                      └── in the branch: build ─────┘
//! ```
//!
//! Apart from the vCPUs' threads, no other thread may ever run here: it could hold a lock when the process is forked.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm::machine::branch::{BranchSeed, BranchSide, Branched};
use vmm::memory::{Backing, GuestMemory};
use vmm::{Announce, Vm, VmState};

use super::repair::HugePageRepair;
use super::wire::{BranchAnswer, BranchRequest, GuestReport, GuestRequest};
use crate::chain;

use super::{Channel, Error};
use crate::admission::{self, CopyLimits};
use crate::pool;
use crate::restore::state_file::state_file;
use crate::sys::fork::{end_at_once, forget_children};

/// How often a vCPU that waits for room on a full console checks whether the machine is to be paused.
const CONSOLE_WAIT: Duration = Duration::from_millis(20);

/// Makes this process a guest's: takes a configuration over `channel`, boots it, and serves it until it ends or the other end of
/// the channel is closed. The process must have no other thread. This returns only if there is no guest to boot.
///
/// # Errors
/// [`Error::Ended`] if the other end of the channel is closed before a configuration arrives, [`Error::Refused`] if the first
/// request is a different one, [`Error::Channel`] if no valid request can be received, or its image cannot be read. Errors that
/// concern the guest are reported over the channel instead.
pub fn serve(channel: OwnedFd) -> Result<(), Error> {
    let channel = Channel::from_fd(channel);
    let Some((request, [console, image])) = channel.receive::<GuestRequest, 2>()? else {
        return Err(Error::Ended);
    };
    let GuestRequest::Boot(boot) = request else {
        let why = String::from("the first request to a guest process has to be its configuration");
        channel.send(&GuestReport::Failed(why.clone()), &[])?;
        return Err(Error::Refused(why));
    };
    forget_children();
    let config = boot.config(&File::from(image))?;
    run(UnixStream::from(console), channel, |output| Ok(Vm::boot(&config, output)?))
}

/// Builds a machine from state and memory, and tells its guest who it is as `announce` says.
pub(crate) fn restore(
    state: &VmState,
    memory: GuestMemory,
    announce: Announce,
    output: Box<dyn Write + Send>,
) -> Result<Vm, Error> {
    let vm = Vm::restore(state, memory, output)?;
    vm.announce(announce)?;
    Ok(vm)
}

/// Runs the machine that `build` makes, with this console, until it ends, reports how it ended, and ends this process. If the other
/// end of `control` is closed, this process ends at once.
pub(crate) fn run(
    console: UnixStream,
    control: Channel,
    build: impl FnOnce(Box<dyn Write + Send>) -> Result<Vm, Error>,
) -> ! {
    let mut guest = ServedGuest::start(console, control, build);
    loop {
        guest = match guest.attend() {
            GuestEvent::ConsoleInput(bytes) => {
                guest.vm.console_input(&bytes);
                guest
            }
            GuestEvent::ConsoleClosed => ServedGuest { typing: false, ..guest },
            GuestEvent::BranchRequested(request, sockets) => guest.branch(&request, sockets),
            GuestEvent::Idle => guest.repair_step(),
            GuestEvent::GuestEnded => guest.end(),
            GuestEvent::ControlClosed => end_at_once(0),
        };
    }
}

/// A machine that runs, and its connections.
struct ServedGuest {
    vm: Vm,
    console: UnixStream,
    /// Whether the console's other end is still open, so that something may be typed.
    typing: bool,
    control: Channel,
    /// Set while the machine is being paused: see [`GuestOutput`].
    drain_now: Arc<AtomicBool>,
    repair: HugePageRepair,
}

/// What the thread that serves the guest has to do next.
enum GuestEvent {
    ConsoleInput(Vec<u8>),
    ConsoleClosed,
    BranchRequested(BranchRequest, BranchSockets),
    GuestEnded,
    ControlClosed,
    Idle,
}

/// The descriptors that come with a [`BranchRequest`].
struct BranchSockets {
    console: UnixStream,
    control: Channel,
    answers: Channel,
}

impl ServedGuest {
    /// Builds the machine and starts it. If that fails, reports the reason and ends this process.
    fn start(
        console: UnixStream,
        control: Channel,
        build: impl FnOnce(Box<dyn Write + Send>) -> Result<Vm, Error>,
    ) -> Self {
        let drain_now = Arc::new(AtomicBool::new(false));
        let built = GuestOutput::new(&console, &drain_now)
            .map_err(Error::from)
            .and_then(|output| build(Box::new(output)));
        let vm = match built {
            Ok(vm) => vm,
            Err(error) => fail(&control, &error),
        };
        vm.start();
        if control.send(&GuestReport::Running(vm.identity()), &[]).is_err() {
            end_at_once(0);
        }
        Self { vm, console, typing: true, control, drain_now, repair: HugePageRepair::idle() }
    }

    /// Waits for something to do.
    fn attend(&self) -> GuestEvent {
        loop {
            let end = self.vm.end();
            let mut fds = [
                PollFd::new(&self.control, PollFlags::IN),
                PollFd::new(&end, PollFlags::IN),
                PollFd::new(&self.console, PollFlags::IN),
            ];
            let watched = if self.typing { &mut fds[..] } else { &mut fds[..2] };
            let limit =
                self.repair.idle_for().map(|limit| Timespec::try_from(limit).expect("seconds at most"));
            match poll(watched, limit.as_ref()) {
                Ok(0) => return GuestEvent::Idle,
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => end_at_once(1),
            }
            let [control, end, console] = fds.map(|fd| !fd.revents().is_empty());
            if control {
                match self.request() {
                    Some(event) => return event,
                    None => continue,
                }
            }
            if end {
                return GuestEvent::GuestEnded;
            }
            if console && let Some(event) = self.typed() {
                return event;
            }
        }
    }

    /// The next request. `None` if it is not one that a running guest understands: the sender notices, because the descriptors that
    /// came with it are closed.
    fn request(&self) -> Option<GuestEvent> {
        match self.control.receive_any::<GuestRequest>() {
            Ok(None) => Some(GuestEvent::ControlClosed),
            Ok(Some((GuestRequest::Branch(request), fds))) => {
                let [console, control, answers] = fds.try_into().ok()?;
                let (control, answers) = (Channel::from_fd(control), Channel::from_fd(answers));
                Some(GuestEvent::BranchRequested(
                    request,
                    BranchSockets { console: UnixStream::from(console), control, answers },
                ))
            }
            Ok(Some((request, _))) => {
                tracing::warn!(?request, "ignored a request that a running guest does not understand");
                None
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!(%error, "ignored a message that is not a request");
                None
            }
            Err(_) => Some(GuestEvent::ControlClosed),
        }
    }

    fn typed(&self) -> Option<GuestEvent> {
        let mut typed = [0; 4096];
        match (&self.console).read(&mut typed) {
            Ok(0) => Some(GuestEvent::ConsoleClosed),
            Ok(count) => Some(GuestEvent::ConsoleInput(typed[..count].to_vec())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
            Err(_) => Some(GuestEvent::ConsoleClosed),
        }
    }

    fn repair_step(mut self) -> Self {
        self.repair.step(self.vm.memory());
        self
    }

    fn end(self) -> ! {
        let ending = self.vm.wait();
        let report = GuestReport::Ended { message: ending.to_string(), orderly: ending.is_orderly() };
        // If this fails, the other end is gone, and nothing waits for the report.
        let _ = self.control.send(&report, &[]);
        // The kernel frees everything when the process ends, and nothing has to wait for that.
        end_at_once(0);
    }

    /// Forks this process. Returns in both processes: in the source with its own guest, in the child with the branch.
    fn branch(self, request: &BranchRequest, sockets: BranchSockets) -> Self {
        let BranchSockets { console, control, answers } = sockets;
        let copy_bound_bytes =
            match admit(self.vm.memory().backing(), CopyLimits { copy_bytes: request.copy_bytes }) {
                Ok(bytes) => bytes,
                Err(error) => {
                    refuse(&answers, &error.into());
                    return self;
                }
            };
        let Self { vm, console: own_console, typing, control: own_control, drain_now, mut repair } = self;
        drain_now.store(true, Ordering::Relaxed);
        match vm.branch() {
            BranchSide::Source { vm, branched } => {
                drain_now.store(false, Ordering::Relaxed);
                match branched {
                    Ok(branched) => {
                        report(&answers, &branched, copy_bound_bytes);
                        repair.share(vm.memory());
                    }
                    Err(error) => refuse(&answers, &error.into()),
                }
                Self { vm, console: own_console, typing, control: own_control, drain_now, repair }
            }
            BranchSide::Branch(seed) => {
                // These belong to the source. While a copy is open here, the other ends would not notice that the source is gone.
                drop((own_console, own_control, answers));
                let mut branch = become_branch(seed.map_err(Error::from), request, console, control);
                branch.repair.share(branch.vm.memory());
                branch
            }
        }
    }
}

fn become_branch(
    seed: Result<Box<BranchSeed>, Error>,
    request: &BranchRequest,
    console: UnixStream,
    control: Channel,
) -> ServedGuest {
    if request.hold
        && let Ok(seed) = &seed
        && let Err(error) = hold(seed, &control)
    {
        fail(&control, &error);
    }
    ServedGuest::start(console, control, |output| {
        let BranchSeed { state, memory, held: _ } = *seed?;
        restore(&state, memory, request.announce, output)
    })
}

/// Holds still, so that the memory can be read from outside, until the request to run arrives. Ends this process if the other end
/// of `control` is closed instead.
fn hold(seed: &BranchSeed, control: &Channel) -> Result<(), Error> {
    let host_addresses = seed.memory.host_addresses().collect();
    let state = state_file(&seed.state)?;
    control.send(&GuestReport::Holding { host_addresses, held: seed.held }, &[state.as_fd()])?;
    drop(state);
    match control.receive::<GuestRequest, 0>()? {
        Some((GuestRequest::Run, [])) => Ok(()),
        Some(_) => {
            Err(Error::Refused(String::from("a guest that holds still accepts only the request to run")))
        }
        None => end_at_once(0),
    }
}

/// Reports that the branch was made.
fn report(answers: &Channel, branched: &Branched, copy_bound_bytes: u64) {
    let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let Branched { child, pause, fork_time } = branched;
    let answer = BranchAnswer::Branched {
        pid: child.pid,
        pause_ns: ns(*pause),
        fork_ns: ns(*fork_time),
        copy_bound_bytes,
    };
    // If the caller has gone away, the branch notices by itself.
    let _ = answers.send(&answer, &[child.pidfd.as_fd()]);
}

/// Reports why there is no branch. If the caller has gone away, the answer is dropped.
fn refuse(answers: &Channel, error: &Error) {
    let _ = answers.send(&BranchAnswer::Refused(chain(error)), &[]);
}

/// Reports why there is no machine, and ends this process. If the other end has gone away, the report is dropped.
fn fail(control: &Channel, error: &Error) -> ! {
    let _ = control.send(&GuestReport::Failed(chain(error)), &[]);
    end_at_once(0);
}

/// Bytes of memory that source and branch may come to have twice, if there is room for them: all that belongs to this process alone.
fn admit(backing: &Backing, limits: CopyLimits) -> Result<u64, admission::Error> {
    let needed_bytes = pool::private_bytes()? as u64;
    limits.admit(needed_bytes, backing)?;
    Ok(needed_bytes)
}

/// The guest's console. A guest whose console is closed runs on, and its output is dropped. A vCPU waits while the console is full,
/// except when the machine is being paused: a pause has to wait for the vCPU, so its output is lost then.
struct GuestOutput {
    console: UnixStream,
    drain_now: Arc<AtomicBool>,
}

impl GuestOutput {
    fn new(console: &UnixStream, drain_now: &Arc<AtomicBool>) -> io::Result<Self> {
        let console = console.try_clone()?;
        console.set_write_timeout(Some(CONSOLE_WAIT))?;
        Ok(Self { console, drain_now: Arc::clone(drain_now) })
    }
}

impl Write for GuestOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.console.write(bytes) {
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
                {
                    return Ok(bytes.len());
                }
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock
                        && !self.drain_now.load(Ordering::Relaxed) => {}
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
