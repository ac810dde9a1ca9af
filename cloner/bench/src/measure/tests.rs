use std::fs;
use std::time::Duration;

use cloner_codec::chunk::{CodecError, PAGE_BYTES, PageKind};
use cloner_codec::cold::{self, VerifiedColdChunk};
use cloner_codec::hot::{Encoder, EncoderOptions, VerifiedChunk};

use cloner::progress::Cancel;
use cloner::walk::Threads;
use cloner_testing::image;

use super::*;

#[test]
fn medians_and_percentiles_are_values_that_were_measured() {
    let times = |values: &[u64]| values.iter().map(|&ms| Duration::from_millis(ms)).collect::<Vec<_>>();
    assert_eq!(median(&times(&[])), Duration::ZERO);
    assert_eq!(median(&times(&[9])), Duration::from_millis(9));
    assert_eq!(median(&times(&[9, 1, 5])), Duration::from_millis(5));
    assert_eq!(median(&times(&[9, 1, 5, 6])), Duration::from_micros(5500));

    let hundred = times(&(1..=100).collect::<Vec<_>>());
    for percent in [1, 50, 99, 100] {
        assert_eq!(percentile(&hundred, percent), Duration::from_millis(percent as u64));
    }
    assert_eq!(percentile(&hundred, 0), Duration::from_millis(1));
    assert_eq!(percentile(&times(&[3, 4]), 99), Duration::from_millis(4));
    assert_eq!(percentile(&[], 50), Duration::ZERO);
}

#[test]
fn quotients_of_nothing_are_nothing() {
    assert_eq!(quotient(6, 4), Some(1.5));
    assert_eq!(quotient(0, 4), Some(0.0));
    assert_eq!(quotient(6, 0), None);
    assert_eq!(gigabytes_per_second(5_000_000_000, Duration::from_secs(2)), Some(2.5));
    assert_eq!(gigabytes_per_second(0, Duration::from_secs(2)), None);
    assert_eq!(gigabytes_per_second(7, Duration::ZERO), None);
}

#[test]
fn baselines_are_named_for_programs_and_for_people() {
    let names = Baseline::ALL.map(|baseline| (baseline.key(), baseline.to_string()));
    let expected = [
        ("lz4_4k", "lz4, 4 KiB"),
        ("zstd1_4k", "zstd -1, 4 KiB"),
        ("zstd1_64k", "zstd -1, 64 KiB"),
        ("zstd1_2m", "zstd -1, 2 MiB"),
    ];
    assert_eq!(names, expected.map(|(key, name)| (key.to_owned(), name.to_owned())));
}

#[test]
fn what_is_no_image_is_refused_by_name() {
    let path = std::env::temp_dir().join(format!("cloner-measure-{}", std::process::id()));
    for (bytes, fits) in [(0, false), (4095, false), (4096, true), (5000, false), (8192, true)] {
        fs::write(&path, vec![1; bytes]).unwrap();
        match Image::read(&path) {
            Ok(image) => assert!(fits && image.bytes() == vec![1; bytes], "{bytes}"),
            Err(cloner::image::Error::Size { bytes: found, .. }) => {
                assert!(!fits && found == bytes as u64, "{bytes}");
            }
            Err(other) => panic!("{other}"),
        }
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(Image::read(&path), Err(cloner::image::Error::Read { .. })));
    assert!(matches!(Image::read(&std::env::temp_dir()), Err(cloner::image::Error::Read { .. })));
}

#[test]
fn images_survive_any_number_of_threads() {
    // Two chunks, the second of them short, with pages of equal content in both.
    let (image, watch) = (image(700), Watch::default());
    for threads in [1, 3] {
        let encoder = HotEncoder::new(&Threads::new(threads).unwrap());
        let hot = encoder.encode(&image, &EncodeOptions::default()).unwrap();
        assert_eq!(hot.stats().encoded_bytes, hot.bytes());
        assert_eq!(hot.stats()[PageKind::Dup].pages, 700 / 6 - 1, "all pages 6 n + 5 except the first");
        let mut target = vec![1; image.bytes().len()];
        encoder.decode(&hot.open().unwrap(), &mut target, watch).unwrap();
        assert!(target == image.bytes());
    }
}

