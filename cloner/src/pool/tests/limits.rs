//! Each limit of names, tags and sizes: at it, one beyond it, with nothing, and at every place in a text.

use std::collections::BTreeMap;

use super::*;

fn tagged(tags: impl IntoIterator<Item = (String, String)>) -> Result<(), Error> {
    let labels = Labels { tags: tags.into_iter().collect::<BTreeMap<_, _>>(), ..Labels::default() };
    pool(2).reserve_with("a", PutOptions { labels, ..PutOptions::default() }).map(drop)
}

/// `text` with `wrong` in place of its first, a middle and its last character.
fn at_every_place<'a>(text: &'a str, wrong: &'a str) -> impl Iterator<Item = String> + 'a {
    [0, 1, text.len() / 2, text.len() - 1].into_iter().map(move |at| {
        let mut text = text.to_owned();
        text.replace_range(at..=at, wrong);
        text
    })
}

#[test]
fn a_name_has_allowed_characters_at_every_place() {
    let pool = pool(2);
    for unlisted in [false, true] {
        let reserve =
            |name: &str| pool.reserve_with(name, PutOptions { unlisted, ..PutOptions::default() }).map(drop);
        // The characters on both sides of each range that is allowed.
        for wrong in ["@", "[", "`", "{", "/", ":", ",", "+", "~", " ", "\u{7f}", "\0", "\u{e9}"] {
            for name in at_every_place("golden-1", wrong) {
                let error = reserve(&name).unwrap_err();
                assert!(
                    matches!(&error, Error::InvalidName { name: told } if *told == name),
                    "{name:?}: {error:?}"
                );
            }
        }
        for allowed in ["A", "Z", "a", "z", "0", "9", "_", "-"] {
            at_every_place("golden-1", allowed).for_each(|name| reserve(&name).unwrap());
        }
        reserve("a.").unwrap();
        for (len, fits) in [(0, false), (1, true), (63, true), (64, true), (65, false)] {
            assert_eq!(reserve(&"n".repeat(len)).is_ok(), fits, "{len} characters");
        }
    }
    assert_empty(&pool);
}

#[test]
fn tags_are_32_at_most() {
    let numbered = |count: usize| (0..count).map(|number| (format!("{number:02}"), String::new()));
    assert_eq!((MAX_TAGS, MAX_TAG_BYTES), (32, 256));
    for count in [0, 1, 31, 32] {
        tagged(numbered(count)).unwrap();
    }
    for count in [33, 100] {
        let error = tagged(numbered(count)).unwrap_err();
        assert!(matches!(error, Error::TooManyTags { tags } if tags == count), "{error:?}");
    }
}

#[test]
fn the_key_of_a_tag_has_1_to_256_bytes_and_its_value_256_at_most() {
    let of = |key_bytes, value_bytes| tagged([("k".repeat(key_bytes), "v".repeat(value_bytes))]);
    for (key, value) in [(1, 0), (1, 256), (256, 0), (256, 256)] {
        of(key, value).unwrap();
    }
    for (key, value) in [(0, 0), (0, 1), (257, 0), (1, 257), (257, 257)] {
        let error = of(key, value).unwrap_err();
        assert!(matches!(&error, Error::InvalidTag { key: told } if told.len() == key), "{error:?}");
    }
    // Bytes and not characters: 128 letters of two bytes each.
    tagged([("\u{e9}".repeat(128), "\u{e9}".repeat(128))]).unwrap();
    assert!(tagged([("\u{e9}".repeat(128) + "k", String::new())]).is_err());
}

#[test]
fn tags_have_no_control_characters_at_any_place() {
    for control in ["\0", "\n", "\u{1f}", "\u{7f}", "\u{80}", "\u{9f}"] {
        for text in at_every_place("value", control) {
            assert!(
                matches!(tagged([(text.clone(), String::new())]), Err(Error::InvalidTag { key }) if key == text)
            );
            let error = tagged([(String::from("key"), text.clone())]).unwrap_err();
            assert!(matches!(&error, Error::InvalidTag { key } if key == "key"), "{text:?}: {error:?}");
        }
    }
    for allowed in [" ", "~", "\u{a0}", "\u{1f600}"] {
        at_every_place("value", allowed).for_each(|text| tagged([(text.clone(), text)]).unwrap());
    }
    // One that is wrong among others that are not, whatever their order.
    for wrong in ["a", "m", "z"] {
        let tags =
            ["a", "m", "z"].map(|key| (key.to_owned(), if key == wrong { "\n" } else { "fine" }.to_owned()));
        let error = tagged(tags).unwrap_err();
        assert!(matches!(&error, Error::InvalidTag { key } if key == wrong), "{error:?}");
    }
}

