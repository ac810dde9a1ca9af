//! Working sets that belong to another snapshot, or name what its guest does not have, with every checksum mended.

use std::time::Duration;

use cloner_codec::chunk::PageIndex;

use super::*;
use crate::layout::ChunkIndex;
use crate::save::tests::{Guest, Scene, text};

/// Two full chunks and one of three pages.
const MEMORY_BYTES: u64 = (4 << 20) + 3 * 4096;

fn snapshot(scene: &Scene, name: &str) -> Snapshot {
    scene.save(name, &Guest::with(MEMORY_BYTES, [((0, 0), text(1))]), None).snapshot
}

fn number(chunk: u32, page: usize) -> u64 {
    PageNumber::new(ChunkIndex(chunk), PageIndex::new(page).unwrap()).0
}

fn stored(snapshot: SnapshotId, pages: &[u64]) -> Vec<u8> {
    SCHEMA.wrap(&serde_json::to_vec(&WorkingSetV1 { snapshot, pages: pages.to_vec() }).unwrap())
}

#[test]
fn every_page_of_the_guest_may_be_named_and_no_other() {
    let scene = Scene::new();
    let snapshot = snapshot(&scene, "a");
    let id = snapshot.manifest().id;
    let all = [number(0, 0), number(0, 511), number(1, 0), number(1, 511), number(2, 0), number(2, 2)];
    for pages in [&[][..], &all, &[all[5]; 3]] {
        let set = WorkingSet::from_bytes(&stored(id, pages), &snapshot).unwrap();
        assert!(set.pages().iter().map(|page| page.0).eq(pages.iter().copied()), "in their order");
    }
    let beyond = [
        number(2, 3),
        number(2, 511),
        number(3, 0),
        number(u32::MAX, 511),
        u64::from(u32::MAX) * 512 + 512,
        u64::MAX,
    ];
    for page in beyond {
        // In every place of the list.
        for at in 0..=all.len() {
            let mut pages = all.to_vec();
            pages.insert(at, page);
            let error = WorkingSet::from_bytes(&stored(id, &pages), &snapshot).unwrap_err();
            assert!(matches!(error, Error::Page(told) if told == page), "{error:?}");
        }
    }
}

/// The same content, but another id: the pages of one are not those that the other needs first.
#[test]
fn a_working_set_is_loaded_for_its_own_snapshot_only() {
    let scene = Scene::new();
    let [one, other] = ["one", "other"].map(|name| snapshot(&scene, name));
    let (wanted, found) = (one.manifest().id, other.manifest().id);
    let fault = |page| Fault { page: PageNumber(page), time: Duration::ZERO };
    let recorded = WorkingSet::recorded(&one, &[fault(7), fault(3)]);
    assert!(WorkingSet::load(&scene.pool, &one).unwrap().is_none());
    recorded.store(&scene.pool).unwrap();
    assert_eq!(WorkingSet::load(&scene.pool, &one).unwrap(), Some(recorded.clone()));
    assert_eq!(WorkingSet::load(&scene.pool, &other).unwrap(), None);
    // An earlier one is replaced.
    let later = WorkingSet::recorded(&one, &[fault(9)]);
    later.store(&scene.pool).unwrap();
    assert_eq!(WorkingSet::load(&scene.pool, &one).unwrap(), Some(later));

    // Under the name of the other one's, it is told by the id inside.
    let reservation = scene.pool.reserve(&name(found)).unwrap();
    reservation.put_blob(LABEL, &stored(wanted, &[0])).unwrap();
    reservation.publish();
    let error = WorkingSet::load(&scene.pool, &other).unwrap_err();
    assert!(
        matches!(error, Error::Other { found: told, wanted: asked } if (told, asked) == (wanted, found)),
        "{error:?}"
    );
    WorkingSet::remove(&scene.pool, found).unwrap();
    assert_eq!(WorkingSet::load(&scene.pool, &other).unwrap(), None);
    WorkingSet::remove(&scene.pool, found).unwrap();
    assert!(WorkingSet::load(&scene.pool, &one).unwrap().is_some(), "the one of the other snapshot is gone");
}

#[test]
fn what_is_not_a_working_set_is_refused_by_what_is_wrong_with_it() {
    let scene = Scene::new();
    let snapshot = snapshot(&scene, "a");
    let id = snapshot.manifest().id;
    scene.pool.reserve(&name(id)).unwrap().publish();
    let error = WorkingSet::load(&scene.pool, &snapshot).unwrap_err();
    assert!(matches!(&error, Error::Missing { name: told } if *told == name(id)), "{error:?}");
    let text = format!(r#"{{"snapshot":"{id}","pages":[0]}}"#);
    let damage =
        |schema: Schema, text: &str| match WorkingSet::from_bytes(&schema.wrap(text.as_bytes()), &snapshot) {
            Err(Error::Damaged(why)) => why,
            other => panic!("{other:?}"),
        };
    WorkingSet::from_bytes(&SCHEMA.wrap(text.as_bytes()), &snapshot).unwrap();
    for version in [0, 2] {
        let why = damage(Schema { version, ..SCHEMA }, &text);
        assert!(matches!(why, envelope::Error::Version { found, .. } if found == version), "{why:?}");
    }
    let why = damage(Schema { magic: *b"CLNSNAP\0", ..SCHEMA }, &text);
    assert!(matches!(why, envelope::Error::Magic { .. }), "{why:?}");
    for (from, to) in [
        ("[0]", "[-1]"),
        ("[0]", "[18446744073709551616]"),
        (",\"pages\":[0]", ""),
        ("{", "{\"surprise\":0,"),
        ("\"snapshot\":\"", "\"snapshot\":\"0"),
    ] {
        assert!(text.contains(from));
        let why = damage(SCHEMA, &text.replacen(from, to, 1));
        assert!(matches!(why, envelope::Error::Schema(_)), "{to}: {why:?}");
    }
}
