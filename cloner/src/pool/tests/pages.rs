//! Tests of the pages that a pool is made of. Tests that need huge pages set their own aside and give them back.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::hugepages::{self, HugePages, ReservedHugePages};
use super::*;

/// Held by every test that reads or changes the host's numbers: against the other tests of this process, and against those of
/// other processes, which lock the same file. On a kernel without huge pages there is none.
fn lock_host() -> (MutexGuard<'static, ()>, Option<File>) {
    static HOST: Mutex<()> = Mutex::new(());
    let here = HOST.lock().unwrap_or_else(PoisonError::into_inner);
    let everywhere = File::open(hugepages::SETTING.replace("/nr_", "/free_")).ok();
    if let Some(file) = &everywhere {
        file.lock().unwrap();
    }
    (here, everywhere)
}

/// Sets pages aside. Returns `None`, and prints why, only if this process may not do so. Any other failure fails the test.
fn set_aside(pages: usize) -> Option<ReservedHugePages> {
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

fn config(capacity_bytes: usize, pages: PoolPages) -> PoolConfig {
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
        let config = PoolConfig { capacity_bytes: (8 << 20) + 1, pages: PoolPages::Huge, populate };
        let pool = Pool::new(&config).unwrap();
        assert_eq!(pool.capacity_bytes(), 10 << 20, "rounded up to whole pages");
        assert_eq!(pool.backing(), PoolBacking::Huge { pages: 5 });
        assert_eq!(pool.backing().to_string(), "5 huge pages of 2 MiB");
        let host = HugePages::read().unwrap();
        assert_eq!(host.available(), with_ours.available() - 5, "promised when the pool is made");
        let touched = with_ours.free - host.free;
        assert_eq!(touched, if populate == Populate::AtOnce { 5 } else { 0 });

        let wanted = host.available() + 1;
        let Err(Error::TooFewHugePages(shortage)) = Pool::new(&self::config(wanted << 21, PoolPages::Huge))
        else {
            panic!("a pool was made, or failed for another reason, although one huge page was missing");
        };
        let numbers = TooFewHugePages { wanted, available: host.available(), total: host.total };
        assert_eq!(shortage, numbers);

        let reservation = pool.reserve_promised("a", 10 << 20).unwrap();
        reservation.put_chunk(id(0), &vec![9; 10 << 20]).unwrap();
        let stored = reservation.publish();
        drop(pool);
        assert!(stored.chunk(0, 0).unwrap().iter().all(|&byte| byte == 9));
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
    let pool =
        Pool::new(&PoolConfig { populate: Populate::AtOnce, ..config(4 << 20, PoolPages::Huge) }).unwrap();
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
    let error = Pool::new(&config(FAR_TOO_MUCH, PoolPages::Huge)).unwrap_err();
    let wanted = FAR_TOO_MUCH >> 21;
    let enough = host.total + wanted - host.available();
    assert_eq!(
        error.to_string(),
        format!(
            "{wanted} huge pages of 2 MiB are needed, {} of the host's {} are free; \
             as root, `sysctl vm.nr_hugepages={enough}` sets enough aside",
            host.available(),
            host.total
        )
    );
    assert_eq!(HugePages::read().unwrap(), host);
}

#[test]
fn ordinary_pages_are_taken_where_asked_for() {
    let pool = Pool::new(&PoolConfig { populate: Populate::AtOnce, ..config(4 << 20, PoolPages::Ordinary) })
        .unwrap();
    assert_eq!(
        (pool.backing(), pool.backing().to_string()),
        (PoolBacking::Ordinary, "ordinary pages".into())
    );
    assert_empty(&pool);
    let provided = provide(4 << 20, PageChoice::Ordinary, Populate::OnFirstUse).unwrap();
    assert_eq!(provided.pool.backing(), PoolBacking::Ordinary);
    assert!(provided.why_ordinary.is_none(), "nothing else was wanted");
}

/// Takes free pages first, then sets pages aside and gives them back. A pool that fails leaves none set aside.
#[test]
fn huge_pages_are_provided_where_this_process_may_set_them_aside() {
    let _host = lock_host();
    let before = HugePages::read().unwrap();
    let Some(reserved) = set_aside(3) else { return };
    let with_ours = HugePages::read().unwrap();
    let free_bytes = with_ours.available() << 21;
    for choice in [PageChoice::Auto, PageChoice::Huge] {
        for (capacity_bytes, set_aside) in [(free_bytes, 0), (free_bytes + (4 << 20), 2)] {
            let provided = provide(capacity_bytes, choice, Populate::OnFirstUse).unwrap();
            assert_eq!(provided.pool.backing(), PoolBacking::Huge { pages: capacity_bytes >> 21 });
            assert!(provided.why_ordinary.is_none());
            assert_eq!(HugePages::read().unwrap().total, with_ours.total + set_aside);
            drop(provided);
            assert_eq!(HugePages::read().unwrap(), with_ours);
        }
    }
    let error = provide(FAR_TOO_MUCH, PageChoice::Huge, Populate::OnFirstUse).unwrap_err();
    assert!(matches!(error, Error::HugePagesRefused { .. }), "{error}");
    let error = provide(FAR_TOO_MUCH, PageChoice::Auto, Populate::OnFirstUse).unwrap_err();
    assert!(matches!(error, Error::TooLittleMemory { .. }), "{error}");
    assert_eq!(HugePages::read().unwrap(), with_ours);
    drop(reserved);
    assert_eq!(HugePages::read().unwrap(), before);
}

/// What a process that may not set pages aside is told.
#[test]
fn without_huge_pages_it_is_said_in_one_line_what_would_change_that() {
    let shortage = TooFewHugePages { wanted: 72, available: 10, total: 30 };
    let say = |because: Error| WhyOrdinary { needed: 72, because }.to_string();
    assert_eq!(
        say(shortage.into()),
        "72 huge pages needed, 10 free, and only root may set more aside; `sysctl vm.nr_hugepages=92` changes that"
    );
    assert_eq!(
        say(Error::HugePagesRefused { wanted: 62, got: 5 }),
        "72 huge pages needed, 10 free, and of 62 more only 5 could be set aside; doing so at boot changes that"
    );
    let refused = Error::Populate { len_bytes: 9, source: ErrorKind::OutOfMemory.into() };
    let said = say(refused);
    assert!(said.starts_with("72 huge pages needed, but the kernel promised 9 bytes"), "{said}");
    assert!(said.ends_with("out of memory"), "{said}");
}

#[test]
fn capacities_no_host_has_are_refused() {
    for capacity_bytes in [0, usize::MAX, usize::MAX / 2, usize::MAX - (2 << 20)] {
        for pages in [PoolPages::Huge, PoolPages::Ordinary] {
            let error = Pool::new(&config(capacity_bytes, pages)).unwrap_err();
            assert!(
                matches!(error, Error::Capacity { capacity_bytes: told } if told == capacity_bytes),
                "{capacity_bytes} bytes of {pages:?}: {error}"
            );
        }
        let error = provide(capacity_bytes, PageChoice::Auto, Populate::OnFirstUse).unwrap_err();
        assert!(matches!(error, Error::Capacity { .. }), "{error}");
    }
    let error = Pool::new(&config(FAR_TOO_MUCH, PoolPages::Ordinary)).unwrap_err();
    assert!(matches!(error, Error::TooLittleMemory { wanted_bytes: FAR_TOO_MUCH, .. }), "{error}");
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
