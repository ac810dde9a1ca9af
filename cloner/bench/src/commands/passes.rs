//! What `cloner-bench codec` times: each function adds passes to the rounds.

use cloner_codec::chunk::{NoResolve, PageIndex, PageKind};
use cloner_codec::cold::{self, VerifiedColdChunk};
use cloner_codec::hot::{Encoder, EncoderOptions, VerifiedChunk, decode_page};

use crate::measure::{
    self, Baseline, BlockCoder, Blocks, ByteRuns, ColdCoder, EncodeOptions, Error, HotEncoder, Image,
    OpenImage, PagePassId, PageRounds, PassId, Rounds, SelectedPages, quotient,
};
use cloner::progress::Watch;

/// The encoding and the decoding pass of a coder.
#[derive(Debug, Clone, Copy)]
pub(super) struct CoderPasses {
    pub(super) encode: PassId,
    pub(super) decode: PassId,
}

/// The passes of two coders that decode the same pages.
#[derive(Debug, Clone, Copy)]
pub(super) struct DecodePasses {
    pub(super) hot: PassId,
    pub(super) lz4: PassId,
}

/// Adds a copy of the image: encoding and decoding cannot be faster.
pub(super) fn memcpy<'a>(rounds: &mut Rounds<'a>, image: &'a Image) -> PassId {
    rounds.decode("memcpy", image.bytes(), |target| {
        target.copy_from_slice(image.bytes());
        Ok(())
    })
}

/// Adds the whole image in hot form, with as many threads as the encoder has.
pub(super) fn whole<'a>(
    rounds: &mut Rounds<'a>,
    encoder: &'a HotEncoder,
    image: &'a Image,
    opened: &'a OpenImage<'a>,
    watch: Watch<'a>,
) -> CoderPasses {
    let options = EncodeOptions { watch, ..EncodeOptions::default() };
    let encode = move || Ok(encoder.encode_only(image, &options)?);
    let decode = move |target: &mut [u8]| Ok(encoder.decode(opened, target, watch)?);
    CoderPasses {
        encode: rounds.encode("hot form", image.bytes().len(), encode),
        decode: rounds.decode("hot form", image.bytes(), decode),
    }
}

/// Adds the whole image as a child of its parent. Decoding is checked but not reported, since there is nothing to compare it with.
pub(super) fn child<'a>(
    rounds: &mut Rounds<'a>,
    encoder: &'a HotEncoder,
    image: &'a Image,
    parent: &'a Image,
    opened: &'a OpenImage<'a>,
    watch: Watch<'a>,
) -> PassId {
    rounds.decode("child", image.bytes(), move |target| Ok(encoder.decode(opened, target, watch)?));
    let options = EncodeOptions { parent: Some(parent), watch };
    let encode = move || Ok(encoder.encode_only(image, &options)?);
    rounds.encode("child", image.bytes().len(), encode)
}

/// Hot chunks of some pages, and their cold form.
pub(super) struct ColdChunks<'a> {
    hot: &'a [VerifiedChunk<'a>],
    pages: &'a [u8],
    options: cold::ColdOptions,
    cold: ByteRuns,
}

impl<'a> ColdChunks<'a> {
    pub(super) fn new(
        hot: &'a [VerifiedChunk<'a>],
        pages: &'a [u8],
        options: cold::ColdOptions,
        watch: Watch<'_>,
    ) -> Result<Self, Error> {
        watch.start(pages.len() as u64);
        Ok(Self { hot, pages, options, cold: ColdCoder::new(options)?.encode(hot, watch)? })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.cold.bytes()
    }

    pub(super) fn ratio(&self) -> Option<f64> {
        quotient(self.pages.len() as u64, self.bytes())
    }

    pub(super) fn open(&self) -> Result<Vec<VerifiedColdChunk<'_>>, Error> {
        Ok(self.cold.iter().map(VerifiedColdChunk::verify).collect::<Result<_, _>>()?)
    }

    /// Adds the passes from the hot form to the cold one, and from the cold form to the pages.
    pub(super) fn time<'r>(
        &'r self,
        rounds: &mut Rounds<'r>,
        opened: &'r [VerifiedColdChunk<'r>],
        watch: Watch<'r>,
    ) -> Result<CoderPasses, Error> {
        let Self { hot, pages, options, .. } = *self;
        let (mut encoder, mut decoder) = (ColdCoder::new(options)?, ColdCoder::new(options)?);
        let encode = move || encoder.encode_only(hot, watch);
        let decode = move |target: &mut [u8]| decoder.decode(opened, target, watch);
        Ok(CoderPasses {
            encode: rounds.encode("cold form", pages.len(), encode),
            decode: rounds.decode("cold form", pages, decode),
        })
    }
}

/// Selected pages of the image and what the coders make of them, prepared once before anything is timed.
pub(super) struct PreparedPages {
    pub(super) unique: SelectedPages,
    unique_hot: ByteRuns,
    pub(super) word: SelectedPages,
    word_hot: ByteRuns,
    word_lz4: Blocks,
    pub(super) baselines: Vec<(Baseline, Blocks)>,
    /// For each unique page, its chunk in `unique_hot` and its place there.
    places: Vec<(usize, usize)>,
}

