//! PATCH pages: the vectors that differ from the parent's page.
//!
//! ```text
//! record of n patched vectors: n × u16 vector number, ascending │ n × u64 vector
//! ```

use crate::chunk::{PAGE_VECTORS, Page, VECTOR_BYTES};

use super::page::vector_bytes;
use crate::chunk::RecordError;

/// Bytes per patched vector: its number and its value.
const PATCH_BYTES: usize = 2 + VECTOR_BYTES;
/// With more patched vectors than this, marking the page alone is as small, and decodes without the parent.
const PATCH_MAX: usize = 48;

/// Whether few enough vectors differ for a patch to be the better marker. The pages must differ.
pub(super) fn pays(page: &Page, parent: &Page) -> bool {
    differing(page, parent).nth(PATCH_MAX).is_none()
}

/// Appends the patch that turns `parent` into `page`.
pub(super) fn encode(page: &Page, parent: &Page, out: &mut Vec<u8>) {
    out.extend(differing(page, parent).flat_map(|(number, _)| number.to_le_bytes()));
    out.extend(differing(page, parent).flat_map(|(_, vector)| vector));
}

/// The vectors of `page` that differ from those of `parent`, and their numbers.
fn differing(page: &Page, parent: &Page) -> impl Iterator<Item = (u16, [u8; VECTOR_BYTES])> {
    let pairs = vector_bytes(page).iter().zip(vector_bytes(parent));
    (0..).zip(pairs).filter(|(_, (new, old))| new != old).map(|(number, (&new, _))| (number, new))
}

/// Applies a patch to a page that holds the parent's bytes.
pub(crate) fn decode(record: &[u8], page: &mut Page) -> Result<(), RecordError> {
    let count = record.len() / PATCH_BYTES;
    if count * PATCH_BYTES != record.len() {
        let needed_bytes = (count + 1) * PATCH_BYTES;
        return Err(RecordError::Length { needed_bytes, record_bytes: record.len() });
    }
    let (numbers, values) = record.split_at(count * 2);
    let page: &mut [[u8; VECTOR_BYTES]] = page.as_chunks_mut().0;
    let mut before = None;
    for (&number, &value) in numbers.as_chunks().0.iter().zip(values.as_chunks().0) {
        let vector = u16::from_le_bytes(number);
        if usize::from(vector) >= PAGE_VECTORS || before.is_some_and(|before| vector <= before) {
            return Err(RecordError::PatchOrder { vector, before: before.unwrap_or(0) });
        }
        page[usize::from(vector)] = value;
        before = Some(vector);
    }
    Ok(())
}
