//! Branches of a guest on reserved huge pages, when there are no more of them.

use cloner::live::Limits;
use cloner::process::Error;
use cloner::save;
use cloner::walk::Progress;
use guest_images::pulse::Order;
use vmm::memory::{Backing, PageSize, ReadError};

use crate::MIB;
use crate::branch::{NONCE, boot, dirtying, verify_frozen};
use crate::support::{Studio, assert_names, guest, huge_pages, note, room_for};

/// What the source writes is copied to further huge pages. If there are none, the kernel takes the old ones away from the branch: one
/// that is frozen is never saved with zeros in their place, and the source does not notice.
#[test]
fn pages_taken_from_a_frozen_branch_are_not_zeros() {
    let Some(_room) = room_for(1) else { return };
    const PAGES: usize = 16;
    let Some(huge) = huge_pages(PAGES) else { return };
    {
        let params = dirtying(24 * MIB, Order::Sequential);
        let studio = Studio::new(128 * MIB);
        let source = boot(&params, PAGES as u64 * 2 * MIB, 1, Backing::Private(PageSize::Huge));

        // Asked beforehand, the host says that it has none left.
        let error = source.vm().branch(None, Limits::default()).unwrap_err();
        assert!(matches!(&error, Error::Refused(why) if why.contains("0 bytes are available")), "{error:?}");

        // They are gone after the question.
        let limits = Limits { copy_bytes: Some(u64::MAX) };
        let mut failed = 0;
        for attempt in 0..10 {
            let (frozen, _) = source.vm().freeze(limits).unwrap();
            let reservation = studio.pool.reserve(&format!("attempt-{attempt}"), 0).unwrap();
            match frozen.save(&studio.saver, None, reservation, &Progress::default()) {
                Err(error @ save::Error::Touched(_)) => {
                    assert_names(&error, &["run out of huge pages"]);
                    failed += 1;
                }
                Err(save::Error::Memory(ReadError::Holder { .. })) => failed += 1,
                // All was read before the source wrote again.
                Ok((snapshot, _)) => {
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
