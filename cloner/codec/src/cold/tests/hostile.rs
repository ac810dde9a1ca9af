//! Broken and hostile cold chunks give an error or pages, but never a panic, and no page decodes alone to anything but what it
//! is in its chunk.

use proptest::prelude::*;
use zstd::bulk::compress;

use crate::chunk::{
    ChunkHeader, CodecError, Form, FormatError, GROUP_PAGES, HEADER_BYTES, PAGE_BYTES, write_checksum,
};

use super::cases::{Case, Content, cases};
use super::*;

/// A small chunk with a page of every kind and three groups: one of adjoining pages, one of spread pages, one stored as it is.
pub(super) fn small() -> Case {
    let every = Content::ALL.into_iter().filter(|&content| content != Content::Noise);
    let rest = [Content::Zero; 3].into_iter().chain([Content::Noise; 2]);
    let words = [Content::Words; GROUP_PAGES];
    let spread = [[Content::Text, Content::Zero]; GROUP_PAGES - 3].into_iter().flatten();
    Case::of(words.into_iter().chain(every).chain(spread).chain(rest))
}

/// The small chunk's case and its cold form.
fn small_chunk() -> (Vec<u8>, Case) {
    let case = small();
    let (cold, stats) = to_cold(&case.hot(), &mut encoder());
    assert_eq!((stats.groups, stats.stored_groups), (3, 1));
    (cold, case)
}

/// Number of bytes before the groups.
fn front_bytes(cold: &[u8]) -> usize {
    let chunk = VerifiedColdChunk::verify(cold).unwrap();
    let groups: usize = (0..chunk.groups()).map(|number| chunk.group(number).coded.len()).sum();
    cold.len() - groups
}

/// Decodes a chunk in every way; returns the pages if all of them work.
pub(super) fn decode(cold: &[u8], case: &Case) -> Option<Vec<u8>> {
    let chunk = VerifiedColdChunk::verify(cold).ok()?;
    let mut decoder = ColdDecoder::new().unwrap();
    let mut memory = vec![0xee; chunk.page_count() * PAGE_BYTES];
    let whole = decode_chunk(&chunk, &mut decoder, case, TargetContents::Unknown, &mut memory);
    let mut alone = vec![0xee; memory.len()];
    let mut pages_work = true;
    for (index, page) in chunk.page_indices().zip(alone.as_chunks_mut().0) {
        pages_work &= decode_page(&chunk, index, &mut decoder, case, page).is_ok();
    }
    assert_eq!(whole.is_ok(), pages_work, "{whole:?}");

    let mut hot = vec![1, 2, 3];
    let mut encoder = hot::Encoder::new(hot::EncoderOptions::default());
    match transcode_to_hot(&chunk, &mut decoder, &mut encoder, &mut hot) {
        // Hostile content stays hostile, but it is a valid hot chunk.
        Ok(stats) => {
            let hot = VerifiedChunk::verify(&hot[3..]).unwrap();
            assert_eq!(stats.encoded_bytes, hot.as_bytes().len() as u64);
            assert_eq!(hot.page_count(), chunk.page_count());
        }
        Err(_) => assert_eq!(hot, [1, 2, 3]),
    }
    whole.ok()?;
    assert!(memory == alone, "pages decoded alone differ from those of the chunk");
    Some(memory)
}

#[test]
fn a_chunk_cut_anywhere_is_an_error() {
    let (cold, case) = small_chunk();
    assert!(decode(&cold, &case) == Some(case.expected()));
    let mut refused = 0;
    for bytes in 0..cold.len() {
        assert!(VerifiedColdChunk::verify(&cold[..bytes]).is_err(), "cut at {bytes}");
        // Forging what the header says does not help either.
        let mut cut = cold[..bytes].to_vec();
        if bytes >= HEADER_BYTES {
            cut[16..20].copy_from_slice(&u32::try_from(bytes).unwrap().to_le_bytes());
            write_checksum(&mut cut);
        }
        assert!(VerifiedColdChunk::verify(&cut).is_err(), "cut at {bytes}, with a forged header");
        refused += 2;
    }
    assert!(VerifiedColdChunk::verify(&[&cold[..], &[0]].concat()).is_err());
    println!("{refused} truncations refused");
}

