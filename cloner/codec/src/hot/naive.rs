//! An encoder and a decoder that a child could check, written from FORMAT.md and nothing else.
//!
//! They share no code with the fast ones: each rule of FORMAT.md is one plain statement here, and even the table of byte markers
//! is read from its text. What the fast encoder writes must decode here, and what is encoded here must decode there.

#![expect(
    clippy::cast_possible_truncation,
    reason = "numbers of the format fit in a usize wherever tests run"
)]

use std::collections::HashMap;

use twox_hash::XxHash3_64;

const PAGE: usize = 4096;
const VECTORS: usize = 512;
const SLACK: usize = 32;

/// Fetches the pages that a chunk only refers to.
pub(super) trait Elsewhere {
    fn dup(&self, reference: u64) -> Option<Vec<u8>>;
    fn parent(&self, page: usize) -> Option<Vec<u8>>;
}

/// Decodes a chunk; `None` if it breaks a rule.
pub(super) fn decode(encoded: &[u8], elsewhere: &dyn Elsewhere) -> Option<Vec<u8>> {
    let field = |at: usize, size: usize| number(encoded.get(at..at + size)?);
    let (pages, entries) = (field(6, 2)? as usize, field(20, 2)? as usize);
    let sum = XxHash3_64::oneshot_with_seed(field(0, 8)?, encoded.get(16..)?);
    rule(encoded[..4] == *b"BMC1" && field(4, 2)? == 2 && (1..=512).contains(&pages))?;
    rule(
        field(8, 8)? == sum
            && field(16, 4)? as usize == encoded.len()
            && entries <= 4096
            && field(22, 2)? == 0,
    )?;

    let dictionary_at = 24 + 4 * pages;
    let records_at = dictionary_at + 8 * entries;
    let slack_at = encoded.len().checked_sub(SLACK).filter(|&at| at >= records_at)?;
    rule(encoded[slack_at..].iter().all(|&byte| byte == 0))?;
    let dictionary = vectors(&encoded[dictionary_at..records_at]);

    let mut memory = Vec::new();
    let mut start = records_at;
    for page in 0..pages {
        let entry = field(24 + 4 * page, 4)?;
        let end = records_at + (entry & 0x0fff_ffff) as usize;
        rule(end <= slack_at)?;
        let record = encoded.get(start..end)?;
        memory.extend(decode_page(entry >> 28, page, record, &dictionary, elsewhere)?);
        start = end;
    }
    rule(start == slack_at)?;
    Some(memory)
}

fn decode_page(
    kind: u64,
    page: usize,
    record: &[u8],
    dictionary: &[u64],
    elsewhere: &dyn Elsewhere,
) -> Option<Vec<u8>> {
    let length = |right: bool, page: Option<Vec<u8>>| if right { page } else { None };
    match kind {
        0 | 1 => length(record.is_empty(), Some(vec![0; PAGE])),
        2 => length(record.len() == 8, Some(record.repeat(VECTORS))),
        3 => length(record.len() == 8, elsewhere.dup(number(record)?)),
        4 => length(record.is_empty(), elsewhere.parent(page)),
        5 => length((1..PAGE).contains(&record.len()), patched(record, elsewhere.parent(page)?)),
        6 => length((1..PAGE).contains(&record.len()), decode_words(record, dictionary)),
        7 => length((1..PAGE).contains(&record.len()), decode_bytes(record)),
        8 => length(record.len() == PAGE, Some(record.to_vec())),
        _ => None,
    }
}

fn patched(record: &[u8], mut page: Vec<u8>) -> Option<Vec<u8>> {
    let count = record.len() / 10;
    rule(record.len() == 10 * count)?;
    let numbers: Vec<usize> =
        record[..2 * count].chunks(2).map(|n| number(n).map(|n| n as usize)).collect::<Option<_>>()?;
    rule(numbers.windows(2).all(|pair| pair[0] < pair[1]) && numbers.iter().all(|&n| n < VECTORS))?;
    for (n, vector) in numbers.into_iter().zip(record[2 * count..].chunks(8)) {
        page[8 * n..8 * n + 8].copy_from_slice(vector);
    }
    Some(page)
}

