//! Random numbers of the host's kernel.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// `N` random bytes, up to 256. They come from the kernel at every call and are not buffered: forks of a process would draw the
/// same bytes from a buffer.
///
/// # Errors
/// The kernel's reason for refusing `getrandom`; `UnexpectedEof` if it gave fewer bytes.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    const { assert!(N <= 256, "more may be cut short, see getrandom(2)") };
    let mut bytes = [0; N];
    let got = getrandom(&mut bytes, GetRandomFlags::empty())?;
    if got == N { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
