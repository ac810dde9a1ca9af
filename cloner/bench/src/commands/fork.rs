//! `cloner-bench fork`: measures how long a fork takes, compared with the bare KVM calls, and how many forks can live at once.

use std::borrow::Cow;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use guest_images::pulse::Params;
use rustix::process::{Resource, Rlimit, WaitId, WaitIdOptions, getrlimit, setrlimit, waitid};
use serde::Serialize;
use vmm::config::{Config, Kernel};
use vmm::host::fork::{ForkSide, fork};
use vmm::host::memory::host_available_bytes;
use vmm::{Announce, Vm};

use super::times::Milliseconds;
use crate::sys::end_at_once;
use cloner::moment::Moment;
use cloner::pool::Pool;
use cloner::process::GuestProcess;
use cloner::process::fork::Zygote;
use cloner::progress::Watch;
use cloner::restore::{Restorer, Template};
use cloner::save::{SaveOptions, Saver};
use cloner::walk::Threads;
use cloner_cli::columns::Columns;
use cloner_cli::console::Console;
use cloner_cli::guest::{default_touched, random_nonce};
use cloner_cli::known::KnownGuest;
use cloner_cli::pages::PoolArgs;
use cloner_cli::progress::Spinner;
use cloner_cli::size::Size;
use cloner_cli::threads;
use cloner_cli::{Error, interrupt};

const EXAMPLES: &str = "\
Examples:
  cloner-bench fork --count 2000              two thousand forks alive at once
  cloner-bench fork --linux --memory 128M     a tiny Linux, quiet: how many fit
  cloner-bench fork --memory 4G --touched 1G  the size of the memory does not matter
  cloner-bench fork --json | jq .fork.to_first_output_ms

Every living fork is asked for its nonce. Then, while all of them live, forks of a guest that only prints are timed in turn
with the floor: fork() and the KVM calls that build the same machine, in a straight line without threads, devices or console.
The exit code is 1 if any fork did not answer.";

/// A guest that only writes to its console: mov dx, 0x3f8; mov al, '.'; again: out dx, al; jmp again.
const WRITES_DOTS: [u8; 9] = [0x66, 0xba, 0xf8, 0x03, 0xb0, b'.', 0xee, 0xeb, 0xfd];
const BOOT_LIMIT: Duration = Duration::from_secs(300);
/// Number of forks that are timed in turn with the floor, while all others are alive.
const TIMED: usize = 60;
/// Descriptors that each living fork takes in this process: console, control, pidfd.
const FDS_PER_FORK: u64 = 3;

/// Options of `cloner-bench fork`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Memory of each guest, 1M to 64G
    #[arg(long, value_name = "SIZE", default_value = "256M")]
    memory: Size,
    /// Memory that the template has filled (default: a quarter of its memory)
    #[arg(long, value_name = "SIZE", conflicts_with = "linux")]
    touched: Option<Size>,
    /// Keep forks of a tiny Linux alive instead of the built-in bare-metal guest; builds it first if necessary
    #[arg(long)]
    linux: bool,
    /// Forks to keep alive at once
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    count: u16,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pool: PoolArgs,
}

#[derive(Debug, Serialize)]
struct Forks {
    guest: &'static str,
    count: usize,
    memory_bytes: u64,
    to_return_ms: Milliseconds,
    to_first_output_ms: Milliseconds,
    floor_ms: Milliseconds,
    private_bytes_per_fork: u64,
    /// Bytes by which the host's available memory shrank, per fork.
    host_bytes_per_fork: u64,
    all_ms: f64,
}

