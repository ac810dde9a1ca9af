//! Recovers a flush folder of two snapshots: a valid one, and one made of any index, manifest and records, whose checksums, places
//! and ids are corrected. Whatever is wrong with the second, the first comes back, and the pool's books agree.
#![no_main]

use std::sync::Arc;

use cloner::flush::{Cleaning, Folder, FolderOptions, RecoverOptions, Recoverer};
use cloner::layout;
use cloner::pool::Pool;
use cloner::snapshot::Snapshot;
use cloner::walk::Threads;
use cloner_fuzz::files::MemoryFiles;
use cloner_fuzz::flushed::{self, FlushedParts};
use cloner_fuzz::input::Input;
use cloner_fuzz::parts::{self, CHILD, FOLDER, PARENT};
use libfuzzer_sys::fuzz_target;

struct Bench {
    recoverer: Recoverer,
    pool: Pool,
    parent: Vec<u8>,
}

thread_local! {
    static BENCH: Bench = {
        let chunks = parts::chunks(1);
        let parent = FlushedParts {
            id: PARENT,
            index: &parts::index_text(PARENT, "parent", "hot", &[], &chunks),
            manifest: &parts::manifest_text(PARENT, &[], Vec::new()),
            records: &chunks.concat(),
        };
        Bench {
            recoverer: Recoverer::new(&Threads::new(1).expect("a thread starts")),
            pool: parts::pool(),
            parent: flushed::file(parent, Input(&[]).uncorrected()),
        }
    };
}

fuzz_target!(|bytes: &[u8]| BENCH.with(|bench| recover(bench, Input(bytes))));

fn recover(Bench { recoverer, pool, parent }: &Bench, mut input: Input<'_>) {
    let uncorrected = input.uncorrected();
    let (index, manifest) = (input.part(), input.part());
    let child = flushed::file(FlushedParts { id: CHILD, index, manifest, records: input.0 }, uncorrected);
    let files = MemoryFiles::default();
    files.put("folder", FOLDER.wrap(&parts::folder_text()));
    files.put(&format!("{PARENT}.snapshot"), parent.clone());
    files.put(&format!("{CHILD}.snapshot"), child);

    let options = FolderOptions { host: String::from("here"), ..FolderOptions::default() };
    let folder = Folder::open(Arc::new(files), &options).expect("its own file is valid");
    let options = RecoverOptions { cleaning: Cleaning::Delete, ..RecoverOptions::default() };
    let report = recoverer.recover(&folder, pool, &options).expect("memory does not fail");
    pool.check().expect("the books agree");
    assert_eq!(report.recovered.len() + report.dropped.len(), 2, "{report:?}");
    // A snapshot that takes the parent's name is one or the other, and refused.
    assert!(report.recovered.iter().any(|one| one.name == "parent"), "{report:?}");
    for stored in pool.all() {
        if let Ok(snapshot) = Snapshot::open(stored) {
            for chunk in layout::chunks(snapshot.state().layout()) {
                // Every record was verified, so only its number of pages can be wrong.
                let _ = snapshot.verify(&chunk);
            }
        }
    }
    // Children first, because a parent that is removed stays for them.
    pool.all().iter().for_each(|stored| pool.remove(stored.name()).expect("it was listed"));
    drop(folder);
    assert_eq!(pool.stats().used_bytes, 0, "nothing stays behind");
}
