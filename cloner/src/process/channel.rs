//! How processes of this program talk to each other: one message per packet, descriptors beside it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest message, in bytes. The longest ones hold a kernel command line, or say why something failed.
pub(super) const MESSAGE_MAX_BYTES: usize = 16 << 10;
/// Greatest number of descriptors beside a message.
pub(super) const FDS_MAX: usize = 3;

/// One end of a connection that keeps messages apart and notices when the other end is gone.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

impl Channel {
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (one, other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(one), Self(other)))
    }

    /// `fd` has to be one end of a [`pair`](Self::pair): on other kinds of socket, messages would not stay apart.
    pub(crate) const fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.0
    }

    pub(crate) fn send(&self, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message).expect("plain enums of numbers and strings");
        if bytes.len() > MESSAGE_MAX_BYTES {
            let why = format!("a message of {} bytes is longer than {MESSAGE_MAX_BYTES} bytes", bytes.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let sent = repeated(|| sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut beside, SendFlags::NOSIGNAL))?;
        if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// The next message with exactly `N` descriptors beside it; `None` if the other end is gone.
    pub(crate) fn receive<T: DeserializeOwned, const N: usize>(
        &self,
    ) -> io::Result<Option<(T, [OwnedFd; N])>> {
        let Some((message, fds)) = self.receive_any()? else { return Ok(None) };
        let count = fds.len();
        let fds = fds
            .try_into()
            .map_err(|_| invalid(format!("a message came with {count} descriptors instead of {N}")))?;
        Ok(Some((message, fds)))
    }

    /// The next message and all descriptors beside it; `None` if the other end is gone.
    pub(crate) fn receive_any<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut bytes = [0; MESSAGE_MAX_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let received = repeated(|| {
            recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut beside, RecvFlags::CMSG_CLOEXEC)
        })?;
        if received.bytes == 0 {
            return Ok(None);
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(invalid(String::from("a message, or the list of its descriptors, is too long")));
        }
        let mut fds = Vec::new();
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        // The kernel cuts the list only where the buffer ends, which alignment makes longer than the list may be.
        if fds.len() > FDS_MAX {
            return Err(invalid(format!(
                "{} descriptors came beside a message, at most {FDS_MAX} may",
                fds.len()
            )));
        }
        let message = serde_json::from_slice(&bytes[..received.bytes]).map_err(|e| invalid(e.to_string()))?;
        Ok(Some((message, fds)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes a call again until it says what it has come to.
fn repeated<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            // CONNRESET: the other end was closed before it had read everything. The kernel says so once. After that come the
            // messages that the other end has left, and then what is said of any end that is gone.
            Err(Errno::INTR | Errno::CONNRESET) => {}
            result => return result,
        }
    }
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_one_by_one_with_their_descriptors() {
        let (here, there) = Channel::pair().unwrap();
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        here.send(&"first", &[file.as_fd(), file.as_fd()]).unwrap();
        here.send(&"second", &[]).unwrap();
        let (first, [_, _]) = there.receive::<String, 2>().unwrap().unwrap();
        assert_eq!(first, "first");
        assert!(there.receive::<String, 2>().is_err(), "it came without its descriptors");
        drop(here);
        assert!(there.receive::<String, 0>().unwrap().is_none());
        assert!(there.send(&"the other end is gone", &[]).is_err());
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let (here, there) = Channel::pair().unwrap();
        here.send(&"something else", &[]).unwrap();
        assert!(there.receive::<u64, 0>().is_err());
        assert!(here.send(&"x".repeat(MESSAGE_MAX_BYTES), &[]).is_err());
        // With its quotes, this is the longest text that can be sent.
        here.send(&"x".repeat(MESSAGE_MAX_BYTES - 2), &[]).unwrap();
        assert!(there.receive::<String, 0>().unwrap().is_some());
    }

    #[test]
    fn an_end_that_was_closed_before_it_had_read_everything_is_gone_like_any_other() {
        let closed = || {
            let (here, there) = Channel::pair().unwrap();
            here.send(&"never read", &[]).unwrap();
            there.send(&"its last words", &[]).unwrap();
            drop(there);
            here
        };
        let here = closed();
        assert_eq!(here.receive::<String, 0>().unwrap().unwrap().0, "its last words");
        assert!(here.receive::<String, 0>().unwrap().is_none());
        let here = closed();
        assert_eq!(here.send(&"too late", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(here.receive::<String, 0>().unwrap().unwrap().0, "its last words");
    }

    #[test]
    fn calls_are_repeated_until_they_have_come_to_something() {
        let mut results =
            [Err(Errno::INTR), Err(Errno::CONNRESET), Err(Errno::INTR), Ok(5), Err(Errno::INTR)].into_iter();
        assert_eq!(repeated(|| results.next().unwrap()), Ok(5));
        let mut results = [Err(Errno::INTR), Err(Errno::PIPE), Ok(5)].into_iter();
        assert_eq!(repeated(|| results.next().unwrap()), Err(Errno::PIPE));
    }

    #[test]
    fn more_descriptors_than_there_is_room_for_are_refused_on_both_ends() {
        let (here, there) = Channel::pair().unwrap();
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        // Many more, because the room for three is rounded up.
        let fds = [file.as_fd(); FDS_MAX + 8];
        assert_eq!(here.send(&"too many", &fds).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        here.send(&"three", &fds[..FDS_MAX]).unwrap();
        assert_eq!(there.receive_any::<String>().unwrap().unwrap().1.len(), FDS_MAX);
        // Another program may send more than this one does.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX + 8))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        assert!(beside.push(SendAncillaryMessage::ScmRights(&fds)));
        sendmsg(&here.0, &[IoSlice::new(b"\"too many\"")], &mut beside, SendFlags::NOSIGNAL).unwrap();
        let error = there.receive_any::<String>().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        let long = serde_json::to_vec(&"x".repeat(MESSAGE_MAX_BYTES)).unwrap();
        sendmsg(&here.0, &[IoSlice::new(&long)], &mut SendAncillaryBuffer::new(&mut []), SendFlags::NOSIGNAL)
            .unwrap();
        let error = there.receive_any::<String>().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        here.send(&"and on it goes", &[]).unwrap();
        assert!(there.receive::<String, 0>().unwrap().is_some());
    }
}
