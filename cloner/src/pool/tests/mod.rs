//! Tests of a pool as its users see it. `books` looks inside, `pages` needs a host with huge pages, `threads` takes a while.

mod books;
mod limits;
mod pages;
mod threads;

use super::*;
use crate::chunk_id::ChunkId;

/// A pool of `mib` MiB on ordinary pages.
fn pool(mib: usize) -> Pool {
    let config =
        PoolConfig { capacity_bytes: mib << 20, pages: PoolPages::Ordinary, populate: Populate::OnFirstUse };
    Pool::new(&config).unwrap()
}

/// A chunk of region 0. The pool does not look at checksums.
fn id(index: u32) -> ChunkId {
    ChunkId { region: 0, index, checksum: 0 }
}

/// Asserts that nothing is left: no name, no byte, no promise.
fn assert_empty(pool: &Pool) {
    let capacity_bytes = pool.capacity_bytes();
    let stats = PoolStats {
        capacity_bytes,
        used_bytes: 0,
        free_bytes: capacity_bytes,
        promised_bytes: 0,
        largest_free_bytes: capacity_bytes,
        extents: 0,
        snapshots: 0,
    };
    assert_eq!(pool.stats(), stats);
    assert_eq!(pool.list(), []);
    let report =
        CheckReport { extents: 0, used_bytes: 0, free_ranges: 1, free_bytes: capacity_bytes, snapshots: 0 };
    assert_eq!(pool.check(), Ok(report));
}

#[test]
fn what_was_put_is_read_back_in_the_order_of_its_ids() {
    let pool = pool(8);
    let reservation = pool.reserve_promised("pulse-1.a_B", 3 << 20).unwrap();
    assert_eq!(reservation.name(), "pulse-1.a_B");
    let long = vec![0xa5; (2 << 20) + 77];
    let seventh = ChunkId { checksum: 0xabc, ..id(7) };
    let last = ChunkId { region: u16::MAX, index: u32::MAX, checksum: u64::MAX };
    let of_another_region = ChunkId { region: 1, ..id(7) };
    reservation.put_chunk(seventh, &long).unwrap();
    reservation.put_chunk(last, &[]).unwrap();
    reservation.put_chunk(of_another_region, b"another").unwrap();
    reservation.put_chunk(id(0), b"a zero chunk").unwrap();
    reservation.put_blob("state", b"{}").unwrap();
    reservation.put_blob("map", &[1; 64]).unwrap();
    drop(reservation.publish());

    let stored = pool.get("pulse-1.a_B").unwrap();
    let chunks: Vec<_> = stored.chunks().iter().map(|chunk| (chunk.id(), chunk.bytes())).collect();
    let zero = (id(0), &b"a zero chunk"[..]);
    assert_eq!(chunks, [zero, (seventh, &long), (of_another_region, b"another"), (last, &[])]);
    assert_eq!(stored.chunk(0, 7), Some(&long[..]));
    assert_eq!(stored.chunk(1, 7), Some(&b"another"[..]));
    assert_eq!((stored.chunk(0, 8), stored.chunk(1, 0)), (None, None));
    assert_eq!(stored.blob("state"), Some(&b"{}"[..]));
    assert_eq!(stored.blob("State"), None);
    assert_eq!(stored.blobs().collect::<Vec<_>>(), [("map", &[1; 64][..]), ("state", b"{}")]);

    let len_bytes = long.len() + 12 + 7 + 2 + 64;
    let occupied_bytes = (2 << 20) + 128 + 5 * GRANULE;
    let name = "pulse-1.a_B".to_owned();
    let listing = Listing {
        name,
        chunks: 4,
        len_bytes,
        occupied_bytes,
        shared_bytes: 0,
        dependencies: vec![],
        dependents: 0,
        labels: Labels::default(),
        unflushed: false,
    };
    assert_eq!(pool.list(), [listing]);
    let stats = pool.stats();
    assert_eq!((stats.used_bytes, stats.promised_bytes, stats.extents), (occupied_bytes, 0, 6));
    assert_eq!(stats.free_bytes + stats.used_bytes, pool.capacity_bytes());
}

#[test]
fn a_snapshot_is_invisible_until_it_is_sealed() {
    let pool = pool(2);
    let reservation = pool.reserve_promised("a", 100).unwrap();
    reservation.put_chunk(id(0), b"x").unwrap();
    assert!(matches!(pool.get("a"), Err(Error::NotFound { name }) if name == "a"));
    assert!(matches!(pool.remove("a"), Err(Error::NotFound { .. })));
    assert_eq!(pool.list(), []);
    assert_eq!(pool.stats().snapshots, 0);
    assert!(matches!(pool.reserve("a"), Err(Error::NameTaken { .. })), "claimed");

    let stored = reservation.publish();
    assert!(Arc::ptr_eq(&stored, &pool.get("a").unwrap()));
    assert_eq!(pool.stats().snapshots, 1);
    assert!(matches!(pool.reserve("a"), Err(Error::NameTaken { .. })), "published");
}

#[test]
fn a_dropped_reservation_leaves_no_trace() {
    let pool = pool(2);
    let reservation = pool.reserve_promised("a", 1 << 20).unwrap();
    reservation.put_chunk(id(0), &[1; 1000]).unwrap();
    reservation.put_blob("state", &[2; 1000]).unwrap();
    drop(reservation);
    assert_empty(&pool);
    drop(pool.reserve_promised("a", 2 << 20).unwrap());
    assert_empty(&pool);
}