impl PreparedPages {
    pub(super) fn new(image: &Image, opened: &OpenImage<'_>, watch: Watch<'_>) -> Result<Self, Error> {
        let unique = SelectedPages::select(image, opened, |kind| {
            matches!(kind, PageKind::WordMarked | PageKind::ByteMarked | PageKind::Raw)
        });
        let word = SelectedPages::select(image, opened, |kind| kind == PageKind::WordMarked);
        let coded = unique.bytes().len() * (1 + Baseline::ALL.len()) + word.bytes().len();
        watch.start(coded as u64);
        let mut hot = Vec::new();
        unique
            .encode(&mut encoder(), &mut SelectedPages::scratch(), watch, |chunk| hot.push(chunk.to_vec()))?;
        let baselines = Baseline::ALL.into_iter().map(|baseline| {
            let blocks = BlockCoder::new(baseline)?.encode(unique.bytes(), watch)?;
            Ok((baseline, blocks))
        });
        Ok(Self {
            unique_hot: ByteRuns::of(&hot),
            word_hot: measure::only(opened.chunks(), PageKind::WordMarked),
            word_lz4: BlockCoder::new(Baseline::LZ4_PAGE)?.encode(word.bytes(), watch)?,
            baselines: baselines.collect::<Result<_, Error>>()?,
            places: unique.places(),
            unique,
            word,
        })
    }

    /// The unique pages in hot form.
    pub(super) fn unique_chunks(&self) -> Result<Vec<VerifiedChunk<'_>>, Error> {
        Ok(self.unique_hot.iter().map(VerifiedChunk::verify).collect::<Result<_, _>>()?)
    }

    /// The word-marked pages in hot form.
    pub(super) fn word_chunks(&self) -> Result<Vec<VerifiedChunk<'_>>, Error> {
        Ok(self.word_hot.iter().map(VerifiedChunk::verify).collect::<Result<_, _>>()?)
    }

    pub(super) fn unique_ratio(&self) -> Option<f64> {
        quotient(self.unique.bytes().len() as u64, self.unique_hot.bytes())
    }

    pub(super) fn word_ratio(&self) -> Option<f64> {
        quotient(self.word.bytes().len() as u64, self.word_hot.bytes())
    }

    /// Adds the unique pages in hot form.
    pub(super) fn time_unique<'a>(
        &'a self,
        rounds: &mut Rounds<'a>,
        chunks: &'a [VerifiedChunk<'a>],
        watch: Watch<'a>,
    ) -> CoderPasses {
        let unique = &self.unique;
        let (mut encoder, mut scratch) = (encoder(), SelectedPages::scratch());
        let encode = move || unique.encode(&mut encoder, &mut scratch, watch, |_| {});
        let decode = move |target: &mut [u8]| measure::decode(chunks, target, watch);
        CoderPasses {
            encode: rounds.encode("hot form of unique pages", unique.bytes().len(), encode),
            decode: rounds.decode("hot form of unique pages", unique.bytes(), decode),
        }
    }

    /// Adds the word-marked pages, in hot form and by lz4.
    pub(super) fn time_word<'a>(
        &'a self,
        rounds: &mut Rounds<'a>,
        chunks: &'a [VerifiedChunk<'a>],
        watch: Watch<'a>,
    ) -> Result<DecodePasses, Error> {
        let (pages, blocks) = (self.word.bytes(), &self.word_lz4);
        let mut lz4 = BlockCoder::new(Baseline::LZ4_PAGE)?;
        Ok(DecodePasses {
            hot: rounds
                .decode("word-marked pages", pages, move |target| measure::decode(chunks, target, watch)),
            lz4: rounds
                .decode("lz4 of word-marked pages", pages, move |target| lz4.decode(blocks, target, watch)),
        })
    }

    /// Adds the unique pages by each baseline.
    pub(super) fn time_baselines<'a>(
        &'a self,
        rounds: &mut Rounds<'a>,
        watch: Watch<'a>,
    ) -> Result<Vec<CoderPasses>, Error> {
        let pages = self.unique.bytes();
        let both = self.baselines.iter().map(|(baseline, blocks)| {
            let (mut encoder, mut decoder) = (BlockCoder::new(*baseline)?, BlockCoder::new(*baseline)?);
            let encode = move || encoder.encode_only(pages, watch);
            let decode = move |target: &mut [u8]| decoder.decode(blocks, target, watch);
            Ok(CoderPasses {
                encode: rounds.encode(baseline.to_string(), pages.len(), encode),
                decode: rounds.decode(baseline.to_string(), pages, decode),
            })
        });
        both.collect()
    }

    /// Adds single unique pages in hot form.
    pub(super) fn time_hot_pages<'a>(
        &'a self,
        rounds: &mut PageRounds<'a>,
        chunks: &'a [VerifiedChunk<'a>],
    ) -> PagePassId {
        rounds.add("single pages in hot form", move |page, out| {
            let (chunk, page) = self.places[page];
            let page = PageIndex::new(page).expect("places are in a chunk");
            decode_page(&chunks[chunk], page, &NoResolve, out)?;
            Ok(())
        })
    }

    /// Adds single unique pages by those baselines that can decode them.
    pub(super) fn time_baseline_pages<'a>(
        &'a self,
        rounds: &mut PageRounds<'a>,
    ) -> Result<Vec<Option<PagePassId>>, Error> {
        let passes = self.baselines.iter().map(|(baseline, blocks)| {
            if !baseline.decodes_pages() {
                return Ok(None);
            }
            let mut coder = BlockCoder::new(*baseline)?;
            let decode =
                move |page, out: &mut cloner_codec::chunk::Page| coder.decode_block(blocks, page, out);
            Ok(Some(rounds.add(format!("single pages by {baseline}"), decode)))
        });
        passes.collect()
    }
}

fn encoder() -> Encoder {
    Encoder::new(EncoderOptions::default())
}
