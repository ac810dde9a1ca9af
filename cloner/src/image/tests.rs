//! Images of odd sizes: read, encoded and decoded to the last byte, and not beyond it.

use std::fs;
use std::io::Write;
use std::thread;

use super::*;
use crate::progress::{Cancel, Progress, Watch};
use crate::walk::Threads;

/// Pages that a tenth of are zero, a tenth equal to one of some others, and the rest of their own content.
fn image(pages: usize, seed: u8) -> Image {
    let page = |page: usize| -> Vec<u8> {
        let value = |at: usize| u8::try_from((page * 31 + at * 7 + usize::from(seed)) % 251).unwrap();
        match page % 10 {
            3 => vec![0; PAGE_BYTES],
            7 => vec![seed | 1; PAGE_BYTES],
            _ => (0..PAGE_BYTES).map(|at| if at % 64 < 40 { value(at) } else { 0 }).collect(),
        }
    };
    Image::from_bytes((0..pages).flat_map(page).collect()).unwrap()
}

#[test]
fn images_of_any_number_of_pages_come_back_to_the_last_byte_and_not_beyond() {
    let coder = HotEncoder::new(&Threads::new(2).unwrap());
    for pages in [1, 2, 255, 511, 512, 513, 1024, 1025] {
        let (image, parent) = (image(pages, 9), image(pages, 8));
        assert_eq!((image.page_count(), image.chunks().len()), (pages, pages.div_ceil(512)));
        for parent in [None, Some(&parent), Some(&image)] {
            let progress = Progress::default();
            let watch = Watch::default().progress(&progress);
            let hot = coder.encode(&image, &EncodeOptions { parent, watch }).unwrap();
            assert_eq!(progress.done_bytes(), (pages * PAGE_BYTES) as u64);
            assert_eq!(hot.chunk_stats().len(), pages.div_ceil(512));
            let open = match parent {
                Some(parent) => hot.open_with_parent(parent).unwrap(),
                None => hot.open().unwrap(),
            };
            let mut target = vec![buffer::POISON; pages * PAGE_BYTES];
            coder.decode(&open, &mut target, Watch::default()).unwrap();
            assert!(target == image.bytes(), "{pages} pages");
            // What lies after the image in a longer target stays as it was. A short chunk is not decoded into a longer place.
            let mut longer = vec![buffer::POISON; pages * PAGE_BYTES + CHUNK_BYTES];
            let fits = coder.decode(&open, &mut longer, Watch::default()).is_ok();
            assert_eq!(fits, pages % 512 == 0, "{pages} pages");
            assert!(longer[pages * PAGE_BYTES..].iter().all(|byte| *byte == buffer::POISON));
        }
    }
}

#[test]
fn a_parent_of_another_size_and_a_cancelled_operation_are_refused() {
    let coder = HotEncoder::new(&Threads::new(1).unwrap());
    for (pages, parent_pages) in [(513, 512), (512, 513), (1, 1024)] {
        let options = EncodeOptions { parent: Some(&image(parent_pages, 1)), ..EncodeOptions::default() };
        let error = coder.encode_only(&image(pages, 1), &options).unwrap_err();
        let sizes = (pages * PAGE_BYTES, parent_pages * PAGE_BYTES);
        assert!(matches!(error, Error::ParentSize { bytes, parent_bytes } if (bytes, parent_bytes) == sizes));
    }
    let cancel = Cancel::new();
    let watch = Watch::default().cancel(&cancel);
    let image = image(513, 1);
    let hot = coder.encode(&image, &EncodeOptions { parent: None, watch }).unwrap();
    cancel.cancel();
    assert!(matches!(
        coder.encode_only(&image, &EncodeOptions { parent: None, watch }),
        Err(Error::Cancelled)
    ));
    let mut target = vec![0; 513 * PAGE_BYTES];
    assert!(matches!(coder.decode(&hot.open().unwrap(), &mut target, watch), Err(Error::Cancelled)));
}

#[test]
fn pages_are_found_by_number_up_to_the_last() {
    let image = image(513, 3);
    for page in [0, 1, 511, 512] {
        let found = image.page(PageNumber(page as u64)).unwrap();
        assert!(found[..] == image.bytes()[page * PAGE_BYTES..][..PAGE_BYTES], "page {page}");
    }
    assert!([513, 1 << 40, u64::MAX].iter().all(|page| image.page(PageNumber(*page)).is_none()));
}

#[test]
fn only_files_of_whole_pages_are_images_however_they_are_read() {
    let folder = std::env::temp_dir().join(format!("cloner-image-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("image");
    let pipe = folder.join("pipe");
    let status = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(status.success());
    for (len, fits) in
        [(0, false), (1, false), (4095, false), (4096, true), (4097, false), (513 * 4096, true)]
    {
        let bytes: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
        fs::write(&file, &bytes).unwrap();
        // A pipe gives its bytes in many short reads, and does not tell its length.
        let feeding = thread::spawn({
            let (pipe, bytes) = (pipe.clone(), bytes.clone());
            move || {
                let mut pipe = fs::OpenOptions::new().write(true).open(pipe).unwrap();
                bytes.chunks(1021).for_each(|part| pipe.write_all(part).unwrap());
            }
        });
        for path in [&file, &pipe] {
            match Image::read(path) {
                Ok(image) => assert!(fits && image.bytes() == bytes, "{len} bytes"),
                Err(Error::Size { bytes, .. }) => {
                    assert!(!fits && i128::from(bytes) == i128::from(len), "{len} bytes");
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        feeding.join().unwrap();
    }
    assert!(matches!(Image::read(&folder), Err(Error::Read { .. })));
    assert!(matches!(Image::read(&folder.join("none")), Err(Error::Read { .. })));
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn runs_of_bytes_keep_their_ends() {
    let runs = [vec![1, 2, 3], Vec::new(), vec![4], vec![5; 1000]];
    let stored = ByteRuns::of(&runs);
    assert!(stored.iter().eq(runs.iter().map(Vec::as_slice)));
    assert_eq!(
        (stored.bytes(), stored.get(0), stored.get(1), stored.get(2)),
        (1004, &[1, 2, 3][..], &[][..], &[4][..])
    );
}

#[test]
fn buffers_are_as_long_as_asked_for_and_full_of_poison() {
    for bytes in [1, PAGE_BYTES, CHUNK_BYTES - 1, CHUNK_BYTES + 1, 2 * CHUNK_BYTES] {
        let mut target = buffer::TargetBuffer::new(bytes);
        assert_eq!((target.len(), target.as_ptr().align_offset(CHUNK_BYTES)), (bytes, 0));
        assert!(target.iter().all(|byte| *byte == buffer::POISON));
        target[bytes - 1] = 1;
        assert_eq!(target.last(), Some(&1));
        let touched = buffer::touched(bytes);
        assert!(touched.len() == bytes && touched.iter().all(|byte| *byte == buffer::POISON));
        let empty = [buffer::with_capacity(bytes), buffer::try_with_capacity(bytes).unwrap()];
        assert!(empty.iter().all(|buffer| buffer.is_empty() && buffer.capacity() >= bytes));
    }
    assert!(buffer::try_with_capacity(usize::MAX).is_err());
}