fn decode_words(record: &[u8], dictionary: &[u64]) -> Option<Vec<u8>> {
    let bit = |plane: usize, vector: usize| {
        record.get(64 * plane + vector / 8).map(|byte| byte >> (vector % 8) & 1)
    };
    let tags: Vec<u8> = (0..VECTORS)
        .map(|vector| Some(bit(0, vector)? | bit(1, vector)? << 1 | bit(2, vector)? << 2))
        .collect::<Option<_>>()?;
    let of = |tag: u8| (0..VECTORS).filter(|&vector| tags[vector] == tag).collect::<Vec<_>>();
    let n = |tag: u8| of(tag).len();
    let m = n(5) + n(6) + n(7);

    let mut at = 192;
    let mut stream = |bytes: usize| {
        at += bytes;
        record.get(at - bytes..at)
    };
    let hot = stream(n(2))?;
    let numbers = joined(stream(n(3))?, stream(n(3).div_ceil(2))?, 4)?;
    let small = stream(2 * n(4))?;
    let low32 = stream(4 * n(5))?;
    let low16 = stream(2 * n(6))?;
    let bases = joined(stream(m)?, stream(m.div_ceil(8))?, 1)?;
    let literals = stream(8 * n(1))?;
    rule(at == record.len())?;

    let mut page = vec![0; VECTORS];
    for (vector, literal) in of(1).into_iter().zip(literals.chunks(8)) {
        page[vector] = number(literal)?;
    }
    for (vector, &hot) in of(2).into_iter().zip(hot) {
        page[vector] = *dictionary.get(usize::from(hot))?;
    }
    for (vector, number) in of(3).into_iter().zip(numbers) {
        page[vector] = *dictionary.get(number)?;
    }
    for (vector, bits) in of(4).into_iter().zip(small.chunks(2)) {
        page[vector] = number(bits)?;
    }
    let mut bases = bases.into_iter();
    for (vector, bits) in of(5).into_iter().zip(low32.chunks(4)) {
        page[vector] = page[bases.next()?] >> 32 << 32 | number(bits)?;
    }
    for (vector, bits) in of(6).into_iter().zip(low16.chunks(2)) {
        page[vector] = page[bases.next()?] >> 16 << 16 | number(bits)?;
    }
    for vector in of(7) {
        page[vector] = page[bases.next()?];
    }
    Some(page.into_iter().flat_map(u64::to_le_bytes).collect())
}

fn decode_bytes(record: &[u8]) -> Option<Vec<u8>> {
    let counts = number(record.get(..3)?)? as usize;
    let (k, d) = (counts & 0xfff, counts >> 12);
    let distances_at = 3 + k;
    let literals_at = distances_at + (12 * d).div_ceil(8);
    let markers = record.get(3..distances_at)?;
    let packed = record.get(distances_at..literals_at)?;
    let bit = |bit: usize| usize::from(packed[bit / 8] >> (bit % 8) & 1);
    rule((12 * d..8 * packed.len()).all(|padding| bit(padding) == 0))?;
    let mut distances = (0..d).map(|x| (0..12).map(|b| bit(12 * x + b) << b).sum::<usize>());
    let mut literals = record[literals_at..].iter().copied();

    let table = markers_of_format_md();
    let mut page: Vec<u8> = Vec::new();
    let mut x = 0;
    for &marker in markers {
        let (source, count, length) = *table.get(usize::from(marker))?;
        for _ in 0..count {
            page.push(literals.next()?);
        }
        if source == "new" {
            x = distances.next()?;
        }
        for _ in 0..length {
            let before = page.len().checked_sub(x + 32).map_or(0, |at| page[at]);
            page.push(if source == "zero" { 0 } else { before });
        }
        rule(page.len() <= PAGE)?;
    }
    rule(page.len() == PAGE && distances.next().is_none() && literals.next().is_none())?;
    Some(page)
}

/// The table of byte markers, read from the text of FORMAT.md: source, literals, length.
fn markers_of_format_md() -> Vec<(&'static str, usize, usize)> {
    let text = include_str!("../../../FORMAT.md");
    let rows = text.split("| source | literals |").nth(1).expect("FORMAT.md has the table").lines().skip(2);
    let mut markers = Vec::new();
    for row in rows.take_while(|row| row.starts_with('|')) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, source, literals, lengths, first, _] = cells[..] else {
            panic!("a row of five cells: {row}")
        };
        assert_eq!(first.parse(), Ok(markers.len()), "the first marker of {row}");
        let range: Vec<usize> = literals.split(" to ").map(|n| n.parse().expect("a number")).collect();
        for literals in range[0]..=range[range.len() - 1] {
            for length in lengths.split(", ") {
                let length = if length == "no vector" { 0 } else { length.parse().expect("a length") };
                markers.push((source, literals, length));
            }
        }
    }
    let end = format!("Markers from {} on must not occur", markers.len());
    assert!(text.contains(&end), "FORMAT.md says: {end}");
    markers
}

