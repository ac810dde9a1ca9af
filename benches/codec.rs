//! Measures the coder against memcpy, lz4 and zstd, on the same unique pages in the same run.
//!
//! `CLONER_IMAGES=a.raw:b.raw cargo bench -p cloner-bench --bench codec` measures memory images; without the variable, the bench
//! makes up an image. Throughput is in bytes of pages. `cloner-bench codec` prints the same side by side, with ratios.
#![expect(unsafe_code, reason = "the C library of lz4 is called as C")]

use std::collections::HashSet;
use std::hint::black_box;

use cloner_codec::chunk::{CHUNK_BYTES, ENCODED_BYTES_MAX, NoResolve, PAGE_BYTES, TargetContents};
use cloner_codec::hot::{ChunkInput, Encoder, EncoderOptions, NoDedup, PageSet, VerifiedChunk, decode_chunk};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Most pages measured of each image: enough to be typical, few enough for many rounds.
const PAGES: usize = 4096;

fn codec(criterion: &mut Criterion) {
    for (name, image) in images() {
        let unique = unique_pages(&image);
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(unique.len() as u64)).sample_size(20);
        let mut memory = vec![0; unique.len()];

        group.bench_function("memcpy", |bench| bench.iter(|| memory.copy_from_slice(black_box(&unique))));
        group.bench_function("encode", |bench| {
            let mut encoder = Encoder::new(EncoderOptions::default());
            let mut encoded = Vec::with_capacity(ENCODED_BYTES_MAX);
            bench.iter(|| {
                for chunk in unique.chunks(CHUNK_BYTES) {
                    encoded.clear();
                    encode(&mut encoder, chunk, &mut encoded);
                    black_box(&encoded);
                }
            });
        });
        group.bench_function("decode", |bench| {
            let mut encoder = Encoder::new(EncoderOptions::default());
            let encoded: Vec<Vec<u8>> = unique
                .chunks(CHUNK_BYTES)
                .map(|chunk| {
                    let mut encoded = Vec::new();
                    encode(&mut encoder, chunk, &mut encoded);
                    encoded
                })
                .collect();
            bench.iter(|| {
                for (encoded, memory) in encoded.iter().zip(memory.chunks_mut(CHUNK_BYTES)) {
                    let chunk = VerifiedChunk::verify(black_box(encoded)).expect("it was just encoded");
                    decode_chunk(&chunk, &NoResolve, TargetContents::Unknown, memory)
                        .expect("it refers to nothing");
                }
            });
        });
        for (name, coder) in [("lz4", &lz4 as &dyn Coder), ("zstd1", &zstd1)] {
            group.bench_function(format!("{name} encode"), |bench| {
                let mut encoded = vec![0; 2 * PAGE_BYTES];
                bench.iter(|| {
                    unique.chunks(PAGE_BYTES).map(|page| coder.encode(page, &mut encoded)).sum::<usize>()
                });
            });
            group.bench_function(format!("{name} decode"), |bench| {
                let mut scratch = vec![0; 2 * PAGE_BYTES];
                let encode = |page| {
                    let bytes = coder.encode(page, &mut scratch);
                    scratch[..bytes].to_vec()
                };
                let encoded: Vec<Vec<u8>> = unique.chunks(PAGE_BYTES).map(encode).collect();
                bench.iter(|| {
                    for (encoded, page) in encoded.iter().zip(memory.chunks_mut(PAGE_BYTES)) {
                        coder.decode(encoded, page);
                    }
                });
            });
        }
    }
}

fn encode(encoder: &mut Encoder, chunk: &[u8], encoded: &mut Vec<u8>) {
    let input = ChunkInput::new(chunk, &PageSet::ALL).expect("whole pages");
    encoder.encode_chunk(&input, &mut NoDedup, encoded);
}

/// A general-purpose coder, one page at a time.
trait Coder {
    fn encode(&self, page: &[u8], out: &mut [u8]) -> usize;
    fn decode(&self, encoded: &[u8], page: &mut [u8]);
}

