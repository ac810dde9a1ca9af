//! Opens a flush folder whose own file holds any text, and lists a file with any header and any index, whose checksums are corrected.
//! Every file is either listed or named with its reason.
#![no_main]

use std::sync::Arc;

use cloner::flush::{EncryptionKey, Folder, FolderOptions, Recoverer};
use cloner::walk::Threads;
use cloner_fuzz::files::MemoryFiles;
use cloner_fuzz::input::{Input, Uncorrected};
use cloner_fuzz::parts::{BLOCK_BYTES, CHILD, ENVELOPE_BYTES, FOLDER, FOLDER_ID, INDEX, correct_header};
use libfuzzer_sys::fuzz_target;

/// Bytes of a header that mean something.
const HEADER_BYTES: usize = 96;

thread_local! {
    static RECOVERER: Recoverer = Recoverer::new(&Threads::new(1).expect("a thread starts"));
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let uncorrected = input.uncorrected();
    let (meta, wanted) = (input.part(), input.byte());
    let header = input.split(HEADER_BYTES);
    let files = Arc::new(MemoryFiles::default());
    files.put("folder", FOLDER.wrap(meta));
    files.put(&format!("{CHILD}.snapshot"), file(header, input.0, uncorrected));

    let key = (wanted & 1 != 0).then(|| EncryptionKey::from_bytes(&[7; 32]));
    let options = FolderOptions { host: String::from("here"), adopt: wanted & 2 != 0, key };
    let Ok(folder) = Folder::open(Arc::clone(&files) as _, &options) else { return };
    let survey = RECOVERER.with(|recoverer| recoverer.survey(&folder)).expect("memory does not fail");
    assert_eq!(survey.snapshots.len() + survey.dropped.len(), 1, "{survey:?}");
    assert!(survey.snapshots.iter().all(|line| line.id == CHILD && folder.lists(&line.name)));
    // Opened again, adopted or not, it is the same folder.
    let again = Folder::open(files, &options).expect("it was opened before");
    let second = RECOVERER.with(|recoverer| recoverer.survey(&again)).expect("memory does not fail");
    assert_eq!(second.snapshots.len(), survey.snapshots.len());
});

/// A file that begins with `header`. Corrected are, unless `uncorrected` says otherwise: 0 checksum, magic and version of the header,
/// 1 its folder and snapshot, 2 the length of the file, 3 the envelope of what lies where the header says that the index is.
fn file(header: &[u8], rest: &[u8], uncorrected: Uncorrected) -> Vec<u8> {
    let mut block = [0; BLOCK_BYTES];
    block[..header.len()].copy_from_slice(header);
    let mut bytes = [&block, rest].concat();
    if uncorrected.corrects(2) {
        bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        block[80..88].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    }
    if uncorrected.corrects(1) {
        block[16..32].copy_from_slice(&FOLDER_ID.to_le_bytes());
        block[32..48].copy_from_slice(&CHILD.number().to_le_bytes());
    }
    let field =
        |at: usize| usize::try_from(u64::from_le_bytes(*block[at..].first_chunk().expect("inside"))).ok();
    if uncorrected.corrects(3)
        && let (Some(start), Some(len)) = (field(64), field(72))
        && let Some(index) = start.checked_add(len).and_then(|end| bytes.get_mut(start..end))
        && let Some(text) = index.get(ENVELOPE_BYTES..)
        && start >= BLOCK_BYTES
    {
        let wrapped = INDEX.wrap(text);
        index.copy_from_slice(&wrapped);
    }
    if uncorrected.corrects(0) {
        block[..12].copy_from_slice(b"CLNFLSH\0\x01\0\0\0");
        correct_header(&mut block);
    }
    bytes[..BLOCK_BYTES].copy_from_slice(&block);
    bytes
}