pub(crate) fn run(args: &Args) -> Result<u8, Error> {
    let count = usize::from(args.count);
    raise_descriptor_limit(u64::from(args.count) * FDS_PER_FORK + 256)?;
    let program = std::env::current_exe().map_err(Error::Program)?;
    let guest = if args.linux {
        KnownGuest::linux()?
    } else {
        let touched = args.touched.map_or_else(|| default_touched(args.memory.0), |size| size.0) & !0xfff;
        KnownGuest::pulse_with(&Params { beat_ms: 0, ..Params::new(random_nonce()?, touched) })?
    };
    let pool = args.pool.open(guest.touched_at_most(args.memory.0) + (16 << 20))?;

    let (idle, nonce) = idle_template(args, &pool.pool, &guest)?;
    let dots = dots_template(args, &pool.pool)?;
    let (idle_zygote, dots_zygote) = (Zygote::start(&program, &idle)?, Zygote::start(&program, &dots)?);
    let floor = Floor::start(&program, &dots)?;

    let available = available_bytes()?;
    let started = Instant::now();
    let spinner = Spinner::new(format!("starting {count} forks"));
    let mut alive = Vec::with_capacity(count);
    for _ in 0..count {
        if interrupt::requested() {
            return Err(Error::Interrupted);
        }
        alive.push(idle_zygote.fork(Announce::Never)?);
    }
    for fork in &alive {
        answers(fork, &guest, &nonce)?;
    }
    let all = started.elapsed();
    drop(spinner);
    let host_bytes = available.saturating_sub(available_bytes()?);
    let private_bytes: u64 =
        alive.iter().map(private_bytes).sum::<io::Result<u64>>().map_err(Error::Program)?;

    let (mut to_return, mut to_first_output, mut floors) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TIMED {
        let requested = Instant::now();
        let fork = dots_zygote.fork(Announce::Never)?;
        to_return.push(requested.elapsed());
        first_byte(&mut fork.console())?;
        to_first_output.push(requested.elapsed());
        fork.end()?;
        floors.push(floor.once()?);
    }
    for fork in alive {
        fork.end()?;
    }
    let report = Forks {
        guest: guest.name(),
        count,
        memory_bytes: args.memory.0,
        to_return_ms: Milliseconds::of(&to_return),
        to_first_output_ms: Milliseconds::of(&to_first_output),
        floor_ms: Milliseconds::of(&floors),
        private_bytes_per_fork: private_bytes / u64::from(args.count),
        host_bytes_per_fork: host_bytes / u64::from(args.count),
        all_ms: all.as_secs_f64() * 1e3,
    };
    super::print("fork", &report, args.json, || report.table())?;
    Ok(0)
}

/// Makes a template of a guest that is ready and idle; returns it with the guest's nonce.
fn idle_template(args: &Args, pool: &Pool, guest: &KnownGuest) -> Result<(Template, String), Error> {
    let console = Console::new();
    let config = Config::new(args.memory.0, guest.kernel());
    let source = Vm::boot(&config, console.writer()).map_err(Error::source_vm)?;
    source.start();
    let _spinner = Spinner::new(String::from("booting the template"));
    let silent = |wanted| Error::silent("the template", wanted, BOOT_LIMIT, source.ending());
    let nonce = console.wait_for(&source, 0, BOOT_LIMIT, |line| guest.ready(line));
    let nonce = nonce.ok_or_else(|| silent(guest.ready_text()))?;
    if let Some((command, answer)) = guest.quiet() {
        source.console_input(command);
        let quiet = console.wait_for(&source, 0, BOOT_LIMIT, |line| (line == answer).then_some(()));
        quiet.ok_or_else(|| silent(answer))?;
    }
    Ok((template_of(&source, pool)?, nonce))
}

/// Makes a template of a guest that writes dots.
fn dots_template(args: &Args, pool: &Pool) -> Result<Template, Error> {
    let config = Config::new(args.memory.0, Kernel::Flat { image: Cow::Borrowed(&WRITES_DOTS) });
    let source = Vm::boot(&config, Box::new(io::sink())).map_err(Error::source_vm)?;
    source.start();
    std::thread::sleep(Duration::from_millis(20));
    template_of(&source, pool)
}

fn template_of(source: &Vm, pool: &Pool) -> Result<Template, Error> {
    let reservation = pool.reserve("template")?;
    let paused = source.pause().map_err(Error::source_vm)?;
    let threads = Threads::new(threads())?;
    let saver = Saver::new(&threads);
    let snapshot = saver.save(Moment::of(&paused)?, reservation, &SaveOptions::default())?.snapshot;
    drop(paused);
    let template = Restorer::new(&threads).template(&snapshot, Watch::default())?;
    drop(snapshot);
    pool.remove("template")?;
    Ok(template)
}

/// Asks a fork for its nonce and checks the answer.
fn answers(fork: &GuestProcess, guest: &KnownGuest, nonce: &str) -> Result<(), Error> {
    let mut console = fork.console();
    console.set_read_timeout(Some(BOOT_LIMIT)).map_err(Error::Program)?;
    console.write_all(guest.question()).map_err(Error::Program)?;
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\n") {
        console.read_exact(&mut byte).map_err(Error::Program)?;
        answer.push(byte[0]);
    }
    let answer = String::from_utf8_lossy(&answer);
    if guest.nonce(answer.trim_end()).as_deref() == Some(nonce) {
        return Ok(());
    }
    Err(Error::NotVerified(format!("a fork answered {:?}, not with the nonce {nonce}", answer.trim())))
}

/// Bytes that the host could still hand out.
fn available_bytes() -> Result<u64, Error> {
    let unknown =
        || Error::NotVerified(String::from("this kernel does not say how much memory is available"));
    host_available_bytes().ok_or_else(unknown)
}

