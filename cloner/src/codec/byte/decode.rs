//! From byte markers to the page.

use crate::format::{PAGE_BYTES, Page, Record, SLACK_BYTES};

use super::super::RecordError;
use super::super::simd::{COPY_BYTES, Kernel, Lanes, Markers, Move, Moves, Window};
use super::steps::{MARKERS, STEPS, Source, Step};
use super::{COUNTS_BYTES, STEP_MAX};

const _: () = assert!(COPY_BYTES == STEP_MAX && COPY_BYTES <= SLACK_BYTES);

/// The steps as the decoder wants them.
static MOVES: Moves = {
    let mut moves = [Move::new(0, 0, false, true); 256];
    let mut marker = 0;
    while marker < MARKERS {
        let Step { literals, length, source } = STEPS[marker];
        let is_new = matches!(source, Source::New);
        moves[marker] = Move::new(literals, length, is_new, matches!(source, Source::Zero | Source::None));
        marker += 1;
    }
    Moves::new(moves)
};

/// Decodes one BYTE-MARKED record: gives the page, in the window.
pub(in super::super) struct ByteDecode<'a> {
    pub record: Record<'a>,
    pub window: &'a mut Window,
}

impl<'a> Kernel for ByteDecode<'a> {
    type Output = Result<&'a Page, RecordError>;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Result<&'a Page, RecordError> {
        let Self { record, window } = self;
        let bytes = record.bytes();
        let length = |needed_bytes| RecordError::Length { needed_bytes, record_bytes: bytes.len() };
        let &[a, b, c] = bytes.first_chunk::<COUNTS_BYTES>().ok_or(length(COUNTS_BYTES))?;
        let counts = u32::from_le_bytes([a, b, c, 0]);
        let (markers, distances) = ((counts & 0xfff) as usize, (counts >> 12) as usize);
        let distances_at = COUNTS_BYTES + markers;
        let literals_at = distances_at + (distances * 12).div_ceil(8);
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
        let markers = Markers::new(lanes, &MOVES, markers);
        if markers.page_bytes() != PAGE_BYTES {
            return Err(RecordError::PageLength { bytes: markers.page_bytes() });
        }
        let needed_bytes = literals_at + markers.literals();
        if markers.distances() != distances || needed_bytes != bytes.len() {
            return Err(length(needed_bytes));
        }
        let bytes = record.with_slack();
        markers.replay(&bytes[distances_at..], &bytes[literals_at..], window);
        Ok(window.page())
    }
}
