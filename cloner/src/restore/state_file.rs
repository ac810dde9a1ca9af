//! The state of a machine as a file that can be passed to another process.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use vmm::VmState;
use vmm::memory::memfd;
use vmm::state::DecodeError;

/// Writes the state to a sealed memfd.
pub(crate) fn state_file(state: &VmState) -> io::Result<File> {
    let bytes = state.to_bytes();
    let file = memfd::create(c"state", bytes.len() as u64, false)?;
    file.write_all_at(&bytes, 0)?;
    memfd::seal(&file)?;
    Ok(file)
}

/// No state is longer: that of a VM with sixteen vCPUs has some 300 KiB.
const STATE_BYTES_MAX: u64 = 64 << 20;

/// Reads the state from a file that another process may have made. The inner error says what is wrong with the content.
pub(crate) fn read_state(file: &File) -> io::Result<Result<VmState, DecodeError>> {
    let len_bytes = file.metadata()?.len();
    // The file may be sparse, and longer than this host has memory.
    if len_bytes > STATE_BYTES_MAX {
        let why = format!("a state of {len_bytes} bytes is longer than {STATE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let mut bytes = vec![0; usize::try_from(len_bytes).expect("at most 64 MiB")];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(VmState::from_bytes(&bytes))
}