#[test]
fn any_flipped_bit_is_an_error() {
    let (mut cold, _) = small_chunk();
    for bit in 0..cold.len() * 8 {
        cold[bit / 8] ^= 1 << (bit % 8);
        assert!(VerifiedColdChunk::verify(&cold).is_err(), "bit {bit} flipped");
        cold[bit / 8] ^= 1 << (bit % 8);
    }
    println!("{} flipped bits refused", cold.len() * 8);
}

#[test]
fn under_a_right_checksum_a_flipped_bit_is_an_error_or_pages() {
    let (cold, case) = small_chunk();
    let front = front_bytes(&cold);
    let (mut refused, mut same, mut other) = (0, 0, 0);
    // Every bit before the groups, and every 31st bit of the groups.
    for bit in (0..front * 8).chain((front * 8..cold.len() * 8).step_by(31)) {
        let mut flipped = cold.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        write_checksum(&mut flipped);
        match decode(&flipped, &case) {
            None => refused += 1,
            Some(pages) if pages == case.expected() => same += 1,
            Some(_) => other += 1,
        }
    }
    println!("{refused} refused, {same} decoded to the same pages, {other} to other pages");
    assert!(refused > 1000);
}

#[test]
fn every_field_is_checked_even_when_the_checksum_fits() {
    let case = Case::of([Content::Text, Content::Fill, Content::Zero]);
    let (cold, _) = to_cold(&case.hot(), &mut encoder());
    let (map_at, table_at) = (HEADER_BYTES, HEADER_BYTES + 12);
    let frame_at = table_at + 4 + 8;
    let broken = |at: usize, value: u8| {
        let mut broken = cold.clone();
        assert_ne!(broken[at], value);
        broken[at] = value;
        write_checksum(&mut broken);
        VerifiedColdChunk::verify(&broken).expect_err("a broken chunk was accepted")
    };
    assert!(matches!(broken(0, b'X'), FormatError::Magic { form: Form::Cold, found: [b'X', ..] }));
    assert!(matches!(broken(4, 1), FormatError::Version { form: Form::Cold, found: 1 }));
    assert!(matches!(broken(6, 0), FormatError::Field { field: "page_count", value: 0, .. }));
    assert!(matches!(broken(7, 3), FormatError::Field { field: "page_count", value: 771, .. }));
    assert!(matches!(broken(6, 4), FormatError::Kind { .. } | FormatError::Record { .. }));
    assert!(matches!(broken(19, 1), FormatError::Length { .. }));
    // Without groups, the chunk is already as short as any, whatever the field says.
    let (mut empty, _) = to_cold(&Case::of([Content::Zero, Content::Zero]).hot(), &mut encoder());
    empty[16..20].fill(0);
    write_checksum(&mut empty);
    let refused = VerifiedColdChunk::verify(&empty).expect_err("a chunk of 0 bytes was accepted");
    assert!(matches!(refused, FormatError::Field { field: "encoded_bytes", value: 0, .. }));
    assert!(matches!(broken(20, 4), FormatError::Field { field: "unique_pages", value: 4, .. }));
    assert!(matches!(broken(20, 2), FormatError::UniquePages { unique_pages: 1, header_unique_pages: 2 }));
    assert!(matches!(broken(22, 1), FormatError::Field { field: "reserved", .. }));
    assert!(matches!(broken(map_at, 1), FormatError::Record { kind: PageKind::Raw, start: 0, end: 1, .. }));
    // All unique pages are RAW here; kind number 9 does not exist in either form.
    assert!(matches!(broken(map_at + 3, 0x60), FormatError::Record { kind: PageKind::WordMarked, .. }));
    assert!(matches!(broken(map_at + 3, 0x70), FormatError::Record { kind: PageKind::ByteMarked, .. }));
    assert!(matches!(broken(map_at + 3, 0x90), FormatError::Kind { kind: 9, .. }));
    assert!(matches!(broken(map_at + 4, 9), FormatError::Record { kind: PageKind::Fill, end: 9, .. }));
    assert!(matches!(
        broken(map_at + 8, 9),
        FormatError::Record { kind: PageKind::Zero, start: 8, end: 9, .. }
    ));
    assert!(matches!(
        broken(map_at + 8, 7),
        FormatError::Record { kind: PageKind::Zero, start: 8, end: 7, .. }
    ));
    assert!(matches!(broken(table_at + 3, 1), FormatError::GroupBounds { group: 0, start: 0, .. }));
    assert!(matches!(broken(table_at, cold[table_at] - 1), FormatError::GroupFrame { group: 0, .. }));
    // The frame: magic, a checksum flag, a dictionary, and a content size that does not match the pages.
    for (at, value) in [(0, 0x50), (1, 0xb6), (4, 0x64), (4, 0x61), (4, 0x20), (5, 1), (6, 0x10)] {
        assert!(matches!(broken(frame_at + at, value), FormatError::GroupFrame { group: 0, .. }));
    }
}

