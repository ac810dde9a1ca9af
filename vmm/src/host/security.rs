//! Restrictions that keep this process from looking into others, as live snapshots and branches have to.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::Serialize;

use super::text;
use crate::sys::holder::Holder;
use crate::sys::pagemap::Pagemap;

/// Restrictions on this process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Security {
    /// `kernel.yama.ptrace_scope`: 0 and 1 let a process look into its children, 2 only with `CAP_SYS_PTRACE`, 3 never.
    /// `None` if the kernel has no such module.
    pub yama_ptrace_scope: Option<u32>,
    /// Mode of seccomp: 0 means none, 2 a filter.
    pub seccomp_mode: Option<u32>,
    /// Whether `/proc/self/mem` shows this process's memory.
    pub own_memory: bool,
    /// Whether `/proc/self/pagemap` can be opened.
    pub own_pagemap: bool,
    /// Why a child that holds this process's memory could not be made or read; `None` if it could.
    pub holder_error: Option<String>,
}

impl Security {
    /// Reads the settings, and tries the accesses: makes a child by `fork()` for a moment.
    #[must_use]
    pub fn read() -> Self {
        let status = text::of("/proc/self/status").unwrap_or_default();
        Self {
            yama_ptrace_scope: text::number("/proc/sys/kernel/yama/ptrace_scope"),
            seccomp_mode: text::field(&status, "Seccomp").and_then(|mode| mode.parse().ok()),
            own_memory: own_memory().unwrap_or(false),
            own_pagemap: Pagemap::open().is_ok(),
            holder_error: held().err().map(|error| error.to_string()),
        }
    }
}

/// A pattern to look for, and its address in this process.
fn pattern() -> ([u8; 16], u64) {
    static PATTERN: [u8; 16] = *b"cloner host 0123";
    (PATTERN, PATTERN.as_ptr().addr() as u64)
}

fn own_memory() -> io::Result<bool> {
    let (wanted, address) = pattern();
    let mut found = [0; 16];
    File::open("/proc/self/mem")?.read_exact_at(&mut found, address)?;
    Ok(found == wanted)
}

/// Does with some bytes of this program what a live snapshot does with all of a guest's memory.
fn held() -> io::Result<()> {
    let (wanted, address) = pattern();
    let holder = Holder::fork()?;
    let mut found = [0; 16];
    holder.read(address, &mut found)?;
    let mut touched = [0];
    holder.pagemap()?.touched(address & !0xfff, 1, &mut touched)?;
    if found == wanted && touched == [1] { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_sees_itself_and_a_child() {
        let _turn = crate::sys::holder::turn();
        let security = Security::read();
        assert!(security.own_memory && security.own_pagemap, "{security:?}");
        assert_eq!(security.holder_error, None);
        assert!(security.seccomp_mode.is_some());
    }
}
