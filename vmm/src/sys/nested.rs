//! The state of nested virtualization as bytes. In `kvm-bindings` it consists of unions.

#![expect(unsafe_code, reason = "unions of the KVM ABI")]

use std::mem::offset_of;
use std::slice;

use kvm_bindings::nested::KvmNestedStateBuffer;

/// Length of the vendor's header in bytes (`struct kvm_svm_nested_state_hdr` or `struct kvm_vmx_nested_state_hdr`, padded).
pub(crate) const HEADER_BYTES: usize =
    offset_of!(KvmNestedStateBuffer, data) - offset_of!(KvmNestedStateBuffer, hdr);
/// Most bytes that may follow the header: two control structures of 4 KiB on VT-x, one on SVM.
pub(crate) const DATA_MAX_BYTES: usize =
    size_of::<KvmNestedStateBuffer>() - offset_of!(KvmNestedStateBuffer, data);

const HEADER_AT: usize = offset_of!(KvmNestedStateBuffer, hdr);
const DATA_AT: usize = offset_of!(KvmNestedStateBuffer, data);

const _: () = assert!(HEADER_BYTES == 120 && DATA_MAX_BYTES == 8192);

/// The header, and as much of what follows it as the state's `size` says.
#[must_use]
pub(crate) fn parts(state: &KvmNestedStateBuffer) -> (&[u8], &[u8]) {
    // SAFETY: `state` is a live reference to this many bytes. All of them are initialised: `KvmNestedStateBuffer::empty`, its only
    // constructor, clears the whole structure, and KVM writes integers.
    let bytes = unsafe {
        slice::from_raw_parts(std::ptr::from_ref(state).cast::<u8>(), size_of::<KvmNestedStateBuffer>())
    };
    let size = usize::try_from(state.size).unwrap_or(usize::MAX).clamp(DATA_AT, bytes.len());
    (&bytes[HEADER_AT..DATA_AT], &bytes[DATA_AT..size])
}

/// Puts a state together from its parts. `None` if the parts have lengths that no state can have.
#[must_use]
pub(crate) fn from_parts(
    flags: u16,
    format: u16,
    header: &[u8],
    data: &[u8],
) -> Option<KvmNestedStateBuffer> {
    if header.len() != HEADER_BYTES || data.len() > DATA_MAX_BYTES {
        return None;
    }
    let mut state = KvmNestedStateBuffer::empty();
    state.flags = flags;
    state.format = format;
    state.size = u32::try_from(DATA_AT + data.len()).ok()?;
    // SAFETY: `state` is exclusively borrowed, and every pattern of bytes is a value of it: integers and unions of integers.
    let bytes = unsafe {
        slice::from_raw_parts_mut(
            std::ptr::from_mut(&mut state).cast::<u8>(),
            size_of::<KvmNestedStateBuffer>(),
        )
    };
    bytes[HEADER_AT..DATA_AT].copy_from_slice(header);
    bytes[DATA_AT..DATA_AT + data.len()].copy_from_slice(data);
    Some(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back() {
        let header: Vec<u8> = (0..120).collect();
        for data in [vec![], vec![7; 4096], vec![9; 8192]] {
            let state = from_parts(0x101, 1, &header, &data).unwrap();
            assert_eq!((state.flags, state.format), (0x101, 1));
            assert_eq!(parts(&state), (&header[..], &data[..]));
        }
        assert!(from_parts(0, 0, &header[1..], &[]).is_none());
        assert!(from_parts(0, 0, &header, &[0; 8193]).is_none());
        // A size that KVM cannot give.
        let mut state = from_parts(0, 0, &header, &[1; 8192]).unwrap();
        state.size = u32::MAX;
        assert_eq!(parts(&state).1.len(), 8192);
        state.size = 0;
        assert_eq!(parts(&state).1.len(), 0);
    }
}
