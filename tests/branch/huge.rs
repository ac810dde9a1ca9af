//! Branches of guests on huge pages: what becomes of the pages, and what happens when there are no more.

use cloner::save::SaveOptions;
use cloner::save::Saved;
use cloner_testing::process::eventually;
use cloner_testing::{Studio, assert_names, guest, huge_pages, note, room_for};
use std::fs;

use cloner::admission::CopyLimits;
use cloner::process::Error;
use cloner::save;
use guest_images::pulse::WriteOrder;
use vmm::Announce;
use vmm::memory::{Backing, PageSize, ReadError};

use super::{NONCE, boot, dirtying, freeze, private, verify, verify_frozen};
use crate::{KIB, MIB};

/// Copy-on-write splits the huge pages of a machine that was branched. Where the machine has written enough, they come back while
/// the branch still exists.
#[test]
fn huge_pages_come_back_while_both_run() {
    let Some(_room) = room_for(2) else { return };
    let params = dirtying(16 * MIB, WriteOrder::Random);
    let source = boot(&params, 24 * MIB, 1, private());
    let kib = |name: &str| {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", source.pid())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap()
    };
    let before = kib("AnonHugePages:");
    if before < 8 * KIB {
        note(format_args!("branch: the host gave {before} KiB of huge pages: none can come back"));
        return;
    }
    // At first all memory is shared. Memory that is private again was copied page by page, so no huge page is as it was.
    let frozen = freeze(&source);
    eventually(|| (kib("Private_Dirty:") >= 12 * KIB).then_some(()));
    let after = eventually(|| Some(kib("AnonHugePages:")).filter(|now| *now >= before / 4 * 3));
    note(format_args!("branch: {before} KiB on huge pages, and {after} soon after a branch"));
    verify_frozen(&params, &frozen);
    verify(&params, &source);
}

/// What the source writes is copied to further huge pages. If there are none, the kernel takes the old ones away from the branch: a
/// frozen branch is then never saved with zeros in their place, and the source does not notice.
#[test]
fn pages_taken_from_a_frozen_branch_are_not_zeros() {
    let Some(_room) = room_for(1) else { return };
    const PAGES: usize = 16;
    let Some(huge) = huge_pages(PAGES) else { return };
    {
        let params = dirtying(24 * MIB, WriteOrder::Sequential);
        let studio = Studio::new(128 * MIB);
        let source = boot(&params, PAGES as u64 * 2 * MIB, 1, Backing::Private(PageSize::Huge));

        // The source has all that are free. When asked beforehand, the host says that it has none left.
        let error = source.vm().branch(Announce::Never, CopyLimits::default()).unwrap_err();
        assert!(matches!(&error, Error::Refused(why) if why.contains("0 bytes are available")), "{error:?}");

        // This time the pages are gone only after the question.
        let limits = CopyLimits { copy_bytes: Some(u64::MAX) };
        let mut failed = 0;
        for attempt in 0..10 {
            let (frozen, _) = source.vm().freeze(limits).unwrap();
            let reservation = studio.pool.reserve(&format!("attempt-{attempt}")).unwrap();
            match studio.saver.save(frozen.moment(), reservation, &SaveOptions::default()) {
                Err(error @ save::Error::Touched(_)) => {
                    assert_names(&error, &["run out of huge pages"]);
                    failed += 1;
                }
                Err(save::Error::Memory(ReadError::Holder { .. })) => failed += 1,
                // All was read before the source wrote again.
                Ok(Saved { snapshot, .. }) => {
                    verify_frozen(&params, &frozen);
                    guest::verify(&params, &studio.memory(&snapshot));
                }
                Err(error) => panic!("{error:?}"),
            }
            assert_eq!(source.nonce(), NONCE);
            source.beat();
        }
        assert!(failed > 0, "the source never wrote meanwhile");
        note(format_args!(
            "branch: without huge pages for copies {failed} of 10 frozen branches could not be saved"
        ));
    }
    huge.assert_all_back();
}