#[test]
fn a_removed_snapshot_stays_readable_until_its_last_handle_is_gone() {
    let pool = pool(2);
    let put = |byte| {
        let reservation = pool.reserve("a").unwrap();
        reservation.put_chunk(id(0), &[byte; 5000]).unwrap();
        reservation.publish()
    };
    let first = put(1);
    let again = Arc::clone(&first);
    pool.remove("a").unwrap();
    assert!(matches!(pool.get("a"), Err(Error::NotFound { .. })));
    let second = put(2);
    drop(first);
    assert_eq!(again.chunk(0, 0), Some(&[1; 5000][..]));
    assert_eq!(second.chunk(0, 0), Some(&[2; 5000][..]));
    assert_eq!(pool.stats().extents, 2);
    pool.check().unwrap();

    drop((again, second));
    pool.remove("a").unwrap();
    assert_empty(&pool);
}

#[test]
fn handles_and_reservations_outlive_the_pool() {
    let pool = pool(2);
    let published = pool.reserve("a").unwrap();
    published.put_chunk(id(0), b"kept").unwrap();
    let stored = published.publish();
    let open = pool.reserve("b").unwrap();
    drop(pool);
    open.put_chunk(id(0), b"late").unwrap();
    assert_eq!(open.publish().chunk(0, 0), Some(&b"late"[..]));
    assert_eq!(stored.chunk(0, 0), Some(&b"kept"[..]));
}

#[test]
fn chunks_and_labels_are_put_once() {
    let pool = pool(2);
    let reservation = pool.reserve("a").unwrap();
    reservation.put_chunk(id(3), b"first").unwrap();
    reservation.put_blob("state", b"first").unwrap();
    let used_bytes = pool.stats().used_bytes;
    // Another checksum makes it no other chunk.
    for again in [id(3), ChunkId { checksum: 1, ..id(3) }] {
        let error = reservation.put_chunk(again, b"second").unwrap_err();
        assert!(matches!(error, Error::ChunkTaken { id } if id == again), "{error:?}");
        assert_eq!(error.to_string(), "the snapshot already has a chunk at region 0, chunk 3");
    }
    assert!(
        matches!(reservation.put_blob("state", b"second"), Err(Error::BlobTaken { label }) if label == "state")
    );
    assert_eq!(pool.stats().used_bytes, used_bytes);
    let stored = reservation.publish();
    assert_eq!((stored.chunk(0, 3), stored.blob("state")), (Some(&b"first"[..]), Some(&b"first"[..])));
}

#[test]
fn names_are_safe_as_file_names() {
    let pool = pool(2);
    let longest = "n".repeat(64);
    for name in ["a", "A-1_b.c", "-", "_", "0.json", &longest] {
        assert!(pool.reserve(name).is_ok(), "{name:?}");
    }
    for name in ["", ".", "..", ".hidden", "a/b", "a b", "a\0", "ä", "a\n", &"n".repeat(65)] {
        let error = pool.reserve(name).unwrap_err();
        assert!(matches!(&error, Error::InvalidName { name: told } if told == name), "{name:?}: {error}");
    }
    assert_empty(&pool);
}

#[test]
fn a_full_pool_says_so_and_is_unchanged() {
    let pool = pool(4);
    let reservation = pool.reserve("a").unwrap();
    for key in 0..3 {
        reservation.put_chunk(id(key), &vec![1; 1 << 20]).unwrap();
    }
    let before = pool.stats();
    let error = reservation.put_chunk(id(3), &vec![1; (1 << 20) + 1]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the pool is full: 1048640 bytes wanted, 1048576 of 4194304 free and not promised elsewhere, \
         the largest free piece has 1048576"
    );
    assert_eq!(pool.stats(), before);
    assert!(matches!(
        pool.reserve_promised("b", (1 << 20) + 1),
        Err(Error::Full { wanted_bytes: 1_048_640, free_bytes: 1_048_576, .. })
    ));
    assert!(matches!(pool.reserve_promised("b", usize::MAX), Err(Error::Full { .. })));
    assert_eq!(pool.stats(), before);

    reservation.put_chunk(id(3), &vec![1; 1 << 20]).unwrap();
    let full =
        Error::Full { wanted_bytes: 64, free_bytes: 0, capacity_bytes: 4 << 20, largest_free_bytes: 0 };
    assert_eq!(reservation.put_chunk(id(4), &[]).unwrap_err().to_string(), full.to_string());
    drop(reservation);
    assert_empty(&pool);
}

#[test]
fn promised_bytes_are_kept_for_the_one_they_were_promised_to() {
    let pool = pool(2);
    let promised = pool.reserve_promised("promised", (2 << 20) - 128).unwrap();
    let other = pool.reserve("other").unwrap();
    other.put_chunk(id(0), &[1; 128]).unwrap();
    let error = other.put_chunk(id(1), &[1; 1]).unwrap_err();
    assert!(
        matches!(error, Error::Full { wanted_bytes: 64, free_bytes: 0, largest_free_bytes: 2_097_024, .. }),
        "{error}"
    );

    promised.put_chunk(id(0), &vec![2; (2 << 20) - 256]).unwrap();
    assert_eq!(pool.stats().promised_bytes, 128);
    drop(promised.publish());
    assert_eq!(pool.stats().promised_bytes, 0);
    other.put_chunk(id(1), &[1; 128]).unwrap();
    assert_eq!(pool.stats().free_bytes, 0);

    drop(other);
    pool.remove("promised").unwrap();
    assert_empty(&pool);
}
