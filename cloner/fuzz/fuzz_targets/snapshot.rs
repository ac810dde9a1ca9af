//! Opens a snapshot with any manifest and any chunks whose parent is a valid one, after correcting checksums and what the manifest says
//! of chunks and parent. The result must be an error, or memory that is the same at every restore.
#![no_main]

use cloner::chunk_id::ChunkId;
use cloner::layout;
use cloner::pool::Pool;
use cloner::progress::Watch;
use cloner::restore::Restorer;
use cloner::restore::lazy::WorkingSet;
use cloner::snapshot::{MANIFEST_LABEL, STATE_LABEL, Snapshot};
use cloner::walk::Threads;
use cloner_codec::chunk::stored_checksum;
use cloner_fuzz::correct_hot_checksum;
use cloner_fuzz::flushed::{list, set};
use cloner_fuzz::input::{Input, Uncorrected};
use cloner_fuzz::parts::{self, MANIFEST, PARENT, WORKING_SET};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use vmm::memory::{Backing, GuestMemory, PageSize};

struct Bench {
    restorer: Restorer,
    pool: Pool,
    state: Vec<u8>,
}

thread_local! {
    static BENCH: Bench = {
        let bench = Bench {
            restorer: Restorer::new(&Threads::new(1).expect("a thread starts")),
            pool: parts::pool(),
            state: parts::state(),
        };
        let chunks = parts::chunks(1);
        let manifest = parts::manifest_text(PARENT, &[], parts::chunk_ids(&chunks));
        put(&bench, "parent", &MANIFEST.wrap(&manifest), &chunks, false).expect("it is valid");
        bench
    };
}

fuzz_target!(|bytes: &[u8]| BENCH.with(|bench| child(bench, Input(bytes))));

fn child(bench: &Bench, mut input: Input<'_>) {
    let uncorrected = input.uncorrected();
    let (manifest, working_set) = (input.part(), input.part());
    let mut chunks = Vec::new();
    while !input.0.is_empty() && chunks.len() < 4 {
        let mut chunk = input.part().to_vec();
        if uncorrected.corrects(0) {
            correct_hot_checksum(&mut chunk);
        }
        chunks.push(chunk);
    }
    let manifest = corrected(manifest, &chunks, uncorrected);
    if let Some(snapshot) = put(bench, "child", &MANIFEST.wrap(&manifest), &chunks, uncorrected.corrects(2)) {
        opened(bench, &snapshot, working_set, uncorrected);
        drop(snapshot);
        bench.pool.remove("child").expect("it was put");
    }
    assert_eq!(bench.pool.all().len(), 1);
    bench.pool.check().expect("the books agree");
}

/// The text of a manifest that lists the chunks that there are, 1, and the parent as its first dependency, 2.
fn corrected(text: &[u8], chunks: &[Vec<u8>], uncorrected: Uncorrected) -> Vec<u8> {
    let Ok(mut manifest) = serde_json::from_slice::<Value>(text) else { return text.to_vec() };
    if uncorrected.corrects(1) {
        for (entry, chunk) in list(&mut manifest, "chunks").zip(chunks).filter(|(_, chunk)| chunk.len() >= 16)
        {
            set(entry, "checksum", json!(stored_checksum(chunk)));
        }
    }
    if uncorrected.corrects(2) {
        set(&mut manifest, "dependencies", json!([PARENT.to_string()]));
    }
    serde_json::to_vec(&manifest).expect("JSON")
}

/// Puts a snapshot as something that was received would be put: under the ids that its manifest says. `None` if it is refused.
fn put(bench: &Bench, name: &str, manifest: &[u8], chunks: &[Vec<u8>], is_child: bool) -> Option<Snapshot> {
    let Bench { pool, state, .. } = bench;
    let reservation = pool.reserve(name).expect("the name is free");
    let listed: Value = serde_json::from_slice(&manifest[parts::ENVELOPE_BYTES..]).unwrap_or_default();
    let listed = listed["chunks"].as_array().into_iter().flatten();
    for (id, chunk) in listed.zip(chunks) {
        let id: ChunkId = serde_json::from_value(id.clone()).ok()?;
        reservation.put_chunk(id, chunk).ok()?;
    }
    reservation.put_blob(MANIFEST_LABEL, manifest).ok()?;
    reservation.put_blob(STATE_LABEL, state).ok()?;
    if is_child {
        reservation.depend_on(pool.get("parent").expect("it was put first"));
    }
    let stored = reservation.publish();
    let opened = Snapshot::open(stored);
    if opened.is_err() {
        pool.remove(name).expect("it was published");
    }
    opened.ok()
}

fn opened(bench: &Bench, snapshot: &Snapshot, working_set: &[u8], uncorrected: Uncorrected) {
    let Bench { restorer, pool, .. } = bench;
    let chunks = layout::chunks(snapshot.state().layout());
    let verified = chunks.iter().all(|chunk| snapshot.verify(chunk).is_ok());
    let restore = || restorer.eager(snapshot, Backing::Private(PageSize::Base), Watch::default());
    if let Ok(restored) = restore() {
        assert!(verified, "memory was made of chunks that are not valid");
        let again = restore().expect("it was restored before");
        assert!(bytes_of(restored.memory) == bytes_of(again.memory), "a second restore has other bytes");
    }

    let mut text = working_set.to_vec();
    if uncorrected.corrects(3)
        && let Ok(mut value) = serde_json::from_slice::<Value>(&text)
    {
        set(&mut value, "snapshot", json!(snapshot.manifest().id.to_string()));
        text = serde_json::to_vec(&value).expect("JSON");
    }
    let name = format!("working-set-{}", snapshot.manifest().id);
    let reservation = pool.reserve(&name).expect("the name is free");
    reservation.put_blob("working-set", &WORKING_SET.wrap(&text)).expect("there is room");
    reservation.publish();
    if let Ok(found) = WorkingSet::load(pool, snapshot) {
        for page in found.expect("it was put").pages() {
            let (chunk, page) = page.split().expect("a page that the guest has");
            assert!(page.get() < chunks[chunk.0 as usize].pages);
        }
    }
    pool.remove(&name).expect("it was put");
}

fn bytes_of(mut memory: GuestMemory) -> Vec<u8> {
    memory
        .regions_mut()
        .iter_mut()
        .flat_map(|region| region.as_mut_slice().expect("its own").to_vec())
        .collect()
}