#[test]
fn cold_images_survive() {
    // A hundred pages occur twice, most of them in another chunk than the first time.
    let (image, watch) = (image(700), Watch::default());
    let hot = HotEncoder::new(&Threads::new(1).unwrap()).encode(&image, &EncodeOptions::default()).unwrap();
    let opened = hot.open().unwrap();
    let mut coder = ColdCoder::new(cold::ColdOptions { level: 3 }).unwrap();
    let cold = coder.encode(opened.chunks(), watch).unwrap();
    assert!(cold.bytes() < hot.bytes(), "{} {}", cold.bytes(), hot.bytes());
    let chunks: Vec<_> = cold.iter().map(|chunk| VerifiedColdChunk::verify(chunk).unwrap()).collect();
    for held_before in [1, 2] {
        let mut target = vec![held_before; image.bytes().len()];
        coder.decode(&chunks, &mut target, watch).unwrap();
        assert!(target == image.bytes());
    }
    let cancel = Cancel::new();
    cancel.cancel();
    let watch = Watch::default().cancel(&cancel);
    assert!(matches!(coder.encode_only(opened.chunks(), watch), Err(Error::Cancelled)));
    let wrong = ColdCoder::new(cold::ColdOptions { level: 23 });
    assert!(matches!(wrong, Err(Error::Codec(CodecError::Level { level: 23, .. }))), "{wrong:?}");
}

#[test]
fn children_survive_beside_their_parent() {
    let (parent, watch) = (image(600), Watch::default());
    let mut bytes = parent.bytes().to_vec();
    // One patch, twice the same, so that a duplicate refers to a page that is itself a patch; and one page that has moved.
    let (first, second) = (5 * PAGE_BYTES, 11 * PAGE_BYTES);
    bytes[first + 100] ^= 1;
    bytes[second + 100] ^= 1;
    bytes.copy_within(4 * PAGE_BYTES..5 * PAGE_BYTES, 0);
    let child = Image::from_bytes(bytes).unwrap();
    let encoder = HotEncoder::new(&Threads::new(1).unwrap());
    let hot = encoder.encode(&child, &EncodeOptions { parent: Some(&parent), watch }).unwrap();
    let stats = hot.stats();
    assert!(stats[PageKind::Parent].pages > 390, "{stats:?}");
    assert_eq!(stats[PageKind::Patch].pages + stats[PageKind::Dup].pages, 2, "{stats:?}");
    let mut target = vec![1; child.bytes().len()];
    encoder.decode(&hot.open_with_parent(&parent).unwrap(), &mut target, watch).unwrap();
    assert!(target == child.bytes());
    let other = encoder.encode(&child, &EncodeOptions { parent: Some(&image(1)), watch });
    assert!(matches!(other, Err(cloner::image::Error::ParentSize { .. })), "{other:?}");
}

