//! A guest's process that answers late, wrongly, in part or not at all.

use std::fs::File;
use std::thread;

use vmm::memory::RemotePages;

use super::*;
use crate::process::FrozenGuest;

/// A guest process whose other end a test holds. Its number and descriptor are this process's.
fn guest() -> (GuestProcess, Channel) {
    let (control, theirs) = Channel::pair().unwrap();
    let (console, _) = UnixStream::pair().unwrap();
    let pidfd = pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).unwrap();
    (GuestProcess::new(std::process::id(), pidfd, console, control), theirs)
}

fn ended() -> GuestReport {
    GuestReport::Ended { message: String::from("it shut down"), orderly: true }
}

fn holding(host_addresses: &[u64]) -> GuestReport {
    GuestReport::Holding { host_addresses: host_addresses.to_vec(), held: RemotePages::Private }
}

fn failed() -> GuestReport {
    GuestReport::Failed(String::from("no memory"))
}

/// The guest of a process that has sent these reports and is gone.
fn reported(reports: &[GuestReport]) -> GuestProcess {
    let (guest, theirs) = guest();
    reports.iter().for_each(|report| theirs.send(report, &[]).unwrap());
    guest
}

#[test]
fn every_report_leads_to_its_own_result_when_a_guest_is_to_run() {
    let wait = |report: &[GuestReport]| reported(report).wait_running().map(|_| ()).unwrap_err().to_string();
    assert_eq!(wait(&[failed()]), "no memory");
    assert_eq!(wait(&[ended()]), "it shut down");
    assert_eq!(wait(&[holding(&[1])]), "the guest holds still");
    assert_eq!(wait(&[]), Error::Ended.to_string());
}

#[test]
fn a_guest_is_waited_for_until_it_ends_and_its_ending_is_remembered() {
    let guest = reported(&[holding(&[]), ended()]);
    for _ in 0..2 {
        let ending = guest.wait_timeout(Duration::from_secs(60)).unwrap().unwrap();
        assert_eq!((ending.message.as_str(), ending.orderly), ("it shut down", true));
    }
    assert!(matches!(reported(&[]).wait_timeout(Duration::from_secs(60)), Err(Error::Ended)));
    let refused = reported(&[failed()]).wait_timeout(Duration::from_secs(60));
    assert!(matches!(refused, Err(Error::Refused(why)) if why == "no memory"));
    let (runs, _theirs) = guest_that_runs();
    assert_eq!(runs.wait_timeout(Duration::ZERO).unwrap(), None);
    assert_eq!(runs.wait_timeout(Duration::from_millis(20)).unwrap(), None);
    assert!(runs.is_alive().unwrap());
}

fn guest_that_runs() -> (GuestProcess, Channel) {
    let (guest, theirs) = guest();
    theirs.send(&holding(&[]), &[]).unwrap();
    (guest, theirs)
}

/// What a request to branch comes to if the process does this with it.
fn branch(
    answer: impl FnOnce(Channel, Vec<OwnedFd>) + Send + 'static,
) -> Result<(GuestProcess, BranchReport), Error> {
    let (guest, theirs) = guest();
    let answering = thread::spawn(move || {
        let (_, fds) = theirs.receive_any::<GuestRequest>().unwrap().unwrap();
        answer(theirs, fds);
    });
    let result = guest.branch(Announce::Never, CopyLimits { copy_bytes: None });
    answering.join().unwrap();
    result
}

/// The channel for the answer, out of the descriptors of a request to branch.
fn answers(fds: Vec<OwnedFd>) -> Channel {
    let [_, _, answers] = <[OwnedFd; 3]>::try_from(fds).unwrap();
    Channel::from_fd(answers)
}

#[test]
fn a_branch_is_refused_or_its_source_has_ended_at_any_point_of_the_request() {
    let branched = || BranchAnswer::Branched { pid: 77, pause_ns: 1, fork_ns: 2, copy_bound_bytes: 3 };
    let error = |result: Result<_, Error>| result.map(|_: (GuestProcess, _)| ()).unwrap_err();
    let refused = branch(|_theirs, fds| {
        answers(fds).send(&BranchAnswer::Refused(String::from("no room")), &[]).unwrap();
    });
    assert!(matches!(error(refused), Error::Refused(why) if why == "no room"));
    let without = branch(move |_theirs, fds| answers(fds).send(&branched(), &[]).unwrap());
    assert!(matches!(error(without), Error::Refused(why) if why.contains("without its descriptor")));
    // It ends without an answer: it has said why, or not.
    let said = branch(|theirs, _| theirs.send(&ended(), &[]).unwrap());
    assert!(matches!(error(said), Error::GuestEnded(ending) if ending.message == "it shut down"));
    assert!(matches!(error(branch(|_, _| ())), Error::Ended));
    // It ended before, with or without having read what was sent to it.
    let (gone, theirs) = guest();
    gone.let_run().unwrap();
    theirs.send(&ended(), &[]).unwrap();
    drop(theirs);
    for _ in 0..2 {
        let result = gone.branch(Announce::Never, CopyLimits { copy_bytes: None });
        assert!(matches!(error(result), Error::GuestEnded(ending) if ending.orderly));
    }
    let file = File::open("/proc/self/stat").unwrap();
    let made = branch(move |_theirs, fds| answers(fds).send(&branched(), &[file.as_fd()]).unwrap());
    let (guest, report) = made.unwrap();
    let ns = |time: Duration| time.as_nanos();
    assert_eq!((guest.pid(), ns(report.pause), ns(report.fork_time), report.copy_bound_bytes), (77, 1, 2, 3));
}

#[test]
fn a_frozen_guest_that_does_not_hold_still_or_comes_without_its_state_is_refused() {
    let frozen =
        |report: &[GuestReport]| FrozenGuest::of(reported(report)).map(|_| ()).unwrap_err().to_string();
    assert_eq!(frozen(&[]), Error::Ended.to_string());
    assert_eq!(frozen(&[failed()]), "no memory");
    assert_eq!(frozen(&[ended()]), "it shut down");
    assert!(frozen(&[holding(&[1])]).contains("without its state"));
    let (guest, theirs) = guest();
    let file = File::open("/proc/self/stat").unwrap();
    theirs.send(&holding(&[1]), &[file.as_fd(); 2]).unwrap();
    assert!(FrozenGuest::of(guest).unwrap_err().to_string().contains("without its state"));
    // A state that ends early is damaged, not empty.
    for len in [0, 1, 5000] {
        let (guest, theirs) = self::guest();
        let state = vmm::memory::memfd::create(c"state", len, false).unwrap();
        theirs.send(&holding(&[1]), &[state.as_fd()]).unwrap();
        assert!(matches!(FrozenGuest::of(guest), Err(Error::State(_))), "{len} bytes");
    }
}
