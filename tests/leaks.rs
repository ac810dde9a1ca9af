//! Building, cloning and dropping machines leaves nothing behind in the process.

use cloner::pool::{PoolPages, Populate, hugepages};
use cloner_testing::host::Holdings;
use cloner_testing::room::can_set_huge_pages_aside;
use cloner_testing::{Guest, Studio, alone, guest, huge_pages, room_for};
use guest_images::pulse::Params;
use vmm::Config;
use vmm::memory::{Backing, PageSize};

use crate::MIB;

const CYCLES: usize = 20;

/// Makes and drops a pool, a source and a clone.
fn cycle(backing: &Backing, vcpus: u8) {
    let studio = Studio::new(16 * MIB);
    let params = Params { beat_ms: 0, ..Params::new(1, MIB) };
    let source = Guest::boot(&Config { backing: backing.clone(), ..guest::pulse(&params, 4 * MIB, vcpus) });
    source.line("pulse: ready");
    let snapshot = studio.snapshot(&source, "leak");
    let clone = studio.clone_of(&snapshot);
    drop(source);
    assert_eq!(clone.nonce(), 1);
    studio.pool.remove("leak").unwrap();
}

#[test]
fn twenty_lives_leave_no_descriptor_thread_or_mapping() {
    let Some(_room) = room_for(2) else { return };
    alone("leaks::twenty_lives_leave_no_descriptor_thread_or_mapping", || {
        let kinds = [(Backing::Private(PageSize::Transparent), 1), (Backing::Shared(PageSize::Base), 4)];
        // The first cycle makes what a process keeps: the KVM descriptor, thread stacks in the C library's cache.
        let alone_threads = Holdings::now().threads;
        let all = || kinds.iter().for_each(|(backing, vcpus)| cycle(backing, *vcpus));
        all();
        let before = Holdings::when(|now| now.threads == alone_threads);
        (0..CYCLES).for_each(|_| all());
        // A leaked machine has a dozen mappings.
        before.assert_no_more_now(CYCLES / 2);
    });
}

#[test]
fn failed_restores_leave_nothing() {
    let Some(_room) = room_for(1) else { return };
    alone("leaks::failed_restores_leave_nothing", || {
        let studio = Studio::new(16 * MIB);
        let source = Guest::boot(&guest::pulse(&Params::new(1, MIB), 4 * MIB, 4));
        source.line("pulse: ready");
        let snapshot = studio.snapshot(&source, "any");
        drop(source);
        // KVM refuses this state when most of the machine is built: reserved bits of CR0 on the last vCPU.
        let mut state = snapshot.state().get().clone();
        state.vcpus[3].sregs.cr0 = u64::MAX;
        let state = vmm::VmState::try_from(state).unwrap();
        let fail = || {
            let memory = studio.memory(&snapshot);
            let error = vmm::Vm::restore(&state, memory, Box::new(std::io::sink())).unwrap_err();
            assert!(error.to_string().contains("vCPU"), "{error}");
        };
        fail();
        let before = Holdings::now();
        (0..CYCLES).for_each(|_| fail());
        before.assert_no_more_now(0);
    });
}

/// The pages go back whichever is dropped first: the permission, the pool, or the guest that uses them.
#[test]
fn huge_pages_go_back_to_the_host() {
    let Some(_room) = room_for(2) else { return };
    if !can_set_huge_pages_aside() {
        return;
    }
    let Some(huge) = huge_pages(0) else { return };
    const PAGES: usize = 16;
    let mut order: [usize; 3] = [0, 1, 2];
    for _ in 0..3 {
        let mut reserved = Some(hugepages::reserve(PAGES).unwrap());
        let mut studio = Some(Studio::with_pool(16 * MIB, PoolPages::Huge, Populate::AtOnce));
        let backing = Backing::Private(PageSize::Huge);
        let mut source =
            Some(Guest::boot(&Config { backing, ..guest::pulse(&Params::new(1, MIB), 8 * MIB, 1) }));
        source.as_ref().unwrap().line("pulse: ready");
        studio.as_ref().unwrap().snapshot(source.as_ref().unwrap(), "huge");
        for what in order {
            match what {
                0 => drop(reserved.take()),
                1 => drop(studio.take()),
                _ => drop(source.take()),
            }
        }
        huge.assert_as_before();
        order.rotate_left(1);
    }
}