#[test]
fn selected_pages_decode_alone() {
    let (image, watch) = (image(600), Watch::default());
    let encoder = HotEncoder::new(&Threads::new(1).unwrap());
    let hot = encoder.encode(&image, &EncodeOptions::default()).unwrap();
    let opened = hot.open().unwrap();
    for kind in [PageKind::WordMarked, PageKind::ByteMarked, PageKind::Raw] {
        let pages = SelectedPages::select(&image, &opened, |found| found == kind);
        assert_eq!(pages.count() as u64, hot.stats()[kind].pages);
        assert!(pages.count() > 0, "{kind}");
        let filtered = only(opened.chunks(), kind);
        let chunks: Vec<_> = filtered.iter().map(|chunk| VerifiedChunk::verify(chunk).unwrap()).collect();
        let mut target = vec![1; pages.bytes().len()];
        decode(&chunks, &mut target, watch).unwrap();
        assert!(target == pages.bytes(), "{kind}");
        assert_eq!(pages.places().len(), pages.count());

        let mut encoded = Vec::new();
        let mut encoder = Encoder::new(EncoderOptions::default());
        pages
            .encode(&mut encoder, &mut SelectedPages::scratch(), watch, |chunk| encoded.push(chunk.to_vec()))
            .unwrap();
        let chunks: Vec<_> = encoded.iter().map(|chunk| VerifiedChunk::verify(chunk).unwrap()).collect();
        target.fill(1);
        decode(&chunks, &mut target, watch).unwrap();
        assert!(target == pages.bytes(), "{kind}");
    }
}

#[test]
fn baselines_give_back_what_they_were_given() {
    let (image, watch) = (image(600), Watch::default());
    for baseline in Baseline::ALL {
        let mut coder = BlockCoder::new(baseline).unwrap();
        let blocks = coder.encode(image.bytes(), watch).unwrap();
        assert!(blocks.bytes() > 0 && blocks.bytes() < image.bytes().len() as u64, "{baseline}");
        let mut target = vec![1; image.bytes().len()];
        coder.decode(&blocks, &mut target, watch).unwrap();
        assert!(target == image.bytes(), "{baseline}");
        if baseline.decodes_pages() {
            coder.decode_block(&blocks, 3, &mut target[..PAGE_BYTES]).unwrap();
            assert!(target[..PAGE_BYTES] == image.bytes()[3 * PAGE_BYTES..4 * PAGE_BYTES]);
        }
        // The target is too small, so this cannot be what was encoded.
        assert!(coder.decode_block(&blocks, 0, &mut target[..PAGE_BYTES / 2]).is_err(), "{baseline}");
    }
}

#[test]
fn a_pass_that_decodes_nothing_or_wrongly_is_found_out() {
    let (image, watch) = (image(20), Watch::default());
    let expected = image.bytes();
    let right = |target: &mut [u8]| -> Result<(), Error> {
        target.copy_from_slice(expected);
        Ok(())
    };
    let mut rounds = Rounds::default();
    let pass = rounds.decode("right", expected, right);
    rounds.run(2, watch).unwrap();
    assert!(rounds.gigabytes_per_second(pass).unwrap() > 0.0);

    // After the first pass the target holds the right bytes, and the second pass must not profit from them.
    rounds.decode("idle", expected, |_| Ok(()));
    let found = rounds.run(1, watch);
    assert!(matches!(&found, Err(Error::NotEqual { what, page: 0 }) if what == "idle"), "{found:?}");

    let mut rounds = PageRounds::new(expected);
    let pass = rounds.add("right", |page, out| {
        out.copy_from_slice(&expected[page * PAGE_BYTES..][..PAGE_BYTES]);
        Ok(())
    });
    rounds.run(2, watch).unwrap();
    let times = rounds.times(pass).unwrap();
    assert!(times.p50 <= times.p99, "{times:?}");
    rounds.add("idle", |_, _| Ok(()));
    assert!(matches!(rounds.run(1, watch), Err(Error::NotEqual { .. })));
}

#[test]
fn whoever_asks_to_stop_is_heard() {
    let (image, cancel) = (image(20), Cancel::new());
    cancel.cancel();
    let watch = Watch::default().cancel(&cancel);
    let encoder = HotEncoder::new(&Threads::new(1).unwrap());
    let options = EncodeOptions { watch, ..EncodeOptions::default() };
    assert!(matches!(encoder.encode(&image, &options), Err(cloner::image::Error::Cancelled)));
    let mut coder = BlockCoder::new(Baseline::LZ4_PAGE).unwrap();
    assert!(matches!(coder.encode(image.bytes(), watch), Err(Error::Cancelled)));
}