/// A chunk of one unique page, whose group consists of these bytes.
fn forged(group: &[u8]) -> Vec<u8> {
    let mut forged = vec![0; HEADER_BYTES];
    forged.extend(0x8000_0000_u32.to_le_bytes());
    forged.extend(u32::try_from(group.len()).unwrap().to_le_bytes());
    forged.extend(group);
    ChunkHeader::new(Form::Cold, 1, 1, forged.len()).write(&mut forged);
    write_checksum(&mut forged);
    forged
}

#[test]
fn frames_that_are_not_of_the_one_form_are_refused() {
    let case = Case::of([Content::Text]);
    let page = case.expected();
    let frame = compress(&page, 1).unwrap();
    assert_eq!(super::decode(&forged(&frame), &case), page);
    assert_eq!(super::decode(&forged(&page), &case), page);

    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9][..], &frame].concat();
    let followed = [&frame[..], &[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]].concat();
    let twice = frame.repeat(2);
    let legacy = [&[0x27, 0xb5, 0x2f, 0xfd][..], &frame[4..]].concat();
    let mut with_checksum = frame.clone();
    with_checksum[4] |= 4;
    with_checksum.extend([0; 4]);
    let large_window = [&[0x28, 0xb5, 0x2f, 0xfd, 0x40, 0xff, 0x00, 0x0f][..], &frame[7..]].concat();
    let longer = compress(&page.repeat(2), 1).unwrap();
    let shorter = compress(&page[..4095], 1).unwrap();
    let page_and_one = [&page[..], &[0]].concat();
    let refused: [&[u8]; 11] = [
        &[],
        &frame[..frame.len() - 1],
        &skippable,
        &followed,
        &twice,
        &legacy,
        &with_checksum,
        &large_window,
        &longer,
        &shorter,
        &page_and_one,
    ];
    for group in refused {
        let wrong = VerifiedColdChunk::verify(&forged(group)).map(|_| ());
        assert!(matches!(wrong, Err(FormatError::GroupFrame { group: 0, .. })), "{wrong:?}");
    }

    // Nothing in the frame itself tells that it makes fewer bytes than it promised.
    let mut empty = frame[..7].to_vec();
    empty.extend([1, 0, 0]);
    let wrong = decode_chunk(
        &VerifiedColdChunk::verify(&forged(&empty)).unwrap(),
        &mut ColdDecoder::new().unwrap(),
        &NoResolve,
        TargetContents::Unknown,
        &mut [0; PAGE_BYTES],
    );
    assert!(
        matches!(wrong, Err(CodecError::GroupContent { .. } | CodecError::GroupLength { .. })),
        "{wrong:?}"
    );
}

