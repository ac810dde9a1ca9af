//! Random numbers of the host's kernel.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// `N` random bytes, up to 256. They are asked for each time and kept nowhere: what a process keeps, its forks draw as well.
///
/// # Errors
/// The kernel's.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    const { assert!(N <= 256, "more may be cut short, see getrandom(2)") };
    let mut bytes = [0; N];
    let got = getrandom(&mut bytes, GetRandomFlags::empty())?;
    if got == N { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
