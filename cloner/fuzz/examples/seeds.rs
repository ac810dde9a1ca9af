//! Writes the seeds that fuzzing starts from: `cargo run --example seeds`, in the folder of this package. Run it again when a format
//! changes.
#![expect(clippy::unwrap_used, reason = "a tool for developers")]

use std::fs;
use std::path::Path;

use cloner_codec::cold::{ColdEncoder, ColdOptions, transcode_to_cold};
use cloner_codec::hot::VerifiedChunk;
use cloner_fuzz::input::seed;
use cloner_fuzz::parts::{self, CHILD, PARENT};
use serde_json::json;

fn main() {
    let (hot, child) = (parts::chunks(2), parts::child_chunks(2, 1));
    let cold = hot.each_ref().map(|chunk| cold(chunk));

    let manifest = |dependencies: &[_], chunks: &[Vec<u8>]| {
        parts::manifest_text(CHILD, dependencies, parts::chunk_ids(chunks))
    };
    for (name, form, dependencies, chunks) in
        [("hot", "hot", &[][..], &hot), ("cold", "cold", &[], &cold), ("child", "hot", &[PARENT], &child)]
    {
        let index = parts::index_text(CHILD, "child", form, dependencies, chunks);
        let parts = seed(&[&index, &manifest(dependencies, chunks)]);
        write("recover", name, &[&parts[..], &chunks.concat()].concat());
    }

    let index = parts::INDEX.wrap(&parts::index_text(CHILD, "child", "hot", &[], &[]));
    let header = parts::header(CHILD, 4096, index.len() as u64, 8192);
    write("folder", "own", &[&seed(&[&parts::folder_text()])[..], &[0], &header[..96], &index].concat());
    let others = String::from_utf8(parts::folder_text()).unwrap().replace("here", "there");
    write("folder", "adopted", &[&seed(&[others.as_bytes()])[..], &[2], &header[..96], &index].concat());

    let working_set = json!({"snapshot": CHILD.to_string(), "pages": [0, 511, 512, 514]}).to_string();
    let text = manifest(&[PARENT], &child);
    write("snapshot", "child", &seed(&[&text, working_set.as_bytes(), &child[0], &child[1]]));
    write(
        "snapshot",
        "short",
        &seed(&[&manifest(&[PARENT], &child[1..]), working_set.as_bytes(), &child[1]]),
    );

    for (name, answer) in [
        ("mains", "VAR ups ups.status \"OL CHRG\"\nVAR ups battery.charge \"87.3\"\n"),
        ("battery", "VAR ups ups.status \"OB DISCHRG LB\"\nERR VAR-NOT-SUPPORTED\n"),
        ("refused", "ERR ACCESS-DENIED\n"),
    ] {
        write("nut", name, answer.as_bytes());
    }

    let kernel = |kind: u8, image: &[u8]| [&[kind][..], &seed(&[b"quiet", b"070701"])[1..], image].concat();
    write("kernel", "elf", &kernel(2, &elf()));
    write("kernel", "bzimage", &kernel(2, &bzimage()));
    write("kernel", "flat", &kernel(1, b"\xf4"));

    // Enables interrupts, loops back, writes, reads, saves; then resets through the keyboard controller.
    let serial = [
        1, 1, 1, 0x0f, 1, 4, 1, 0x10, 1, 0, 3, b'a', b'b', b'c', 0, 0, 8, 2, 0, 3, b'x', b'y', b'z', 5, 0, 0,
    ];
    write("ports", "serial", &[&serial[..], &[1, 2 << 3 | 4, 1, 0xfe]].concat());
    write(
        "ports",
        "others",
        &[0, 3 << 3 | 1, 2, 0, 2 << 3 | 4, 1, 0, 5 << 3, 9, 1, 4 << 3 | 1, 1, 7, 1, 4 << 3, 1, 3],
    );

    write("inspect", "hot", &hot[1]);
    write("inspect", "cold", &cold[1]);
    write(
        "inspect",
        "image",
        b"an image of two pages, most of whose vectors are equal, and which is longer than one unit",
    );
}

fn cold(hot: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = ColdEncoder::new(ColdOptions::default()).unwrap();
    transcode_to_cold(&VerifiedChunk::verify(hot).unwrap(), &mut encoder, &mut out).unwrap();
    out
}

/// The smallest ELF kernel: one segment, loaded and entered at 2 MiB.
fn elf() -> Vec<u8> {
    let mut elf = vec![0; 120];
    elf[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    for (at, value) in [(16, 2), (18, 62), (20, 1), (52, 64), (54, 56), (56, 1)] {
        elf[at..at + 2].copy_from_slice(&u16::to_le_bytes(value));
    }
    for (at, value) in
        [(24, 2 << 20), (32, 64), (72, 120), (80, 2 << 20), (88, 2 << 20), (96, 4), (104, 4096)]
    {
        elf[at..at + 8].copy_from_slice(&u64::to_le_bytes(value));
    }
    (elf[64], elf[68]) = (1, 5);
    [&elf[..], &[0xf4; 4]].concat()
}

/// The smallest bzImage: one sector of setup, and one of kernel.
fn bzimage() -> Vec<u8> {
    let mut image = vec![0; 1536];
    image[0x1f1] = 1;
    image[0x1f4] = 32;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
    image[0x211] = 1;
    image[0x214..0x218].copy_from_slice(&0x10_0000_u32.to_le_bytes());
    image[0x236] = 1;
    image[0x258..0x260].copy_from_slice(&0x20_0000_u64.to_le_bytes());
    image[0x260..0x264].copy_from_slice(&0x1000_u32.to_le_bytes());
    image
}

fn write(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), bytes).unwrap();
}
