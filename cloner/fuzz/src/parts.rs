//! The parts of snapshots and of flush folders, put together as an attacker would: around any text.

use cloner::chunk_id::ChunkId;
use cloner::pool::{Pool, PoolConfig, PoolPages, Populate};
use cloner::snapshot::{ManifestV2, RegionV2, SnapshotId};
use cloner_codec::chunk::{PAGE_BYTES, stored_checksum};
use cloner_codec::hot::{ChunkInput, Encoder, EncoderOptions, NoDedup, PageSet};
use serde_json::{Value, json};
use twox_hash::XxHash3_64;
use vmm::schema::envelope::Schema;

// The envelopes, written down here a second time, because an attacker who forges one needs no access to a constant.
/// Of a VM's state.
pub const VM_STATE: Schema = Schema { magic: *b"CLNVMST\0", version: 2, name: "VM state" };
/// Of a snapshot's manifest.
pub const MANIFEST: Schema = Schema { magic: *b"CLNSNAP\0", version: 2, name: "snapshot manifest" };
/// Of a flushed file's index.
pub const INDEX: Schema = Schema { magic: *b"CLNFIDX\0", version: 2, name: "index of a flushed snapshot" };
/// Of a flush folder's own file.
pub const FOLDER: Schema = Schema { magic: *b"CLNFOLD\0", version: 1, name: "flush folder" };
/// Of a working set.
pub const WORKING_SET: Schema = Schema { magic: *b"CLNWSET\0", version: 1, name: "working set" };

/// Length of an envelope before its text.
pub const ENVELOPE_BYTES: usize = 32;
/// Length of a block of a flushed file.
pub const BLOCK_BYTES: usize = 4096;
/// The folder's number in every header.
pub const FOLDER_ID: u128 = 0xf0;
/// The snapshot that a fuzzed one may refer to.
pub const PARENT: SnapshotId = SnapshotId::from_number(0xaa);
/// The snapshot that is fuzzed.
pub const CHILD: SnapshotId = SnapshotId::from_number(0xcc);
/// Memory of the guests: one whole chunk, and a short one.
pub const MEMORY_BYTES: u64 = (2 << 20) + 3 * PAGE_BYTES as u64;

/// A VM's state as it was saved, with another size of memory.
#[must_use]
pub fn state() -> Vec<u8> {
    const GOLDEN: &[u8] = include_bytes!("../../../vmm/src/state/golden/v2-pulse.vmstate");
    let text = std::str::from_utf8(&GOLDEN[ENVELOPE_BYTES..]).expect("JSON");
    let resized = text.replacen("\"memory_bytes\":1048576", &format!("\"memory_bytes\":{MEMORY_BYTES}"), 1);
    assert_ne!(resized, text, "the golden state has another size now");
    VM_STATE.wrap(resized.as_bytes())
}

/// A pool of 8 MiB.
#[must_use]
pub fn pool() -> Pool {
    let config =
        PoolConfig { capacity_bytes: 8 << 20, pages: PoolPages::Ordinary, populate: Populate::OnFirstUse };
    Pool::new(&config).expect("there is memory")
}

/// The two chunks of a guest with a few pages that are not zero, encoded hot.
#[must_use]
pub fn chunks(fill: u8) -> [Vec<u8>; 2] {
    memory(fill).map(|bytes| encoded(&ChunkInput::new(&bytes, &PageSet::ALL).expect("whole pages")))
}

/// As [`chunks`], but encoded with references to the chunks of a parent.
#[must_use]
pub fn child_chunks(fill: u8, parents: u8) -> [Vec<u8>; 2] {
    let ([whole, short], [parent, short_parent]) = (memory(fill), memory(parents));
    [(whole, parent), (short, short_parent)].map(|(bytes, parent)| {
        let input = ChunkInput::new(&bytes, &PageSet::ALL).expect("whole pages");
        encoded(&input.with_parent(&parent).expect("of the same length"))
    })
}