#[expect(non_camel_case_types, reason = "named as in the table")]
struct lz4;
#[expect(non_camel_case_types, reason = "named as in the table")]
struct zstd1;

impl Coder for lz4 {
    fn encode(&self, page: &[u8], out: &mut [u8]) -> usize {
        let (page_bytes, out_bytes) = (c_int(page.len()), c_int(out.len()));
        // SAFETY: both pointers are valid for the lengths given with them.
        let bytes = unsafe {
            lz4_sys::LZ4_compress_default(
                page.as_ptr().cast(),
                out.as_mut_ptr().cast(),
                page_bytes,
                out_bytes,
            )
        };
        usize::try_from(bytes).expect("a length")
    }

    fn decode(&self, encoded: &[u8], page: &mut [u8]) {
        let (encoded_bytes, page_bytes) = (c_int(encoded.len()), c_int(page.len()));
        // SAFETY: both pointers are valid for the lengths given with them.
        let bytes = unsafe {
            let (encoded, page) = (encoded.as_ptr().cast(), page.as_mut_ptr().cast());
            lz4_sys::LZ4_decompress_safe(encoded, page, encoded_bytes, page_bytes)
        };
        assert_eq!(bytes, page_bytes, "lz4 decodes what it encoded");
    }
}

impl Coder for zstd1 {
    fn encode(&self, page: &[u8], out: &mut [u8]) -> usize {
        zstd::bulk::compress_to_buffer(page, out, 1).expect("room for the worst case")
    }

    fn decode(&self, encoded: &[u8], page: &mut [u8]) {
        zstd::bulk::decompress_to_buffer(encoded, page).expect("it was just encoded");
    }
}

fn c_int(bytes: usize) -> i32 {
    i32::try_from(bytes).expect("a page or two")
}

/// The pages that only marking or keeping can help with, at most [`PAGES`] of them, from all over the image.
fn unique_pages(image: &[u8]) -> Vec<u8> {
    let mut seen = HashSet::new();
    let pages: Vec<&[u8]> = image
        .chunks_exact(PAGE_BYTES)
        .filter(|page| page[8..] != page[..PAGE_BYTES - 8] && seen.insert(*page))
        .collect();
    let step = (pages.len() / PAGES).max(1);
    pages.into_iter().step_by(step).take(PAGES).flatten().copied().collect()
}

/// The images named by `CLONER_IMAGES`, or one that is made up.
fn images() -> Vec<(String, Vec<u8>)> {
    match std::env::var("CLONER_IMAGES") {
        Ok(paths) => {
            let read = |path: &str| (path.to_owned(), std::fs::read(path).expect(path));
            paths.split(':').map(read).collect()
        }
        Err(_) => vec![("synthetic".to_owned(), synthetic())],
    }
}

/// Two chunks of arrays of structures, text and noise.
fn synthetic() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words = ["page", "chunk", "vector", "marker", "pool", "snapshot", "clone", "template"];
    let mut image: Vec<u8> = Vec::with_capacity(2 * CHUNK_BYTES);
    while image.len() < 2 * CHUNK_BYTES {
        let end = image.len() + PAGE_BYTES;
        let kind = random() % 8;
        while image.len() < end {
            let number = random();
            match kind {
                0..4 => {
                    let pointer = 0xffff_8880_0000_0000 | (number & 0xf_fff0);
                    image.extend(
                        [pointer, 0, number % 100, pointer & !0xffff].iter().flat_map(|v| v.to_le_bytes()),
                    );
                }
                4..7 => {
                    image.extend(words[usize::try_from(number % 8).expect("below 8")].bytes());
                    image.extend((number % 997).to_string().bytes());
                    image.push(b' ');
                }
                _ => image.extend(number.to_le_bytes()),
            }
        }
        image.truncate(end);
    }
    image
}

criterion_group!(benches, codec);
criterion_main!(benches);
