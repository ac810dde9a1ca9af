//! What the folder's own file says, with the checksum over it mended.

use vmm::schema::envelope;

use super::*;
use crate::chain;
use crate::flush::files::faulty::FaultyFiles;

const ID: &str = "0123456789abcdef0123456789abcdef";

fn key(byte: u8) -> EncryptionKey {
    EncryptionKey::from_bytes(&[byte; 32])
}

fn options(host: &str, key: Option<EncryptionKey>) -> FolderOptions {
    FolderOptions { host: host.to_owned(), adopt: false, key }
}

/// A folder whose own file is this block.
fn folder(mut block: Vec<u8>) -> FaultyFiles {
    block.resize(block.len().max(META_BYTES), 0);
    let files = FaultyFiles::new();
    files.put(META_FILE, block);
    files
}

/// A folder whose own file says this.
fn forged(id: &str, host: &str, key_check: Option<String>) -> FaultyFiles {
    let meta = FolderV1 { id: id.to_owned(), host: host.to_owned(), key_check };
    folder(SCHEMA.wrap(&serde_json::to_vec(&meta).unwrap()))
}

fn open(files: &FaultyFiles, options: &FolderOptions) -> Result<Folder, Error> {
    Folder::open(Arc::new(files.clone()), options)
}

#[test]
fn a_malformed_id_of_a_folder_is_named_as_such() {
    open(&forged(ID, "here", None), &options("here", None)).unwrap();
    let last = format!("{}g", &ID[1..]);
    for id in
        ["", "0", "0123456789ABCDEF0123456789ABCDEF", &ID[1..], &last, "0123456789abcdef0123456789abcdef0"]
    {
        let error = open(&forged(id, "here", None), &options("here", None)).unwrap_err();
        let told = format!("{id:?} is not an id");
        assert!(matches!(error, Error::FolderId { .. }) && chain(&error).contains(&told), "{error:?}");
    }
}

/// The check is made with the key, for one folder and one host: without the key, neither can be exchanged.
#[test]
fn the_check_of_a_key_holds_for_its_folder_and_host_only() {
    let number = parse_id(ID).unwrap();
    let check = |key_byte, id, host| Some(key_check(&key(key_byte), id, host));
    let with_key = options("here", Some(key(1)));
    open(&forged(ID, "here", check(1, number, "here")), &with_key).unwrap();
    let mut flipped = check(1, number, "here").unwrap();
    let last = if flipped.ends_with('0') { "1" } else { "0" };
    flipped.replace_range(flipped.len() - 1.., last);
    for (what, wrong) in [
        ("another key", check(2, number, "here")),
        ("another folder", check(1, number ^ 1, "here")),
        ("another host", check(1, number, "elsewhere")),
        ("its last digit", Some(flipped)),
        ("nothing", Some(String::new())),
    ] {
        let files = forged(ID, "here", wrong);
        assert!(matches!(open(&files, &with_key), Err(Error::Key { .. })), "{what}");
        let without = open(&files, &options("here", None)).unwrap_err();
        assert!(matches!(without, Error::Encryption { encrypted: true, .. }), "{what}: {without:?}");
    }
    let plain = open(&forged(ID, "here", None), &with_key).unwrap_err();
    assert!(matches!(plain, Error::Encryption { encrypted: false, .. }), "{plain:?}");
}

#[test]
fn a_folder_of_another_host_is_refused_unless_it_is_adopted_or_of_any_host() {
    let ours = options("here", None);
    for found in ["", "Here", "here ", "her", "elsewhere", "Any", "anyone"] {
        let files = forged(ID, found, None);
        let error = open(&files, &ours).unwrap_err();
        assert!(
            matches!(&error, Error::OtherHost { expected, found: told, .. } if expected == "here" && told == found),
            "{found:?}: {error:?}"
        );
        let adopted = open(&files, &FolderOptions { adopt: true, ..ours.clone() }).unwrap();
        assert_eq!(adopted.id(), parse_id(ID).unwrap(), "it keeps its number");
        open(&files, &ours).unwrap();
        assert!(matches!(open(&files, &options(found, None)), Err(Error::OtherHost { .. })), "{found:?}");
    }
    // What is of any host stays so, whether or not it is adopted.
    let files = forged(ID, ANY_HOST, None);
    for adopt in [true, false] {
        open(&files, &FolderOptions { adopt, ..ours.clone() }).unwrap();
    }
    open(&files, &options("elsewhere", None)).unwrap();
}

