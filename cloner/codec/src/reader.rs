//! Runs `tests/format/read_chunk.py`, a reader in another language that was written from FORMAT.md alone.

use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

/// Decodes a hot or cold chunk with the Python reader. `kept` holds the pages that its DUP references count.
pub(crate) fn read_chunk(encoded: &[u8], parent: &[u8], kept: &[u8]) -> Vec<u8> {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let folder = env::temp_dir().join(format!("cloner-golden-{}-{call}", process::id()));
    fs::create_dir_all(&folder).unwrap();
    let files = [("chunk", encoded), ("parent", parent), ("kept", kept)].map(|(name, bytes)| {
        let path = folder.join(name);
        fs::write(&path, bytes).unwrap();
        path
    });
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/format/read_chunk.py");
    let output = process::Command::new("python3").arg(script).args(&files).output();
    fs::remove_dir_all(&folder).unwrap();
    let output = output.expect("python3 is needed for this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
