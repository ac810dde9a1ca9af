//! Makes large aligned writes from small unaligned parts.
//!
//! Parts are copied, one after the other, into buffers of a few MiB that begin and end at blocks; two threads write full buffers
//! while the next is being filled. So the device always has a write to do, and memory is needed only for [`BUFFERS`] buffers, which
//! are allocated and touched before the mains fail.

use std::io;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use super::files::{BLOCK_BYTES, WriteFile, write_all_at};
use super::gauge::Gauge;
use crate::battery::Clock;
use crate::sync::lock;
use crate::sys::arena::Span;
use vmm::memory::PageSize;

/// Bytes of one write, unless a test needs smaller ones in order to have many.
pub(crate) const BUFFER_BYTES: usize = 4 << 20;
const BUFFERS: usize = 4;
/// Number of writes that the device is given at a time: while it does one, the next is already there.
const WRITERS: usize = 2;

/// The free buffers, and the channel on which used ones come back.
#[derive(Debug)]
pub(super) struct WriteBuffers {
    free: Mutex<Receiver<Span>>,
    give_back: Mutex<Sender<Span>>,
    /// One block of memory for writing the header.
    block: Span,
}

/// A file being written from its second block on.
#[derive(Debug)]
pub(super) struct WriteStream<'a> {
    buffers: &'a WriteBuffers,
    device: &'a DeviceClock<'a>,
    full: Option<Sender<WriteItem>>,
    buffer: Option<Span>,
    filled: usize,
    /// Offset in the file at which the next part goes.
    at: u64,
}

#[derive(Debug)]
struct WriteItem {
    offset: u64,
    buffer: Span,
    len_bytes: usize,
}

/// A write has failed. The writing thread returns the reason.
#[derive(Debug)]
pub(super) struct WritersFailed;

/// Keeps track of the writes: whether one has failed, and for how long the device has had anything to do. That time is reported to
/// the gauge, however many writes there are at a time.
///
/// It is reported when the device has nothing to do, because only then is it known which writes the time was spent on: a write
/// under way may have taken most of it, but its bytes do not count yet.
#[derive(Debug)]
struct DeviceClock<'a> {
    clock: &'a dyn Clock,
    gauge: &'a Gauge,
    state: Mutex<DeviceClockState>,
}

#[derive(Debug, Default)]
struct DeviceClockState {
    writes: usize,
    /// Time of the last report to the gauge, or of the first write since the device was idle. `bytes` were written since then.
    since: Duration,
    bytes: u64,
    failed: bool,
}

/// After this many bytes there is a report even while the device is busy: a write under way makes little difference then.
const MUCH_BYTES: u64 = 64 << 20;

impl<'a> DeviceClock<'a> {
    fn new(clock: &'a dyn Clock, gauge: &'a Gauge) -> Self {
        Self { clock, gauge, state: Mutex::default() }
    }

    fn has_failed(&self) -> bool {
        lock(&self.state).failed
    }

    fn during(&self, bytes: u64, write: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        {
            let mut state = lock(&self.state);
            if state.writes == 0 {
                state.since = self.clock.now();
            }
            state.writes += 1;
        }
        let result = write();
        let mut state = lock(&self.state);
        state.writes -= 1;
        state.bytes += bytes;
        state.failed |= result.is_err();
        if state.writes == 0 || state.bytes >= MUCH_BYTES {
            let now = self.clock.now();
            self.gauge.wrote(state.bytes, now.saturating_sub(state.since));
            (state.since, state.bytes) = (now, 0);
        }
        result
    }
}

impl WriteBuffers {
    /// Makes buffers of `buffer_bytes` bytes each, which must be a multiple of [`BLOCK_BYTES`].
    pub(super) fn new(buffer_bytes: usize) -> io::Result<Self> {
        let (give_back, free) = channel();
        for _ in 0..BUFFERS {
            give_back.send(touched(buffer_bytes)?).expect("the receiver is here");
        }
        Ok(Self { free: Mutex::new(free), give_back: Mutex::new(give_back), block: touched(BLOCK_BYTES)? })
    }

