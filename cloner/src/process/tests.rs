//! A guest takes over its process, and that sends what it likes: every answer is a named error, and no descriptor stays behind.

use std::fs::File;
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use proptest::prelude::*;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use serde::de::DeserializeOwned;
use vmm::memory::{StillMemory, memfd};

use super::channel::{FDS_MAX, MESSAGE_MAX_BYTES};
use super::wire::{BranchAnswer, GuestReport, GuestRequest};
use super::{Channel, Error, FrozenGuest, GuestProcess};
use crate::admission::CopyLimits;

const STATE: &[u8] = include_bytes!("../../../vmm/src/state/golden/v2-pulse.vmstate");
/// Messages of every kind, as they are sent.
const MESSAGES: [&str; 7] = [
    r#"{"Holding":{"host_addresses":[4096],"held":"Private"}}"#,
    r#"{"Holding":{"host_addresses":[0,1],"held":{"Huge":{"bytes":2097152}}}}"#,
    r#"{"Running":{"generation":1,"id":340282366920938463463374607431768211455}}"#,
    r#"{"Failed":"why"}"#,
    r#"{"Ended":{"message":"how","orderly":true}}"#,
    r#"{"Branched":{"pid":1,"pause_ns":1,"fork_ns":18446744073709551615,"copy_bound_bytes":0}}"#,
    r#"{"Refused":"why"}"#,
];

/// Sends any bytes with any number of descriptors, up to eight. `false` if the kernel refuses.
fn send_raw(channel: &Channel, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    assert!(fds.is_empty() || beside.push(SendAncillaryMessage::ScmRights(fds)));
    sendmsg(channel, &[IoSlice::new(bytes)], &mut beside, SendFlags::NOSIGNAL).is_ok()
}

/// A message of which some bytes were replaced, or any bytes.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let replaced =
        (0..MESSAGES.len(), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3));
    prop_oneof![
        replaced.prop_map(|(kind, changes)| {
            let mut bytes = MESSAGES[kind].as_bytes().to_vec();
            changes.iter().for_each(|(at, byte)| bytes[at.index(MESSAGES[kind].len())] = *byte);
            bytes
        }),
        prop::collection::vec(any::<u8>(), 1..200),
        (MESSAGE_MAX_BYTES - 1..MESSAGE_MAX_BYTES + 3).prop_map(|len| vec![b'1'; len]),
    ]
}

fn receives<T: DeserializeOwned>(bytes: &[u8], fds: usize) {
    let (here, there) = Channel::pair().unwrap();
    let (mut read, write) = UnixStream::pair().unwrap();
    assert!(send_raw(&here, bytes, &vec![write.as_fd(); fds]));
    drop(write);
    let received = there.receive_any::<T>();
    if fds > FDS_MAX || bytes.len() > MESSAGE_MAX_BYTES {
        assert!(received.is_err(), "{} bytes with {fds} descriptors", bytes.len());
    }
    if let Ok(received) = &received {
        assert_eq!(received.as_ref().unwrap().1.len(), fds);
    }
    drop(received);
    assert_eq!(read.read(&mut [0]).unwrap(), 0);

    assert!(send_raw(&here, bytes, &vec![read.as_fd(); fds]));
    assert!(fds == 2 || there.receive::<T, 2>().is_err(), "{fds} descriptors instead of 2");
}

/// A guest process whose other end is in the test's hands.
fn guest() -> (GuestProcess, Channel) {
    let pidfd = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let (console, (control, theirs)) = (UnixStream::pair().unwrap().0, Channel::pair().unwrap());
    (GuestProcess::new(std::process::id(), pidfd, console, control), theirs)
}

fn state() -> File {
    use std::os::unix::fs::FileExt;
    let file = memfd::create(c"state", 0, false).unwrap();
    file.write_all_at(STATE, 0).unwrap();
    file
}

proptest! {
    #[test]
    fn any_message_with_any_descriptors_is_received_or_refused_without_a_trace(bytes in message(), fds in 0..9_usize) {
        receives::<GuestReport>(&bytes, fds);
        receives::<GuestRequest>(&bytes, fds);
        receives::<BranchAnswer>(&bytes, fds);
    }

    #[test]
    fn whatever_a_guest_process_reports_is_an_answer_or_an_error(bytes in message(), fds in 0..3_usize) {
        let state = state();
        for ask in [
            &(|guest: GuestProcess| drop(guest.wait_running())) as &dyn Fn(GuestProcess),
            &|guest| drop(guest.wait_timeout(Duration::ZERO)),
            &|guest| drop(FrozenGuest::of(guest)),
        ] {
            let (guest, theirs) = guest();
            assert!(send_raw(&theirs, &bytes, &vec![state.as_fd(); fds]));
            drop(theirs);
            ask(guest);
        }
    }

    #[test]
    fn whatever_answers_a_request_to_branch_is_a_branch_or_an_error(bytes in message(), fds in 0..3_usize) {
        let (guest, theirs) = guest();
        let peer = std::thread::spawn(move || {
            let (_, given): (GuestRequest, Vec<OwnedFd>) = theirs.receive_any().unwrap().unwrap();
            let [_, _, answers] = <[_; 3]>::try_from(given).unwrap();
            let state = state();
            send_raw(&Channel::from_fd(answers), &bytes, &vec![state.as_fd(); fds]);
        });
        drop(guest.branch(vmm::Announce::Never, CopyLimits::default()));
        peer.join().unwrap();
    }
}

/// What a frozen guest says of itself, with these addresses and this file as its state.
fn frozen(addresses: &str, state: &File) -> Result<FrozenGuest, Error> {
    let (guest, theirs) = guest();
    let report = format!(r#"{{"Holding":{{"host_addresses":[{addresses}],"held":"Private"}}}}"#);
    assert!(send_raw(&theirs, report.as_bytes(), &[state.as_fd()]));
    FrozenGuest::of(guest)
}

#[test]
fn a_state_of_any_length_costs_no_memory() {
    for len_bytes in [(64 << 20) + 1, 1 << 40, i64::MAX as u64 & !0xfff] {
        let file = memfd::create(c"state", 0, false).unwrap();
        file.set_len(len_bytes).unwrap();
        let error = frozen("4096", &file).unwrap_err();
        let told = format!("a state of {len_bytes} bytes is longer than");
        assert!(crate::chain(&error).contains(&told), "{}", crate::chain(&error));
    }
}

#[test]
fn memory_at_any_address_is_read_or_refused() {
    let memory_bytes = 1 << 20;
    for (address, is_possible) in [
        (4096, true),
        (u64::MAX - memory_bytes, true),
        (u64::MAX - memory_bytes + 1, false),
        (u64::MAX, false),
    ] {
        match frozen(&address.to_string(), &state()) {
            Ok(frozen) => {
                assert!(is_possible, "{address:#x}");
                assert!(frozen.memory().read(0, 1 << 19, &mut [0; 4096]).is_err());
            }
            Err(error) => {
                assert!(!is_possible && crate::chain(&error).contains("a region has no end"), "{error:?}");
            }
        }
    }
}
