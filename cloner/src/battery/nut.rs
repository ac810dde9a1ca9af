//! A real UPS, asked through the network protocol of NUT's `upsd` (RFC 9271).
//!
//! ```text
//! ► GET VAR ups ups.status          ◄ VAR ups ups.status "OB DISCHRG"
//! ► GET VAR ups battery.charge      ◄ VAR ups battery.charge "87.3"
//! ```
//!
//! Only variables are read, which needs no account. The server is not trusted: lines are bounded, waiting is bounded, and after any
//! error a new connection is made.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::NutError;
use super::source::{Charge, Mains, PowerReading, PowerSource, SourceError};

/// The TCP port of `upsd`.
pub const NUT_PORT: u16 = 3493;
/// The longest time that the server may take for one step: connecting, taking a question, or answering.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest line that is read. Lines of the protocol are far shorter.
const LINE_BYTES_MAX: u64 = 1024;

/// One UPS of one server.
#[derive(Debug)]
pub struct NutSource {
    ups: String,
    server: String,
    connection: Option<BufReader<TcpStream>>,
}

impl NutSource {
    /// Makes a source for the UPS named `ups` at `server`, which is `HOST:PORT`. Does not connect yet.
    #[must_use]
    pub fn new(ups: &str, server: &str) -> Self {
        // A name with a line end in it would become a second command.
        let ups = ups.chars().filter(|c| !c.is_control() && !c.is_whitespace()).collect();
        Self { ups, server: server.to_owned(), connection: None }
    }

    fn reading(&mut self) -> Result<PowerReading, NutError> {
        let status = self.variable("ups.status")?;
        let flags: Vec<&str> = status.split_ascii_whitespace().collect();
        let has = |flag: &str| flags.contains(&flag);
        let mains = if has("OL") && !has("OB") && !has("FSD") { Mains::Present } else { Mains::Failed };
        let charge = match self.variable("battery.charge") {
            Ok(percent) => percent
                .trim()
                .parse::<f64>()
                .map_or(Charge::Unknown, |percent| Charge::Share(percent / 100.0)),
            // Many UPSs do not measure the charge.
            Err(NutError::Refused { .. }) => Charge::Unknown,
            Err(other) => return Err(other),
        };
        Ok(PowerReading { mains, charge, low: has("LB") || has("FSD") })
    }

    fn variable(&mut self, variable: &'static str) -> Result<String, NutError> {
        let Self { ups, server, connection } = self;
        let broken = |step| {
            let server = server.clone();
            move |source| NutError::Connection { server, step, source }
        };
        let stream = match connection {
            Some(stream) => stream,
            None => connection.insert(connect(server).map_err(broken("connect to"))?),
        };
        let question = format!("GET VAR {ups} {variable}\n");
        stream.get_mut().write_all(question.as_bytes()).map_err(broken("ask"))?;
        let mut answer = String::new();
        let read =
            stream.by_ref().take(LINE_BYTES_MAX).read_line(&mut answer).map_err(broken("hear from"))?;
        if read == 0 {
            return Err(broken("hear from")(io::ErrorKind::UnexpectedEof.into()));
        }
        let answer = answer.trim_end();
        if answer.starts_with("ERR ") {
            let (server, ups, answer) = (server.clone(), ups.clone(), answer.to_owned());
            return Err(NutError::Refused { server, ups, variable, answer });
        }
        let value = answer
            .strip_prefix(&format!("VAR {ups} {variable} \""))
            .and_then(|rest| rest.strip_suffix('"'))
            .ok_or_else(|| NutError::Protocol { server: server.clone(), answer: answer.to_owned() })?;
        Ok(value.to_owned())
    }
}

fn connect(server: &str) -> io::Result<BufReader<TcpStream>> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in server.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                return Ok(BufReader::new(stream));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl PowerSource for NutSource {
    fn read(&mut self) -> Result<PowerReading, SourceError> {
        let reading = self.reading();
        if reading.is_err() {
            self.connection = None;
        }
        Ok(reading?)
    }

    fn name(&self) -> String {
        format!("{}@{}", self.ups, self.server)
    }
}
