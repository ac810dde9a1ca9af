//! Parts of odd sizes through small buffers, to a file that takes less than it is given, and fails.

use std::io;

use super::super::files::tests::{PartialFile, pattern};
use super::*;
use crate::battery::SimulatedClock;
use crate::rate::Rate;

const BLOCK: usize = BLOCK_BYTES;
const RATE: Rate = Rate { bytes_per_second: 1e9, commit: Duration::ZERO };

fn write(
    buffers: &WriteBuffers,
    file: &PartialFile,
    parts: &[&[u8]],
) -> io::Result<Result<Vec<u64>, WritersFailed>> {
    let (clock, gauge) = (SimulatedClock::default(), Gauge::new(RATE, u64::MAX));
    buffers.write(file, (&clock, &gauge), |stream| parts.iter().map(|part| stream.append(part)).collect())
}

#[test]
fn parts_of_any_size_lie_one_after_the_other_and_zeros_fill_the_last_block() {
    let sizes: [&[usize]; 8] = [
        &[],
        &[0],
        &[1],
        &[BLOCK - 1, 1, BLOCK, 1],
        &[2 * BLOCK],
        &[2 * BLOCK, 0, 2 * BLOCK + 1],
        &[17 * BLOCK - 3, 2, 1],
        &[5, 3 * BLOCK, 4095, 4097, 60_000],
    ];
    for (sizes, buffer_blocks) in sizes.into_iter().flat_map(|sizes| [1, 2, 16].map(|blocks| (sizes, blocks)))
    {
        let buffers = WriteBuffers::new(buffer_blocks * BLOCK).unwrap();
        let bytes = pattern(sizes.iter().sum());
        let mut rest = &bytes[..];
        let parts: Vec<&[u8]> = sizes.iter().map(|size| rest.split_off(..*size).unwrap()).collect();
        // Twice: buffers that were used before hold the bytes of another file.
        for _ in 0..2 {
            let file = PartialFile::new(Vec::new(), [Err(io::ErrorKind::Interrupted.into()), Ok(BLOCK)]);
            let offsets = write(&buffers, &file, &parts).unwrap().unwrap();
            let starts = sizes.iter().scan(BLOCK as u64, |at, size| {
                let start = *at;
                *at += *size as u64;
                Some(start)
            });
            assert!(offsets.iter().copied().eq(starts), "{sizes:?}");
            let found = lock(&file.bytes).clone();
            let padded = bytes.len().next_multiple_of(BLOCK);
            let expected = [
                vec![0; if bytes.is_empty() { 0 } else { BLOCK }],
                bytes.clone(),
                vec![0; padded - bytes.len()],
            ];
            assert!(found == expected.concat(), "{sizes:?} through buffers of {buffer_blocks} blocks");
        }
    }
}

#[test]
fn a_write_that_fails_ends_the_file_and_gives_all_buffers_back() {
    let buffers = WriteBuffers::new(BLOCK).unwrap();
    let bytes = pattern(64 * BLOCK);
    for at in [0, 1, 2, 5, 63] {
        let script = (0..at).map(|_| Ok(BLOCK)).chain([Err(io::ErrorKind::StorageFull.into())]);
        let file = PartialFile::new(Vec::new(), script);
        let error = write(&buffers, &file, &[&bytes[..100], &bytes]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull, "write {at}");
        let free: Vec<Span> = lock(&buffers.free).try_iter().collect();
        assert_eq!(free.len(), BUFFERS, "write {at}");
        free.into_iter().for_each(|buffer| lock(&buffers.give_back).send(buffer).unwrap());
    }
    let refused = buffers.write(
        &PartialFile::default(),
        (&SimulatedClock::default(), &Gauge::new(RATE, 1)),
        |stream| {
            stream.append(&bytes[..10])?;
            Err::<(), _>(WritersFailed)
        },
    );
    assert!(refused.unwrap().is_err(), "the producer's own error comes back");
    let file = PartialFile::default();
    write(&buffers, &file, &[&bytes]).unwrap().unwrap();
    assert!(lock(&file.bytes)[BLOCK..] == bytes[..], "the buffers can be used again");
}

#[test]
fn the_first_block_is_written_alone() {
    let mut buffers = WriteBuffers::new(BLOCK).unwrap();
    let file = PartialFile::new(vec![0xee; 2 * BLOCK], [Err(io::ErrorKind::Interrupted.into())]);
    let block: [u8; BLOCK] = pattern(BLOCK).try_into().unwrap();
    buffers.write_block(&file, &block).unwrap();
    assert!(*lock(&file.bytes) == [block.to_vec(), vec![0xee; BLOCK]].concat());
}

#[test]
fn only_the_time_during_which_the_device_had_work_counts() {
    let clock = SimulatedClock::default();
    let gauge = Gauge::new(Rate { bytes_per_second: 1e12, commit: Duration::ZERO }, 1);
    let device = DeviceClock::new(&clock, &gauge);
    let working = |seconds| {
        clock.advance(Duration::from_secs(seconds));
        Ok(())
    };
    clock.advance(Duration::from_secs(100));
    // Two writes at a time: 1000 and 2000 bytes in 3 seconds.
    let inner = || device.during(2000, || working(1));
    device.during(1000, || inner().and_then(|()| working(2))).unwrap();
    assert!((gauge.rate().bytes_per_second - 1000.0).abs() < 1e-6, "{:?}", gauge.rate());
    assert!(!device.has_failed());
    clock.advance(Duration::from_secs(100));
    // A device that is never idle reports after much has been written.
    let busy = || device.during(MUCH_BYTES, || working(1 << 20));
    device
        .during(0, || busy().map(|()| assert!((gauge.rate().bytes_per_second - 64.0).abs() < 1e-6)))
        .unwrap();
}

#[test]
fn a_later_success_does_not_undo_a_failure() {
    let (clock, gauge) = (SimulatedClock::default(), Gauge::new(RATE, u64::MAX));
    let device = DeviceClock::new(&clock, &gauge);
    device.during(1, || Ok(())).unwrap();
    assert!(!device.has_failed());
    device.during(1, || Err(io::ErrorKind::StorageFull.into())).unwrap_err();
    device.during(1, || Ok(())).unwrap();
    assert!(device.has_failed());
}
