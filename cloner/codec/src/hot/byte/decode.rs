//! From byte markers to the page.

use crate::chunk::{PAGE_BYTES, Page, SLACK_BYTES};
use crate::hot::Record;

use super::super::simd::{Kernel, Lanes, MoveTable, Replay, Window};
use super::super::window::COPY_BYTES;
use super::steps::{MARKERS, STEPS, Step, VectorSource};
use super::{COUNTS_BYTES, distance_bytes};
use crate::chunk::RecordError;

const _: () = assert!(COPY_BYTES <= SLACK_BYTES);

/// The steps, in the form that the decoder wants them in.
static TABLE: MoveTable = {
    let mut table = MoveTable::new();
    let mut marker = 0;
    while marker < MARKERS {
        let Step { literals, length, source } = STEPS[marker];
        let is_zeros = matches!(source, VectorSource::Zero | VectorSource::None);
        table.set(marker, literals, length, matches!(source, VectorSource::New), is_zeros);
        marker += 1;
    }
    table
};

/// Decodes one BYTE-MARKED record and returns the page, which lies in the window.
pub(in super::super) struct ByteDecode<'a> {
    pub record: Record<'a>,
    pub window: &'a mut Window,
}

impl<'a> Kernel for ByteDecode<'a> {
    type Output = Result<&'a Page, RecordError>;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Self::Output {
        let mut record = OpenRecord::new(self.record, self.window)?;
        record.replay.build(lanes, &TABLE);
        record.finish()
    }
}

/// Decodes two BYTE-MARKED records at once; returns the pages, which lie in the windows, or which of the two records is wrong.
pub(in super::super) struct ByteDecodeBoth<'a> {
    pub records: [Record<'a>; 2],
    pub windows: [&'a mut Window; 2],
}

impl<'a> Kernel for ByteDecodeBoth<'a> {
    type Output = Result<[&'a Page; 2], (usize, RecordError)>;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Self::Output {
        let Self { records: [first, second], windows: [first_window, second_window] } = self;
        let mut first = OpenRecord::new(first, first_window).map_err(|wrong| (0, wrong))?;
        let mut second = OpenRecord::new(second, second_window).map_err(|wrong| (1, wrong))?;
        first.replay.build_both(&mut second.replay, lanes, &TABLE);
        let first = first.finish().map_err(|wrong| (0, wrong))?;
        let second = second.finish().map_err(|wrong| (1, wrong))?;
        Ok([first, second])
    }
}

/// A record taken apart, and the page that is built from it.
struct OpenRecord<'a> {
    replay: Replay<'a>,
    markers: &'a [u8],
    /// Number of distances in the record.
    distances: usize,
    /// Byte of the record at which its literals start.
    literals_at: usize,
    record_bytes: usize,
}

impl<'a> OpenRecord<'a> {
    #[inline(always)]
    fn new(record: Record<'a>, window: &'a mut Window) -> Result<Self, RecordError> {
        let (bytes, with_slack) = (record.bytes(), record.with_slack());
        let length = |needed_bytes| RecordError::Length { needed_bytes, record_bytes: bytes.len() };
        let &[a, b, c] = bytes.first_chunk::<COUNTS_BYTES>().ok_or(length(COUNTS_BYTES))?;
        let counts = u32::from_le_bytes([a, b, c, 0]);
        let (markers, distances) = ((counts & 0xfff) as usize, (counts >> 12) as usize);
        let distances_at = COUNTS_BYTES + markers;
        let literals_at = distances_at + distance_bytes(distances);
        if literals_at > bytes.len() {
            return Err(length(literals_at));
        }
        if distances % 2 == 1 && bytes[literals_at - 1] >> 4 != 0 {
            return Err(RecordError::Padding);
        }
        let markers = &bytes[COUNTS_BYTES..distances_at];
        let highest = markers.iter().fold(0, |highest, &marker| highest.max(marker));
        if usize::from(highest) >= MARKERS {
            return Err(RecordError::Marker { marker: highest });
        }
        let replay = Replay::new(markers, &with_slack[distances_at..], &with_slack[literals_at..], window);
        Ok(Self { replay, markers, distances, literals_at, record_bytes: bytes.len() })
    }

    /// The page, if it was built to its end and took everything the record has.
    #[inline(always)]
    fn finish(self) -> Result<&'a Page, RecordError> {
        let Self { replay, distances, literals_at, record_bytes, .. } = &self;
        if !replay.took(*distances, record_bytes - literals_at) {
            return Err(self.wrong_sums());
        }
        Ok(self.replay.into_page())
    }

    /// What is wrong with a record whose markers do not take all it has, or do not make a page.
    #[cold]
    fn wrong_sums(&self) -> RecordError {
        let &Self { markers, record_bytes, .. } = self;
        let steps = || markers.iter().map(|&marker| STEPS[usize::from(marker)]);
        let literals: usize = steps().map(|step| usize::from(step.literals)).sum();
        let bytes = literals + steps().map(|step| usize::from(step.length)).sum::<usize>();
        if bytes != PAGE_BYTES {
            return RecordError::PageLength { bytes };
        }
        let distances = steps().filter(|step| step.source == VectorSource::New).count();
        let needed_bytes = COUNTS_BYTES + markers.len() + distance_bytes(distances) + literals;
        RecordError::Length { needed_bytes, record_bytes }
    }
}
