//! A real UPS, asked through the network protocol of NUT's `upsd` (RFC 9271).
//!
//! ```text
//! ► GET VAR ups ups.status          ◄ VAR ups ups.status "OB DISCHRG"
//! ► GET VAR ups battery.charge      ◄ VAR ups battery.charge "87.3"
//! ```
//!
//! Only variables are read, which needs no account. The server is not trusted: lines are bounded, waiting is bounded, and after any
//! error a new connection is made.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::NutError;
use super::source::{Charge, Mains, PowerReading, PowerSource, SourceError};

/// The TCP port of `upsd`.
pub const NUT_PORT: u16 = 3493;
/// The longest time that the server may take for one step: connecting, taking a question, or answering.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest line that is read. Lines of the protocol are far shorter.
const LINE_BYTES_MAX: usize = 1024;

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
        let asked = Instant::now();
        let answer = read_line(stream, || asked.elapsed() > PATIENCE).map_err(broken("hear from"))?;
        // A line that was cut off may look like a complete answer: a value can contain quotes.
        let Some(answer) = answer.strip_suffix('\n').map(str::trim_end) else {
            return Err(NutError::Protocol { server: server.clone(), answer });
        };
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

/// The next line, with its end. One that is longer than [`LINE_BYTES_MAX`] is cut off, and then has none.
///
/// # Errors
/// `UnexpectedEof` if the stream ends before the line does, `TimedOut` once `is_over` says that the server has had its time,
/// `InvalidData` if the line is not UTF-8; otherwise the stream's error.
fn read_line(stream: &mut impl BufRead, is_over: impl Fn() -> bool) -> io::Result<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") && line.len() < LINE_BYTES_MAX {
        // A server that sends a byte now and then never lets the stream's own limit pass.
        if is_over() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let bytes = match stream.fill_buf() {
            Ok([]) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => &bytes[..bytes.len().min(LINE_BYTES_MAX - line.len())],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let used = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| end + 1);
        line.extend_from_slice(&bytes[..used]);
        stream.consume(used);
    }
    String::from_utf8(line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Read;

    use super::*;

    const LINES: &[u8] = b"VAR u ups.status \"OL\"\n\nERR VAR-NOT-SUPPORTED\n";

    fn line(mut stream: impl BufRead) -> io::Result<String> {
        read_line(&mut stream, || false)
    }

    #[test]
    fn lines_are_the_same_however_they_are_split_over_reads() {
        for capacity in 1..=LINES.len() {
            let mut stream = BufReader::with_capacity(capacity, LINES);
            for expected in str::from_utf8(LINES).unwrap().split_inclusive('\n') {
                assert_eq!(line(&mut stream).unwrap(), expected, "{capacity} bytes at a time");
            }
            assert_eq!(line(&mut stream).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn a_line_without_its_end_is_not_an_answer() {
        for end in 0..LINES.iter().position(|byte| *byte == b'\n').unwrap() {
            assert_eq!(line(&LINES[..end]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{end} bytes");
        }
        for (spaces, ends) in [(0, true), (LINE_BYTES_MAX - 1, true), (LINE_BYTES_MAX, false), (5000, false)]
        {
            let bytes = [[b' '].repeat(spaces), b"\nnext".to_vec()].concat();
            let found = line(BufReader::with_capacity(700, &bytes[..])).unwrap();
            assert_eq!((found.ends_with('\n'), found.len()), (ends, LINE_BYTES_MAX.min(spaces + 1)));
        }
    }

    /// Gives one byte in each read, and is interrupted before each.
    struct Dripping<'a> {
        bytes: &'a [u8],
        reads: &'a Cell<usize>,
    }

    impl Read for Dripping<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.reads.set(self.reads.get() + 1);
            if self.reads.get() % 2 == 1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            self.bytes.read(&mut buffer[..1])
        }
    }

    #[test]
    fn a_server_that_sends_byte_by_byte_has_no_more_time_than_any_other() {
        let reads = Cell::new(0);
        let dripping = || BufReader::new(Dripping { bytes: LINES, reads: &reads });
        assert_eq!(line(dripping()).unwrap(), "VAR u ups.status \"OL\"\n");
        reads.set(0);
        let late = read_line(&mut dripping(), || reads.get() >= 10);
        assert_eq!((late.unwrap_err().kind(), reads.get()), (io::ErrorKind::TimedOut, 10));
    }
}