#[test]
fn a_put_that_is_refused_for_its_labels_claims_neither_name_nor_memory() {
    let pool = pool(2);
    let labels = Labels { tags: [(String::new(), String::new())].into(), ..Labels::default() };
    let options = PutOptions { promise_bytes: 1 << 20, labels, ..PutOptions::default() };
    assert!(matches!(pool.reserve_with("a", options), Err(Error::InvalidTag { .. })));
    assert_empty(&pool);
    // Nor does one that is refused for its memory keep the name.
    assert!(matches!(pool.reserve_promised("a", (2 << 20) + 1), Err(Error::Full { .. })));
    assert_empty(&pool);
    drop(pool.reserve_promised("a", 2 << 20).unwrap());
}

#[test]
fn an_extent_ends_at_the_next_granule() {
    let pool = pool(2);
    for (len_bytes, occupied_bytes) in
        [(0, 64), (1, 64), (63, 64), (64, 64), (65, 128), (128, 128), (129, 192)]
    {
        let reservation = pool.reserve("a").unwrap();
        reservation.put_chunk(id(0), &vec![1; len_bytes]).unwrap();
        let stored = reservation.publish();
        assert_eq!((stored.len_bytes(), stored.occupied_bytes()), (len_bytes, occupied_bytes));
        assert_eq!(pool.stats().used_bytes, occupied_bytes);
        pool.remove("a").unwrap();
    }
    for (promise_bytes, promised_bytes) in [(0, 0), (1, 64), (64, 64), (65, 128)] {
        let reservation = pool.reserve_promised("a", promise_bytes).unwrap();
        assert_eq!(pool.stats().promised_bytes, promised_bytes);
        drop(reservation);
    }
}

#[test]
fn a_pool_has_whole_huge_pages_and_one_at_least() {
    let of = |capacity_bytes| {
        let config =
            PoolConfig { capacity_bytes, pages: PoolPages::Ordinary, populate: Populate::OnFirstUse };
        Pool::new(&config).map(|pool| pool.capacity_bytes())
    };
    for (wanted, got) in
        [(1, 2 << 20), ((2 << 20) - 1, 2 << 20), (2 << 20, 2 << 20), ((2 << 20) + 1, 4 << 20)]
    {
        assert_eq!(of(wanted).unwrap(), got);
    }
    let greatest = isize::MAX as usize;
    for impossible in [0, greatest, usize::MAX - (2 << 20), usize::MAX] {
        let error = of(impossible).unwrap_err();
        assert!(
            matches!(error, Error::Capacity { capacity_bytes } if capacity_bytes == impossible),
            "{error:?}"
        );
    }
}

/// Names, labels, marks and dependents belong to an entry, and not to the name that a later entry may have.
#[test]
fn what_is_known_of_a_removed_snapshot_is_not_known_of_the_next_one_of_its_name() {
    let pool = pool(2);
    let ledger = Ledger::new(UnflushedLimit::NONE);
    let put = |name: &str, priority, on: &[&Arc<StoredSnapshot>]| {
        let labels = Labels { priority: Priority(priority), ..Labels::default() };
        let claim = Some(ledger.claim(0).unwrap());
        let reservation =
            pool.reserve_with(name, PutOptions { labels, claim, ..PutOptions::default() }).unwrap();
        reservation.put_chunk(id(0), &[priority; 100]).unwrap();
        on.iter().for_each(|other| reservation.depend_on(Arc::clone(other)));
        reservation.publish()
    };
    let listing = |name: &str| pool.list().into_iter().find(|listing| listing.name == name).unwrap();
    let first = put("a", 1, &[]);
    let child = put("child", 2, &[&first]);
    let grandchild = put("grandchild", 3, &[&first, &child]);
    assert_eq!((listing("a").dependents, listing("child").dependents), (2, 1));
    let names = |stored: &StoredSnapshot| {
        stored.kept().iter().map(|kept| kept.labels().priority.0).collect::<Vec<_>>()
    };
    assert_eq!(
        (names(&grandchild), names(&child)),
        (vec![1, 2], vec![1]),
        "each once, after what it depends on"
    );
    assert_eq!(first.number(|_| Some(11)), Some(11));
    assert_eq!(first.number(|_| Some(12)), Some(11), "it is worked out once");
    first.mark_safe();
    assert!(!listing("a").unflushed && listing("child").unflushed);

    pool.remove("a").unwrap();
    let second = put("a", 9, &[]);
    let again = listing("a");
    assert_eq!((again.dependents, again.labels.priority, again.unflushed), (0, Priority(9), true));
    assert_eq!(second.number(|_| Some(22)), Some(22));
    assert_eq!((first.chunk(0, 0), second.chunk(0, 0)), (Some(&[1; 100][..]), Some(&[9; 100][..])));
    assert_eq!(listing("child").shared_bytes, first.occupied_bytes());
    assert_eq!(listing("grandchild").shared_bytes, first.occupied_bytes() + child.occupied_bytes());
    assert_eq!(ledger.usage().snapshots, 3);
    // A mark on the old entry says nothing about the new one, and the other way round.
    first.mark_safe();
    assert!(second.is_unflushed());
    second.mark_safe();
    assert_eq!(ledger.usage().snapshots, 2);
    assert!(child.is_unflushed());
}
