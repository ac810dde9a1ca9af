//! `cloner-bench codec`: decides what is measured, and in which order.

use std::io::{self, Write};
use std::iter;
use std::path::{Path, PathBuf};

use cloner_codec::cold;

use crate::measure::{
    self, EncodeOptions, HotEncoder, Image, PageCounts, PagePassId, PageRounds, PassId, Rounds, quotient,
};
use cloner::progress::{Progress, Watch};
use cloner::walk::{StartError, Threads};

use super::passes::{self, CoderPasses, ColdChunks, PreparedPages};
use super::report::{
    BaselineReport, ChildReport, CoderReport, ColdReport, HotReport, Report, ThreadsReport, UniqueReport,
    WordMarkedReport,
};
use super::table;
use cloner_cli::progress::{self, Spinner};
use cloner_cli::threads;
use cloner_cli::{Error, interrupt};

const EXAMPLES: &str = "\
Examples:
  cloner-bench codec --image memory.raw
  cloner-bench codec --image later.raw --parent memory.raw     also as a child of an earlier image
  cloner-bench codec --image memory.raw --cold-level 19       the cold form as small as it gets
  cloner-bench codec --image memory.raw --json | jq .hot

An image is the raw memory of a guest, such as QEMU's `pmemsave` writes. All figures are of one
run on a machine that may be busy: compare them with each other, not with those of another run.
The exit code is 1 if anything does not decode to what was encoded.";

/// Options of `cloner-bench codec`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Raw memory image, a multiple of 4 KiB
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    /// Earlier image of the same guest: also measure encoding against it
    #[arg(long, value_name = "FILE")]
    parent: Option<PathBuf>,
    /// Most threads to encode and decode the whole image with (default: one per processor)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Rounds to take the medians of
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// zstd's level for the cold form: 1 is the fastest, 22 compresses most
    #[arg(long, value_name = "LEVEL", default_value_t = 1, allow_negative_numbers = true,
          value_parser = clap::value_parser!(i32).range(1..=22))]
    cold_level: i32,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

/// Bytes per page of the image, of whatever kind, that a store of separately compressed pages needs to find the page.
const BASELINE_INDEX_BYTES: u64 = 8;

/// How the measuring is done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) threads: usize,
    pub(super) rounds: usize,
    pub(super) cold: cold::ColdOptions,
}

pub(crate) fn run(args: &Args) -> Result<u8, Error> {
    let read = |path: &Path| {
        let _spinner = Spinner::new(format!("reading {}", path.display()));
        Image::read(path)
    };
    let image = read(&args.image)?;
    let parent = args.parent.as_deref().map(read).transpose()?;
    let plan = Plan {
        threads: args.threads.map_or_else(threads, usize::from),
        rounds: usize::from(args.rounds),
        cold: cold::ColdOptions { level: args.cold_level },
    };
    let progress = Progress::default();
    let watch = Watch::default().progress(&progress).cancel(interrupt::cancel());
    let report = progress::bar("measuring", &progress, || {
        measure(&args.image.display().to_string(), &image, parent.as_ref(), plan, watch)
    })?;
    let text = if args.json { report.json() } else { table::of(&report) };
    writeln!(io::stdout(), "{}", text.trim_end()).map_err(Error::Output)?;
    Ok(0)
}

