//! What a pool lives in. Tests that need huge pages set their own aside and give them back.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::hugepages::{self, HugePages, Reserved};
use super::*;

/// Held by every test that looks at the host's numbers.
static HOST: Mutex<()> = Mutex::new(());

fn lock_host() -> MutexGuard<'static, ()> {
    HOST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets pages aside; `None`, loudly, only where this process may not. Any other failure fails the test.
fn set_aside(pages: usize) -> Option<Reserved> {
    if let Err(error) = OpenOptions::new().write(true).open(hugepages::SETTING)
        && matches!(
            error.kind(),
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotFound
        )
    {
        println!("SKIPPED: {} cannot be written: {error}", hugepages::SETTING);
        return None;
    }
    Some(hugepages::reserve(pages).unwrap())
}

fn config(capacity_bytes: usize, pages: Pages) -> PoolConfig {
    PoolConfig { capacity_bytes, pages, populate: Populate::OnFirstUse }
}

/// More than any host has.
const FAR_TOO_MUCH: usize = 1 << 46;

#[test]
fn a_pool_on_huge_pages_owns_them_and_gives_them_back() {
    let _host = lock_host();
    let before = HugePages::read().unwrap();
    let Some(reserved) = set_aside(6) else { return };
    assert_eq!(reserved.pages(), 6);
    let with_ours = HugePages::read().unwrap();
    assert_eq!(with_ours.available(), before.available() + 6);

    for populate in [Populate::OnFirstUse, Populate::AtOnce] {
        let config = PoolConfig { capacity_bytes: (8 << 20) + 1, pages: Pages::Huge, populate };
        let pool = Pool::new(&config).unwrap();
        assert_eq!(pool.capacity_bytes(), 10 << 20, "rounded up to whole pages");
        assert_eq!(pool.backing(), Backing::Huge { pages: 5 });
        assert_eq!(pool.backing().to_string(), "5 huge pages of 2 MiB");
        let host = HugePages::read().unwrap();
        assert_eq!(host.available(), with_ours.available() - 5, "promised when the pool is made");
        let touched = with_ours.free - host.free;
        assert_eq!(touched, if populate == Populate::AtOnce { 5 } else { 0 });

        let wanted = host.available() + 1;
        let Err(Error::TooFewHugePages(shortage)) = Pool::new(&self::config(wanted << 21, Pages::Huge))
        else {
            panic!("there was one page too few");
        };
        let numbers = TooFewHugePages { wanted, available: host.available(), total: host.total };
        assert_eq!(shortage, numbers);

        let reservation = pool.reserve("a", 10 << 20).unwrap();
        reservation.put_chunk(0, &vec![9; 10 << 20]).unwrap();
        let stored = reservation.seal();
        drop(pool);
        assert!(stored.chunk(0).unwrap().iter().all(|&byte| byte == 9));
        drop(stored);
        assert_eq!(HugePages::read().unwrap(), with_ours, "back with the last handle");
    }
    drop(reserved);
    assert_eq!(HugePages::read().unwrap(), before);
}

#[test]
fn pages_given_back_while_in_use_leave_with_their_pool() {
    let _host = lock_host();
    let before = HugePages::read().unwrap();
    let Some(reserved) = set_aside(2) else { return };
    let pool = Pool::new(&PoolConfig { populate: Populate::AtOnce, ..config(4 << 20, Pages::Huge) }).unwrap();
    drop(reserved);
    let again = set_aside(1).unwrap();
    drop(pool);
    drop(again);
    assert_eq!(HugePages::read().unwrap(), before);
}

#[test]
fn too_few_huge_pages_is_an_error_that_tells_the_way_out() {
    let _host = lock_host();
    let host = HugePages::read().unwrap();
    let error = Pool::new(&config(FAR_TOO_MUCH, Pages::Huge)).unwrap_err();
    let wanted = FAR_TOO_MUCH >> 21;
    let enough = host.total + wanted - host.available();
    assert_eq!(
        error.to_string(),
        format!(
            "the pool wants {wanted} huge pages of 2 MiB, {} of the host's {} are free; \
             as root, `echo {enough} > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages` sets enough aside",
            host.available(),
            host.total
        )
    );
    assert_eq!(HugePages::read().unwrap(), host);
}

#[test]
fn ordinary_pages_are_taken_only_when_allowed_and_say_why() {
    let _host = lock_host();
    let host = HugePages::read().unwrap();
    // One page more than are free, and at least a pool that fits in memory.
    let capacity_bytes = (host.available() + 1) << 21;
    let pool = Pool::new(&config(capacity_bytes, Pages::HugeOrOrdinary)).unwrap();
    let shortage =
        TooFewHugePages { wanted: host.available() + 1, available: host.available(), total: host.total };
    let because = WhyOrdinary::TooFewHugePages(shortage);
    assert_eq!(pool.backing(), Backing::Ordinary { because });
    assert_eq!(pool.backing().to_string(), format!("ordinary pages, because {shortage}"));
    assert_empty(&pool);

    let pool =
        Pool::new(&PoolConfig { populate: Populate::AtOnce, ..config(4 << 20, Pages::Ordinary) }).unwrap();
    assert_eq!(pool.backing(), Backing::Ordinary { because: WhyOrdinary::Configured });
    assert_empty(&pool);
}

#[test]
fn capacities_no_host_has_are_refused() {
    for capacity_bytes in [0, usize::MAX, usize::MAX / 2, usize::MAX - (2 << 20)] {
        for pages in [Pages::Huge, Pages::HugeOrOrdinary, Pages::Ordinary] {
            let error = Pool::new(&config(capacity_bytes, pages)).unwrap_err();
            assert!(
                matches!(error, Error::Capacity { capacity_bytes: told } if told == capacity_bytes),
                "{capacity_bytes} bytes of {pages:?}: {error}"
            );
        }
    }
    for pages in [Pages::HugeOrOrdinary, Pages::Ordinary] {
        let error = Pool::new(&config(FAR_TOO_MUCH, pages)).unwrap_err();
        assert!(matches!(error, Error::TooLittleMemory { wanted_bytes: FAR_TOO_MUCH, .. }), "{error}");
    }
}

#[test]
fn more_huge_pages_than_memory_are_refused_before_the_kernel_tries() {
    let _host = lock_host();
    let before = HugePages::read().unwrap();
    for pages in [FAR_TOO_MUCH >> 21, usize::MAX] {
        let error = hugepages::reserve(pages).unwrap_err();
        assert!(matches!(error, Error::HugePagesRefused { wanted, .. } if wanted == pages), "{error}");
    }
    assert_eq!(HugePages::read().unwrap(), before);
}
