//! Manifests with a field that is not allowed, in an envelope that is whole.

use super::*;

/// A manifest as version 2 was defined. A build that can no longer read it has changed the schema.
const GOLDEN: &[u8] = include_bytes!("../golden/v2.manifest");

fn golden() -> ManifestV2 {
    let id = |digit: u128| SnapshotId::from_number(digit * 0x1111_1111_1111_1111_1111_1111_1111_1111);
    let chunks = [(0, 0), (1, u64::MAX), (511, 0x0123_4567_89ab_cdef)];
    ManifestV2 {
        producer: String::from("cloner 0.1.0"),
        id: id(0xa),
        dependencies: vec![id(0), id(9)],
        has_parent: true,
        touched_pages: 1234,
        regions: vec![RegionV2::memory(1 << 30)],
        chunks: chunks.map(|(index, checksum)| ChunkId { region: MEMORY_REGION, index, checksum }).to_vec(),
    }
}

#[test]
fn the_golden_manifest_of_version_2_is_read_and_written_again_as_it_was() {
    let manifest = Manifest::from_bytes(GOLDEN).unwrap();
    assert_eq!((manifest.get(), manifest.memory_bytes()), (&golden(), 1 << 30));
    assert_eq!(golden().to_bytes(), GOLDEN);
}

#[test]
#[ignore = "writes the golden manifest: only for a new version of the schema"]
fn write_the_golden_manifest() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/snapshot/golden/v2.manifest");
    std::fs::write(path, golden().to_bytes()).unwrap();
}

fn changed(change: impl FnOnce(&mut ManifestV2)) -> Result<Manifest, ManifestError> {
    let mut manifest = golden();
    change(&mut manifest);
    Manifest::from_bytes(&manifest.to_bytes())
}

/// What this build gives as its own name is allowed, too: otherwise it could not open what it has saved.
#[test]
fn a_producer_has_1_to_64_printable_characters() {
    let longest = "~".repeat(64);
    for producer in [" ", &longest, &ManifestV2::this_producer()] {
        changed(|manifest| manifest.producer = producer.to_owned()).unwrap();
    }
    let (long, endless) = (" ".repeat(65), "x".repeat(1 << 20));
    for producer in ["", &long, &endless, "cloner\n", "cl\u{f6}ner", "\u{7f}"] {
        let error = changed(|manifest| manifest.producer = producer.to_owned()).unwrap_err();
        assert!(
            matches!(&error, ManifestError::Producer { found }
                if producer.starts_with(found) && found.len() <= 64),
            "{error:?}"
        );
        assert!(error.to_string().ends_with("allowed are 1 to 64 printable ASCII characters"), "{error}");
    }
}

#[test]
fn a_name_of_a_region_has_1_to_32_characters_of_few_kinds() {
    let long = "m".repeat(33);
    for name in ["", &long, "Memory", "mem ory", "mem_ory", "m\u{e9}moire", "memory\0"] {
        let error = changed(|manifest| manifest.regions[0].name = name.to_owned()).unwrap_err();
        assert!(
            matches!(&error, ManifestError::RegionName { number: 0, found } if found == name),
            "{error:?}"
        );
    }
}

/// The characters on both sides of each range that is allowed, at the first, a middle and the last place.
#[test]
fn texts_of_a_manifest_have_allowed_characters_at_every_place() {
    let with = |text: &str, at: usize, character: &str| {
        let mut text = text.to_owned();
        text.replace_range(at..=at, character);
        text
    };
    for at in [0, 3, 5] {
        for wrong in ["/", ":", "`", "{", "_", " ", "M", "\u{e9}"] {
            let name = with("memory", at, wrong);
            let error = changed(|manifest| manifest.regions[0].name.clone_from(&name)).unwrap_err();
            assert!(
                matches!(&error, ManifestError::RegionName { number: 0, found } if *found == name),
                "{error:?}"
            );
        }
        // Allowed, but not the name of a region that this build knows.
        for allowed in ["a", "z", "0", "9", "-"] {
            let name = with("memory", at, allowed);
            let error = changed(|manifest| manifest.regions[0].name.clone_from(&name)).unwrap_err();
            assert!(
                matches!(&error, ManifestError::UnknownRegion { name: told } if *told == name),
                "{error:?}"
            );
        }
        for (character, is_allowed) in
            [("\u{1f}", false), (" ", true), ("~", true), ("\u{7f}", false), ("\u{a0}", false)]
        {
            let producer = with("cloner", at, character);
            let result = changed(|manifest| manifest.producer.clone_from(&producer));
            assert_eq!(result.is_ok(), is_allowed, "{producer:?}");
        }
    }
    for (len, fits) in [(1, true), (32, true), (33, false)] {
        let error = changed(|manifest| manifest.regions[0].name = "m".repeat(len)).unwrap_err();
        assert_eq!(matches!(error, ManifestError::UnknownRegion { .. }), fits, "{len}: {error:?}");
    }
}