/// Measures everything in the report.
pub(super) fn measure(
    name: &str,
    image: &Image,
    parent: Option<&Image>,
    plan: Plan,
    watch: Watch<'_>,
) -> Result<Report, measure::Error> {
    watch.start(image.bytes().len() as u64);
    let encoder = |count| Ok::<_, StartError>(HotEncoder::new(&Threads::new(count)?));
    let encoders: Vec<HotEncoder> = thread_counts(plan.threads).map(encoder).collect::<Result<_, _>>()?;
    let options = EncodeOptions { watch, ..EncodeOptions::default() };
    let hot = encoders[0].encode(image, &options)?;
    let child = match parent {
        Some(parent) => {
            let options = EncodeOptions { parent: Some(parent), watch };
            Some((parent, encoders[0].encode(image, &options)?))
        }
        None => None,
    };
    let opened = hot.open()?;
    let opened_child = match &child {
        Some((parent, child)) => Some(child.open_with_parent(parent)?),
        None => None,
    };
    let prepared = PreparedPages::new(image, &opened, watch)?;
    let (unique_chunks, word_chunks) = (prepared.unique_chunks()?, prepared.word_chunks()?);

    let cold = ColdChunks::new(opened.chunks(), image.bytes(), plan.cold, watch)?;
    let unique_cold = ColdChunks::new(&unique_chunks, prepared.unique.bytes(), plan.cold, watch)?;
    let (opened_cold, opened_unique_cold) = (cold.open()?, unique_cold.open()?);

    let mut rounds = Rounds::default();
    let memcpy = passes::memcpy(&mut rounds, image);
    let whole: Vec<_> =
        encoders.iter().map(|encoder| passes::whole(&mut rounds, encoder, image, &opened, watch)).collect();
    let unique = prepared.time_unique(&mut rounds, &unique_chunks, watch);
    let word = prepared.time_word(&mut rounds, &word_chunks, watch)?;
    let baselines = prepared.time_baselines(&mut rounds, watch)?;
    let cold_passes = cold.time(&mut rounds, &opened_cold, watch)?;
    let unique_cold_passes = unique_cold.time(&mut rounds, &opened_unique_cold, watch)?;
    let child_encode = child
        .as_ref()
        .zip(opened_child.as_ref())
        .map(|((parent, _), opened)| passes::child(&mut rounds, &encoders[0], image, parent, opened, watch));
    let mut page_rounds = PageRounds::new(prepared.unique.bytes());
    let hot_pages = prepared.time_hot_pages(&mut page_rounds, &unique_chunks);
    let baseline_pages = prepared.time_baseline_pages(&mut page_rounds)?;

    watch.start(rounds.bytes(plan.rounds) + page_rounds.bytes(plan.rounds));
    rounds.run(plan.rounds, watch)?;
    page_rounds.run(plan.rounds, watch)?;

    let image_bytes = image.bytes().len() as u64;
    let rate = |pass: PassId| rounds.gigabytes_per_second(pass);
    Ok(Report {
        image: name.to_owned(),
        bytes: image_bytes,
        pages: PageCounts::of(&hot.stats()),
        memcpy_gbps: rate(memcpy),
        hot: HotReport {
            bytes: hot.bytes(),
            ratio: quotient(image_bytes, hot.bytes()),
            encode_gbps: rate(whole[0].encode),
            decode_gbps: rate(whole[0].decode),
            page_us: page_rounds.times(hot_pages),
        },
        unique: UniqueReport {
            pages: prepared.unique.count(),
            ratio: prepared.unique_ratio(),
            encode_gbps: rate(unique.encode),
            decode_gbps: rate(unique.decode),
        },
        word_marked: WordMarkedReport {
            pages: prepared.word.count(),
            ratio: prepared.word_ratio(),
            decode_gbps: rate(word.hot),
            lz4_decode_gbps_same_pages: rate(word.lz4),
        },
        cold: ColdReport {
            level: plan.cold.level,
            bytes: cold.bytes(),
            ratio: cold.ratio(),
            encode_gbps: rate(cold_passes.encode),
            decode_gbps: rate(cold_passes.decode),
            unique: CoderReport {
                ratio: unique_cold.ratio(),
                encode_gbps: rate(unique_cold_passes.encode),
                decode_gbps: rate(unique_cold_passes.decode),
            },
        },
        child: child.as_ref().zip(child_encode).map(|((_, child), encode)| ChildReport {
            bytes: child.bytes(),
            pages: PageCounts::of(&child.stats()),
            encode_gbps: rate(encode),
            full_encode_gbps: rate(whole[0].encode),
        }),
        baselines: baseline_reports(image, &prepared, &baselines, &baseline_pages, &rounds, &page_rounds),
        threads: encoders
            .iter()
            .zip(&whole)
            .map(|(encoder, both)| ThreadsReport {
                n: encoder.threads(),
                encode_gbps: rate(both.encode),
                decode_gbps: rate(both.decode),
            })
            .collect(),
    })
}

fn baseline_reports(
    image: &Image,
    prepared: &PreparedPages,
    passes: &[CoderPasses],
    pages: &[Option<PagePassId>],
    rounds: &Rounds<'_>,
    page_rounds: &PageRounds<'_>,
) -> Vec<BaselineReport> {
    let (image_bytes, unique_bytes) = (image.bytes().len() as u64, prepared.unique.bytes().len() as u64);
    let page_index_bytes = BASELINE_INDEX_BYTES * image.page_count() as u64;
    let passes = prepared.baselines.iter().zip(passes).zip(pages);
    passes
        .map(|(((baseline, blocks), both), pages)| BaselineReport {
            baseline: *baseline,
            unique_ratio: quotient(unique_bytes, blocks.bytes()),
            image_ratio: quotient(image_bytes, blocks.bytes() + page_index_bytes),
            encode_gbps: rounds.gigabytes_per_second(both.encode),
            decode_gbps: rounds.gigabytes_per_second(both.decode),
            page_us: pages.and_then(|pages| page_rounds.times(pages)),
        })
        .collect()
}

/// Yields 1, 2, 4 and so on below `most`, and then `most`.
pub(super) fn thread_counts(most: usize) -> impl Iterator<Item = usize> {
    iter::successors(Some(1), |n| Some(n * 2)).take_while(move |&n| n < most).chain([most])
}