/// An adopted folder that is encrypted has a check for its new host.
#[test]
fn an_encrypted_folder_is_adopted_with_its_key_only() {
    let files = forged(ID, "there", Some(key_check(&key(1), parse_id(ID).unwrap(), "there")));
    let adopt = |key| FolderOptions { adopt: true, ..options("here", key) };
    assert!(matches!(open(&files, &adopt(None)), Err(Error::Encryption { encrypted: true, .. })));
    assert!(matches!(open(&files, &adopt(Some(key(2)))), Err(Error::Key { .. })));
    assert!(open(&files, &adopt(Some(key(1)))).unwrap().is_encrypted());
    open(&files, &options("here", Some(key(1)))).unwrap();
}

#[test]
fn a_folder_file_of_another_schema_version_or_shape_is_refused() {
    let meta = FolderV1 { id: ID.to_owned(), host: String::from("here"), key_check: None };
    let text = String::from_utf8(serde_json::to_vec(&meta).unwrap()).unwrap();
    let with = |schema: Schema, text: &str| {
        let error = open(&folder(schema.wrap(text.as_bytes())), &options("here", None)).unwrap_err();
        let Error::Folder { source, .. } = error else { panic!("{error:?}") };
        source
    };
    for version in [0, 2] {
        let error = with(Schema { version, ..SCHEMA }, &text);
        assert!(matches!(error, envelope::Error::Version { found, .. } if found == version), "{error:?}");
    }
    let error = with(Schema { magic: *b"CLNFIDX\0", ..SCHEMA }, &text);
    assert!(matches!(error, envelope::Error::Magic { .. }), "{error:?}");
    for (from, to) in [("\"host\":\"here\",", ""), ("{", "{\"surprise\":0,"), ("\"here\"", "7"), ("}", "")] {
        assert!(text.contains(from));
        let error = with(SCHEMA, &text.replacen(from, to, 1));
        assert!(matches!(error, envelope::Error::Schema(_)), "{to}: {error:?}");
    }
    // The rest of the block is zeros, and what follows the block is not read.
    let block = |at: usize, byte: u8| {
        let mut block = SCHEMA.wrap(text.as_bytes());
        block.resize(2 * META_BYTES, 0);
        block[at] = byte;
        open(&folder(block), &options("here", None)).map(drop)
    };
    block(META_BYTES, 1).unwrap();
    let error = block(META_BYTES - 1, 1).unwrap_err();
    assert!(matches!(error, Error::Folder { source: envelope::Error::Length { .. }, .. }), "{error:?}");
}

/// What a folder may hold before it has a file of its own: what remains of making one, and of measuring the device.
#[test]
fn only_an_empty_folder_is_made_into_a_flush_folder() {
    for left in [&[][..], &[META_PARTIAL], &[PROBE_FILE], &[META_PARTIAL, PROBE_FILE]] {
        let files = FaultyFiles::new();
        left.iter().for_each(|name| files.put(name, vec![1]));
        let made = open(&files, &options("here", None)).unwrap();
        assert_eq!(open(&files, &options("here", None)).unwrap().id(), made.id(), "{left:?}");
    }
    let partial = partial_name(1);
    for name in ["Folder", "folder2", "folder.partial2", ".hidden", &partial, &file_name(1, true)] {
        let files = FaultyFiles::new();
        files.put(META_PARTIAL, vec![1]);
        files.put(name, vec![1]);
        let error = open(&files, &options("here", None)).unwrap_err();
        assert!(matches!(error, Error::NoFolder { files: 2, .. }), "{name}: {error:?}");
    }
}