fn first_byte(stream: &mut impl Read) -> Result<(), Error> {
    stream.read_exact(&mut [0]).map_err(Error::Program)
}

/// Bytes of memory that the fork does not share.
fn private_bytes(fork: &GuestProcess) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", fork.pid()))?;
    let private = text.lines().filter(|line| line.starts_with("Private_"));
    let kib = private.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    Ok(kib.sum::<u64>() * 1024)
}

fn raise_descriptor_limit(wanted: u64) -> Result<(), Error> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    if limit.maximum.is_some_and(|maximum| maximum < wanted) {
        let most = limit.maximum.unwrap_or(0);
        let why = format!("this many forks need {wanted} descriptors, but the limit (ulimit -Hn) is {most}");
        return Err(Error::Usage(why));
    }
    let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).map_err(|errno| Error::Program(errno.into()))
}

/// A child process that does for each request what [`vmm::machine::floor`] does.
struct Floor {
    socket: UnixStream,
    process: Child,
}

impl Floor {
    fn start(program: &std::path::Path, template: &Template) -> Result<Self, Error> {
        let (socket, theirs) = UnixStream::pair().map_err(Error::Program)?;
        // By the names that /proc gives them: this process lives as long as the child needs them.
        let path = |fd: i32| format!("/proc/{}/fd/{fd}", std::process::id());
        let process = Command::new(program)
            .args(["floor", &path(template.file().as_raw_fd()), &path(template.saved_state().as_raw_fd())])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .map_err(Error::Program)?;
        let mut floor = Self { socket, process };
        first_byte(&mut floor.socket)?;
        Ok(floor)
    }

    fn once(&self) -> Result<Duration, Error> {
        let requested = Instant::now();
        let mut socket = &self.socket;
        socket.write_all(&[0]).map_err(Error::Program)?;
        first_byte(&mut socket)?;
        let time = requested.elapsed();
        // As with a fork that has ended, the remains of one round must not slow down the next.
        first_byte(&mut socket)?;
        Ok(time)
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // The child ends when it can read no more; an error means that it has already ended.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let _ = self.process.wait();
    }
}

/// `cloner floor`: runs the child process of [`Floor`], with its socket as standard input.
pub(crate) fn serve_floor(memory: &str, state: &str) -> Result<u8, Error> {
    let open = |path| fs::File::open(path).map_err(Error::Program);
    let template = Template::received(open(memory)?, open(state)?)?;
    vmm::host::Host::get().map_err(|error| Error::NotVerified(error.to_string()))?;
    let stdin = rustix::io::dup(io::stdin()).map_err(|errno| Error::Program(errno.into()))?;
    let mut socket = UnixStream::from(stdin);
    socket.write_all(&[0]).map_err(Error::Program)?;
    let mut request = [0];
    while socket.read(&mut request).map_err(Error::Program)? == 1 {
        let ForkSide::Parent(child) = fork()? else {
            let mut run = || -> Result<(), Error> {
                let memory = template.memory().map_err(|error| Error::source_vm(error.into()))?;
                let mut told = Ok(());
                vmm::machine::floor::run_to_first_output(template.state(), memory, || {
                    told = socket.write_all(&[0]);
                })
                .map_err(Error::source_vm)?;
                told.map_err(Error::Program)
            };
            end_at_once(u8::from(run().is_err()));
        };
        let status = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED);
        let status = status.map_err(|errno| Error::Program(errno.into()))?;
        if status.is_none_or(|status| status.exit_status() != Some(0)) {
            return Err(Error::NotVerified(String::from("the floor of the bench did not run")));
        }
        socket.write_all(&[0]).map_err(Error::Program)?;
    }
    Ok(0)
}

impl Forks {
    fn table(&self) -> String {
        let mut columns = Columns::new(["milliseconds", "p50", "p99", "max"]);
        let rows = [
            ("request to return", self.to_return_ms),
            ("request to first output", self.to_first_output_ms),
            ("floor to first output", self.floor_ms),
        ];
        for (name, Milliseconds { p50, p99, max }) in rows {
            columns.row([String::from(name), format!("{p50:.2}"), format!("{p99:.2}"), format!("{max:.2}")]);
        }
        format!(
            "forks     {} of {} alive at once, {} of memory each\n\
             answered  all, {:.0} ms after the first was asked for\n\
             memory    {} private, {} of the host's, per fork\n\
             floor     first output at {:.2} × the bare KVM calls\n\n{columns}",
            self.count,
            self.guest,
            Size(self.memory_bytes),
            self.all_ms,
            Size(self.private_bytes_per_fork),
            Size(self.host_bytes_per_fork),
            self.to_first_output_ms.p50 / self.floor_ms.p50,
        )
    }
}
