//! Runs the program under test as a user does.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::console::Console;
use crate::room::may_set_huge_pages_aside;

/// Far longer than anything takes on an idle machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// A program that Cargo has built, not yet running.
#[derive(Debug, Clone, Copy)]
pub struct Executable(&'static str);

/// A running program, which is killed when this is dropped.
pub struct Program {
    child: Child,
    /// Its standard output so far.
    pub stdout: Console,
    stderr: Console,
    readers: Vec<JoinHandle<()>>,
}

/// What a program that ended by itself leaves.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code.
    pub code: i32,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

impl Executable {
    /// The file at this path, which Cargo tells the tests of a package: `env!("CARGO_BIN_EXE_cloner")`.
    #[must_use]
    pub const fn at(path: &'static str) -> Self {
        Self(path)
    }

    /// Where the file is.
    #[must_use]
    pub fn path(self) -> &'static Path {
        Path::new(self.0)
    }

    /// The command that runs it with these arguments.
    #[must_use]
    pub fn command(self, args: &[&str]) -> Command {
        let mut command = Command::new(self.0);
        command.args(args);
        command
    }

    /// Starts it.
    #[track_caller]
    #[must_use]
    pub fn start(self, args: &[&str]) -> Program {
        Program::start(&mut self.command(args))
    }

    /// Runs it to its end.
    #[track_caller]
    #[must_use]
    pub fn run(self, args: &[&str]) -> Outcome {
        self.start(args).finish()
    }

    /// Runs it to its end, with `input` on its standard input.
    #[track_caller]
    #[must_use]
    pub fn run_with_input(self, args: &[&str], input: &str) -> Outcome {
        let mut program = Program::start(self.command(args).stdin(Stdio::piped()));
        program.child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        program.finish()
    }
}

impl Program {
    /// Starts a command, with both of its outputs collected.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, out) = Console::new(PATIENCE);
        let (stderr, err) = Console::new(PATIENCE);
        let readers =
            vec![copy_all(child.stdout.take().unwrap(), out), copy_all(child.stderr.take().unwrap(), err)];
        Self { child, stdout, stderr, readers }
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until the program has ended by itself.
    #[track_caller]
    pub fn finish(self) -> Outcome {
        self.finish_if_not_killed().expect("not killed by a signal")
    }

    /// Waits until the program has ended. `None` if a signal ended it.
    #[track_caller]
    pub fn finish_if_not_killed(mut self) -> Option<Outcome> {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            let (stdout, stderr) = (&self.stdout, &self.stderr);
            assert!(
                Instant::now() < deadline,
                "still running:\n{}\n{}",
                stdout.transcript(),
                stderr.transcript()
            );
            thread::sleep(Duration::from_millis(5));
        };
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        let (stdout, stderr) = (self.stdout.transcript(), self.stderr.transcript());
        Some(Outcome { code: status.code()?, stdout, stderr })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // The program has usually ended already, and then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Outcome {
    /// Asserts that the program did what it was told and printed nothing on standard error, except which pages a pool has that
    /// could not get huge ones.
    #[track_caller]
    pub fn assert_done(&self) {
        assert!(self.code == 0 && is_quiet(&self.stderr), "{self:?}");
    }

    /// Asserts that the program ended with this code, named all of `parts` on standard error, and did not panic.
    #[track_caller]
    pub fn assert_failed(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is missing in {:?}", self.stderr);
        }
    }
}

/// Whether standard error is empty or, for a user who may not set huge pages aside, says only which pages the pool has.
pub fn is_quiet(stderr: &str) -> bool {
    let about_pages = |line: &str| line.starts_with("cloner: pool on ordinary pages: ");
    stderr.is_empty()
        || may_set_huge_pages_aside().is_err() && stderr.lines().count() == 1 && about_pages(stderr)
}

fn copy_all(mut from: impl io::Read + Send + 'static, mut to: impl Write + Send + 'static) -> JoinHandle<()> {
    thread::spawn(move || {
        // The end of a terminal shows as an error.
        let _ = io::copy(&mut from, &mut to);
    })
}