/// Memory of two chunks in which every 128th page, and one of the short chunk, has a few words that are not zero.
fn memory(fill: u8) -> [Vec<u8>; 2] {
    let mut memory = vec![0; usize::try_from(MEMORY_BYTES).expect("2 MiB")];
    for (number, page) in memory.chunks_mut(PAGE_BYTES).enumerate().filter(|(number, _)| number % 128 == 1) {
        page[..8 + number.min(64)].fill(fill);
        page[1000] = 7;
    }
    let short = memory.split_off(2 << 20);
    [memory, short]
}

fn encoded(input: &ChunkInput<'_>) -> Vec<u8> {
    let mut encoded = Vec::new();
    Encoder::new(EncoderOptions::default()).encode_chunk(input, &mut NoDedup, &mut encoded);
    encoded
}

/// Which chunks a snapshot consists of.
#[must_use]
pub fn chunk_ids(chunks: &[Vec<u8>]) -> Vec<ChunkId> {
    let id = |(index, chunk): (u32, &Vec<u8>)| ChunkId { region: 0, index, checksum: stored_checksum(chunk) };
    (0..).zip(chunks).map(id).collect()
}

/// The text of a manifest.
#[must_use]
pub fn manifest_text(id: SnapshotId, dependencies: &[SnapshotId], chunks: Vec<ChunkId>) -> Vec<u8> {
    let manifest = ManifestV2 {
        producer: ManifestV2::this_producer(),
        id,
        dependencies: dependencies.to_vec(),
        has_parent: !dependencies.is_empty(),
        touched_pages: 5,
        regions: vec![RegionV2::memory(MEMORY_BYTES)],
        chunks,
    };
    serde_json::to_vec(&manifest).expect("plain structs")
}

/// The text of an index. Its offsets and checksums are left to [`crate::flushed`].
#[must_use]
pub fn index_text(
    id: SnapshotId,
    name: &str,
    form: &str,
    dependencies: &[SnapshotId],
    chunks: &[Vec<u8>],
) -> Vec<u8> {
    let chunk = |(index, chunk): (u32, &Vec<u8>)| json!({"id": {"region": 0, "index": index, "checksum": 0}, "offset": 0, "bytes": chunk.len(), "checksum": 0});
    let blob = |label: &str| json!({"label": label, "offset": 0, "bytes": 0, "checksum": 0});
    let index = json!({
        "id": id.to_string(),
        "name": name,
        "labels": {"priority": 1, "tags": {"a": "b"}},
        "dependencies": dependencies.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "form": form,
        "chunks": (0..).zip(chunks).map(chunk).collect::<Vec<Value>>(),
        "blobs": [blob("manifest"), blob("state")],
    });
    serde_json::to_vec(&index).expect("JSON")
}

/// Corrects the checksum of a header block.
pub fn correct_header(block: &mut [u8; BLOCK_BYTES]) {
    block[88..96].fill(0);
    let checksum = XxHash3_64::oneshot(&block[..]);
    block[88..96].copy_from_slice(&checksum.to_le_bytes());
}

/// The header of a flushed file.
#[must_use]
pub fn header(snapshot: SnapshotId, index_at: u64, index_bytes: u64, file_bytes: u64) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    block[..8].copy_from_slice(b"CLNFLSH\0");
    block[8] = 1;
    block[16..32].copy_from_slice(&FOLDER_ID.to_le_bytes());
    block[32..48].copy_from_slice(&snapshot.number().to_le_bytes());
    for (at, value) in [(64, index_at), (72, index_bytes), (80, file_bytes)] {
        block[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    correct_header(&mut block);
    block
}

/// The text of a folder's own file.
#[must_use]
pub fn folder_text() -> Vec<u8> {
    let folder = json!({"id": format!("{FOLDER_ID:032x}"), "host": "here", "key_check": null});
    serde_json::to_vec(&folder).expect("JSON")
}