/// How the naive encoder is to mark a page that it could mark in several ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NaiveMarkers {
    Words,
    Bytes,
    Raw,
}

/// Encodes pages, each in its own way; a page becomes RAW if its record would be too long.
pub(super) fn encode(pages: &[(Vec<u8>, NaiveMarkers)]) -> Vec<u8> {
    let mut count: HashMap<u64, usize> = HashMap::new();
    for (page, _) in pages {
        vectors(page)
            .into_iter()
            .filter(|&vector| vector != 0)
            .for_each(|vector| *count.entry(vector).or_default() += 1);
    }
    let mut dictionary: Vec<u64> = count.keys().copied().filter(|vector| count[vector] > 2).collect();
    dictionary.sort_by_key(|vector| (usize::MAX - count[vector], *vector));
    dictionary.truncate(4096);

    let (mut map, mut records) = (Vec::new(), Vec::new());
    for (page, way) in pages {
        let (kind, record) = match way {
            _ if page.iter().all(|&byte| byte == 0) => (1, Vec::new()),
            NaiveMarkers::Words => (6, encode_words(page, &dictionary)),
            NaiveMarkers::Bytes => (7, encode_bytes(page)),
            NaiveMarkers::Raw => (8, page.clone()),
        };
        let (kind, record) = if record.len() < PAGE { (kind, record) } else { (8, page.clone()) };
        records.extend(record);
        map.extend((kind << 28 | u32::try_from(records.len()).unwrap()).to_le_bytes());
    }

    let mut encoded = b"BMC1\x02\0".to_vec();
    encoded.extend(u16::try_from(pages.len()).unwrap().to_le_bytes());
    encoded.extend([0; 8]);
    let bytes = 24 + map.len() + 8 * dictionary.len() + records.len() + SLACK;
    encoded.extend(u32::try_from(bytes).unwrap().to_le_bytes());
    encoded.extend(u16::try_from(dictionary.len()).unwrap().to_le_bytes());
    encoded.extend([0; 2]);
    encoded.extend(map);
    encoded.extend(dictionary.into_iter().flat_map(u64::to_le_bytes));
    encoded.extend(records);
    encoded.extend([0; SLACK]);
    let sum = XxHash3_64::oneshot_with_seed(number(&encoded[..8]).unwrap(), &encoded[16..]);
    encoded[8..16].copy_from_slice(&sum.to_le_bytes());
    encoded
}

fn encode_words(page: &[u8], dictionary: &[u64]) -> Vec<u8> {
    let page = vectors(page);
    let mut tags: Vec<u8> = Vec::new();
    let (mut streams, mut bases) = (vec![Vec::new(); 8], vec![Vec::new(); 8]);
    let mut numbers = Vec::new();
    for (at, &vector) in page.iter().enumerate() {
        let named =
            |limit: u8, shift: u32| (0..at).find(|&b| tags[b] < limit && page[b] >> shift == vector >> shift);
        let entry = dictionary.iter().position(|&entry| entry == vector);
        let (tag, bits, base) = match (vector, named(7, 0), entry, named(6, 16), named(5, 32)) {
            (0, ..) => (0, 0, None),
            (_, Some(base), ..) => (7, 0, Some(base)),
            (_, _, Some(entry), ..) if entry < 256 => (2, 1, None),
            (_, _, Some(_), ..) => (3, 0, None),
            (0..0x1_0000, ..) => (4, 2, None),
            (_, _, _, Some(base), _) => (6, 2, Some(base)),
            (_, _, _, _, Some(base)) => (5, 4, Some(base)),
            _ => (1, 8, None),
        };
        match (tag, entry) {
            (2, Some(entry)) => streams[2].push(entry.to_le_bytes()[0]),
            (3, Some(entry)) => numbers.push(entry),
            _ => streams[usize::from(tag)].extend(&vector.to_le_bytes()[..bits]),
        }
        bases[usize::from(tag)].extend(base);
        tags.push(tag);
    }
    let mut record = Vec::new();
    for plane in 0..3 {
        record.extend(
            tags.chunks(8).map(|eight| eight.iter().rev().fold(0, |byte, tag| byte << 1 | tag >> plane & 1)),
        );
    }
    record.extend(&streams[2]);
    record.extend(split(&numbers, 4));
    [4, 5, 6].into_iter().for_each(|tag: usize| record.extend(&streams[tag]));
    record.extend(split(&bases.concat(), 1));
    record.extend(&streams[1]);
    record
}