#[test]
fn a_wrong_region_is_named_by_its_number() {
    let named = |name: &str| RegionV2 { name: name.to_owned(), ..RegionV2::memory(1 << 30) };
    let regions = vec![named("memory"), named("disk-0"), named("Disk")];
    let error = changed(|manifest| manifest.regions = regions).unwrap_err();
    assert!(matches!(&error, ManifestError::RegionName { number: 2, found } if found == "Disk"), "{error:?}");
    let error = changed(|manifest| manifest.regions = ["a", "b", "a"].map(named).to_vec()).unwrap_err();
    assert!(matches!(&error, ManifestError::DuplicateRegion { name } if name == "a"), "{error:?}");
}

#[test]
fn a_manifest_of_another_version_or_with_other_fields_is_refused() {
    let text = String::from_utf8(serde_json::to_vec(&golden()).unwrap()).unwrap();
    for version in [0, 1, 3] {
        let bytes = Schema { version, ..MANIFEST }.wrap(text.as_bytes());
        let error = Manifest::from_bytes(&bytes).unwrap_err();
        assert!(
            matches!(error, ManifestError::Envelope(envelope::Error::Version { found, .. }) if found == version),
            "{error:?}"
        );
    }
    for (from, to) in [
        (r#""has_parent":true"#, r#""has_parent":1"#),
        (r#""touched_pages":1234,"#, ""),
        (r#""touched_pages":1234"#, r#""touched_pages":18446744073709551616"#),
        (r#""producer""#, r#""surprise":0,"producer""#),
        (r#""bytes":1073741824"#, r#""bytes":1073741824,"surprise":0"#),
        (r#""bytes":1073741824"#, r#""bytes":-1"#),
        (r#""region":0"#, r#""region":0,"surprise":0"#),
        (r#""id":"a"#, r#""id":"A"#),
    ] {
        assert!(text.contains(from), "{from}");
        let error = Manifest::from_bytes(&MANIFEST.wrap(text.replacen(from, to, 1).as_bytes())).unwrap_err();
        assert!(matches!(error, ManifestError::Envelope(envelope::Error::Schema(_))), "{to}: {error:?}");
    }
}

#[test]
fn any_other_set_of_regions_is_refused_by_name() {
    let memory = || RegionV2::memory(1 << 30);
    let named = |name: &str| RegionV2 { name: name.to_owned(), ..memory() };
    for regions in [vec![], vec![memory(), named("disk-0")], vec![named("disk-0"), memory()]] {
        let count = regions.len();
        let error = changed(|manifest| manifest.regions = regions).unwrap_err();
        assert!(matches!(error, ManifestError::RegionCount { found } if found == count), "{error:?}");
    }
    let error = changed(|manifest| manifest.regions = vec![named("disk-0")]).unwrap_err();
    assert!(matches!(&error, ManifestError::UnknownRegion { name } if name == "disk-0"), "{error:?}");
    let error = changed(|manifest| manifest.regions = vec![memory(), memory()]).unwrap_err();
    assert!(matches!(&error, ManifestError::DuplicateRegion { name } if name == "memory"), "{error:?}");
}

#[test]
fn a_chunk_of_a_region_that_is_not_listed_is_refused() {
    for region in [1, u16::MAX] {
        let error = changed(|manifest| manifest.chunks[2].region = region).unwrap_err();
        assert!(
            matches!(error, ManifestError::ChunkRegion { chunk, last: 0 }
                if chunk.place() == (region, 511)),
            "{error:?}"
        );
    }
}

#[test]
fn a_kind_of_region_that_is_not_known_is_refused() {
    let text = String::from_utf8(serde_json::to_vec(&golden()).unwrap()).unwrap();
    for kind in ["disk", "Memory", ""] {
        let text = text.replace(r#""kind":"memory""#, &format!(r#""kind":"{kind}""#));
        let error = Manifest::from_bytes(&MANIFEST.wrap(text.as_bytes())).unwrap_err();
        assert!(matches!(error, ManifestError::Envelope(envelope::Error::Schema(_))), "{kind}: {error:?}");
    }
}