    /// Calls `produce`, which appends parts, and writes these to `file` from its second block on.
    ///
    /// # Errors
    /// The outer error is that of a write that failed; otherwise the inner result is what `produce` returned.
    pub(super) fn write<T, E: From<WritersFailed>>(
        &self,
        file: &dyn WriteFile,
        (clock, gauge): (&dyn Clock, &Gauge),
        produce: impl FnOnce(&mut WriteStream<'_>) -> Result<T, E>,
    ) -> io::Result<Result<T, E>> {
        let (sender, receiver) = channel::<WriteItem>();
        let (receiver, device) = (Mutex::new(receiver), DeviceClock::new(clock, gauge));
        thread::scope(|scope| {
            let write = || self.write_full(file, &receiver, &device);
            let writers: Vec<_> = (0..WRITERS).map(|_| scope.spawn(write)).collect();
            let mut stream = WriteStream {
                buffers: self,
                device: &device,
                full: Some(sender),
                buffer: None,
                filled: 0,
                at: BLOCK_BYTES as u64,
            };
            let produced = produce(&mut stream).and_then(|value| {
                stream.finish()?;
                Ok(value)
            });
            drop(stream);
            writers.into_iter().try_for_each(|writer| writer.join().expect("writing does not panic"))?;
            Ok(produced)
        })
    }

    /// Writes full buffers until there are no more. After a failure, in either thread, buffers are only passed back.
    fn write_full(
        &self,
        file: &dyn WriteFile,
        full: &Mutex<Receiver<WriteItem>>,
        device: &DeviceClock<'_>,
    ) -> io::Result<()> {
        let mut result = Ok(());
        loop {
            // The lock is not held during the write: meanwhile the other thread takes the next buffer.
            let next = lock(full).recv();
            let Ok(WriteItem { offset, buffer, len_bytes }) = next else { return result };
            if !device.has_failed() {
                let write = || write_all_at(file, offset, &buffer.bytes()[..len_bytes]);
                result = device.during(len_bytes as u64, write);
            }
            lock(&self.give_back).send(buffer).expect("the buffers outlive their streams");
        }
    }

    /// Writes the first block of the file.
    pub(super) fn write_block(&mut self, file: &dyn WriteFile, block: &[u8; BLOCK_BYTES]) -> io::Result<()> {
        self.block.bytes_mut().copy_from_slice(block);
        write_all_at(file, 0, self.block.bytes())
    }
}

/// Page-aligned memory that has been written to once, so that the kernel has provided every page.
fn touched(len_bytes: usize) -> io::Result<Span> {
    let mut span = Span::map(len_bytes, PageSize::Base)?;
    span.bytes_mut().fill(0xff);
    Ok(span)
}

impl WriteStream<'_> {
    /// Appends a part, and returns the offset in the file at which it begins.
    pub(super) fn append(&mut self, mut part: &[u8]) -> Result<u64, WritersFailed> {
        let at = self.at;
        while !part.is_empty() {
            if self.buffer.is_none() {
                self.buffer = Some(lock(&self.buffers.free).recv().expect("the buffers have a sender"));
            }
            let buffer = self.buffer.as_mut().expect("taken above").bytes_mut();
            let buffer_bytes = buffer.len();
            let taken = part.len().min(buffer_bytes - self.filled);
            buffer[self.filled..self.filled + taken].copy_from_slice(&part[..taken]);
            part = &part[taken..];
            self.filled += taken;
            self.at += taken as u64;
            if self.filled == buffer_bytes {
                self.send(buffer_bytes)?;
            }
        }
        Ok(at)
    }

    /// Fills the last block up with zeros, and hands over the last buffer.
    fn finish(&mut self) -> Result<(), WritersFailed> {
        let len_bytes = self.filled.next_multiple_of(BLOCK_BYTES);
        if let Some(buffer) = &mut self.buffer {
            buffer.bytes_mut()[self.filled..len_bytes].fill(0);
            self.send(len_bytes)?;
        }
        self.full = None;
        Ok(())
    }

    fn send(&mut self, len_bytes: usize) -> Result<(), WritersFailed> {
        if self.device.has_failed() {
            return Err(WritersFailed);
        }
        let Some(buffer) = self.buffer.take() else { return Ok(()) };
        let offset = self.at - self.filled as u64;
        self.filled = 0;
        let full = self.full.as_ref().expect("open until finished");
        full.send(WriteItem { offset, buffer, len_bytes }).map_err(|unsent| {
            lock(&self.buffers.give_back).send(unsent.0.buffer).expect("the buffers are here");
            WritersFailed
        })
    }
}

impl Drop for WriteStream<'_> {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            lock(&self.buffers.give_back).send(buffer).expect("the buffers are here");
        }
    }
}

#[cfg(test)]
mod tests;