fn encode_bytes(page: &[u8]) -> Vec<u8> {
    let table = markers_of_format_md();
    let (mut markers, mut distances, mut literals) = (Vec::new(), Vec::new(), Vec::<u8>::new());
    let (mut at, mut x) = (0, 0);
    let byte = |at: usize, back: usize| at.checked_sub(back).map_or(0, |at| page[at]);
    let nearest = nearest(page);
    while at < PAGE {
        // Of all steps, the one that covers most bytes for each byte it costs; for "new", from the nearest place that matches.
        let mut best = (f64::MIN, 0, 0);
        for (marker, &(source, count, length)) in table.iter().enumerate() {
            let vector = at + count..at + count + length;
            if vector.end > PAGE {
                continue;
            }
            let is_at = |x: usize| vector.clone().all(|to| page[to] == byte(to, x + 32));
            let found = match source {
                "new" => nearest.get(vector.start).and_then(|nearest| nearest[length]),
                "same" => is_at(x).then_some(x),
                "zero" => page[vector.clone()].iter().all(|&byte| byte == 0).then_some(x),
                _ => Some(x),
            };
            let cost = 1.0 + count as f64 + if source == "new" { 1.5 } else { 0.0 };
            let worth = (count + length) as f64 / cost;
            if let Some(x) = found.filter(|_| worth > best.0) {
                best = (worth, marker, x);
            }
        }
        let (_, marker, found) = best;
        let (source, count, length) = table[marker];
        markers.push(u8::try_from(marker).unwrap());
        literals.extend(&page[at..at + count]);
        if source == "new" {
            distances.push(found);
        }
        x = found;
        at += count + length;
    }
    let mut record = (markers.len() | distances.len() << 12).to_le_bytes()[..3].to_vec();
    record.extend(markers);
    for pair in distances.chunks(2) {
        let both = pair[0] | pair.get(1).unwrap_or(&0) << 12;
        record.extend(&both.to_le_bytes()[..if pair.len() == 2 { 3 } else { 2 }]);
    }
    record.extend(literals);
    record
}

/// For each place but the last three and each length of a vector from there, the distance to the nearest place with the same
/// bytes, in the form it is stored in. Lengths below four have none.
fn nearest(page: &[u8]) -> Vec<[Option<usize>; 33]> {
    let mut starts: HashMap<&[u8], Vec<usize>> = HashMap::new();
    let places = page.windows(4).enumerate();
    let nearest = places.map(|(to, start)| {
        let starts = starts.entry(start).or_default();
        starts.push(to);
        let (mut nearest, mut longest) = ([None; 33], 3);
        for from in starts.iter().rev().filter(|&from| from + 32 <= to) {
            let same = page[to..].iter().zip(&page[*from..to]).take(32);
            let same = same.take_while(|(a, b)| a == b).count();
            (longest + 1..=same).for_each(|length| nearest[length] = Some(to - from - 32));
            longest = longest.max(same);
            if longest == 32 {
                break;
            }
        }
        nearest
    });
    nearest.collect()
}

/// Writes numbers as their low bytes, followed by their high bits, packed.
fn split(numbers: &[usize], high_bits: usize) -> Vec<u8> {
    let low = numbers.iter().map(|number| number.to_le_bytes()[0]);
    let high = numbers.chunks(8 / high_bits);
    let high = high.map(|some| some.iter().rev().fold(0, |byte, number| byte << high_bits | number >> 8));
    low.chain(high.map(|byte| byte.to_le_bytes()[0])).collect()
}

/// The opposite of [`split`]; `None` if an unused bit is set.
fn joined(low: &[u8], high: &[u8], high_bits: usize) -> Option<Vec<usize>> {
    let bit = |bit: usize| usize::from(high[bit / 8] >> (bit % 8) & 1);
    rule((high_bits * low.len()..8 * high.len()).all(|padding| bit(padding) == 0))?;
    let high = |number: usize| (0..high_bits).map(|b| bit(number * high_bits + b) << b).sum::<usize>();
    Some(low.iter().enumerate().map(|(number, &low)| high(number) << 8 | usize::from(low)).collect())
}

fn vectors(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks(8).map(|vector| number(vector).expect("eight bytes")).collect()
}

fn number(bytes: &[u8]) -> Option<u64> {
    rule(bytes.len() <= 8)?;
    Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

fn rule(kept: bool) -> Option<()> {
    kept.then_some(())
}