#[test]
fn a_hot_chunk_that_does_not_decode_leaves_nothing_behind() {
    let mut hot = Case::of([Content::Fill, Content::Text]).hot();
    let header = VerifiedChunk::verify(&hot).unwrap().header();
    // The record of the text page, after the eight bytes of the fill page.
    hot[header.records_at() + 8..][..200].fill(0xff);
    write_checksum(&mut hot);
    let mut out = vec![7; 5];
    let wrong = transcode_to_cold(&VerifiedChunk::verify(&hot).unwrap(), &mut encoder(), &mut out);
    assert!(matches!(wrong, Err(CodecError::Record { .. })), "{wrong:?}");
    assert_eq!(out, [7; 5]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(1000)))]

    #[test]
    fn hostile_bytes_are_refused_or_mean_pages(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        part in 0..3_u8,
    ) {
        let (mut cold, case) = small_chunk();
        let front = front_bytes(&cold);
        let span = match part {
            0 => 0..cold.len(),
            1 => HEADER_BYTES..front,
            _ => front..cold.len(),
        };
        for (at, byte) in changes {
            cold[span.start + at.index(span.len())] = byte;
        }
        write_checksum(&mut cold);
        decode(&cold, &case);
    }

    #[test]
    fn hostile_group_tables_are_refused_or_mean_pages(
        ends in prop::collection::vec(prop_oneof![0..40_000_u32, any::<u32>()], 3),
        replaced in 0..8_u8,
    ) {
        let (mut cold, case) = small_chunk();
        let table_at = HEADER_BYTES + case.expected().len() / PAGE_BYTES * MAP_ENTRY_BYTES;
        for (group, end) in ends.into_iter().enumerate().filter(|(group, _)| replaced >> group & 1 == 1) {
            cold[table_at + group * 4..][..4].copy_from_slice(&end.to_le_bytes());
        }
        write_checksum(&mut cold);
        decode(&cold, &case);
    }

    #[test]
    fn frames_of_any_bytes_are_refused_or_mean_a_page(
        blocks in prop::collection::vec((0..4_u8, prop::collection::vec(any::<u8>(), 0..300)), 1..5),
    ) {
        // A well-formed frame header and block headers, so that zstd reads what the blocks contain.
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x60, 0x00, 0x0f];
        let last = blocks.len() - 1;
        for (number, (kind, bytes)) in blocks.into_iter().enumerate() {
            let kind = kind % 3;
            let bytes = if kind == 1 { vec![bytes.len().to_le_bytes()[0]] } else { bytes };
            let length = if kind == 1 { 1024 } else { bytes.len() };
            let header = u32::try_from(length << 3).unwrap() | u32::from(kind) << 1 | u32::from(number == last);
            frame.extend(&header.to_le_bytes()[..3]);
            frame.extend(bytes);
        }
        let forged = forged(&frame);
        prop_assert!(VerifiedColdChunk::verify(&forged).is_ok());
        decode(&forged, &Case::of([Content::Text]));
    }

    #[test]
    fn hostile_hot_chunks_become_no_cold_chunk_or_a_right_one(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut hot = Case::of(Content::ALL).hot();
        for (at, byte) in changes {
            let at = at.index(hot.len());
            hot[at] = byte;
        }
        write_checksum(&mut hot);
        if let Ok(hot) = VerifiedChunk::verify(&hot) {
            let mut cold = Vec::new();
            match transcode_to_cold(&hot, &mut encoder(), &mut cold) {
                Ok(stats) => {
                    let chunk = VerifiedColdChunk::verify(&cold).unwrap();
                    prop_assert_eq!(stats.encoded_bytes, cold.len() as u64);
                    prop_assert_eq!(chunk.page_count(), hot.page_count());
                }
                Err(_) => prop_assert!(cold.is_empty()),
            }
        }
    }
}
