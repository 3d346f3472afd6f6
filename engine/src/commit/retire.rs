//! What becomes of a document that was replaced.

use crate::error::Result;
use crate::storage::Batch;
use vbstore_core::{Seqno, VbId};

/// Deletes the document at `previous`, which `by` replaces in the same batch: no stream reads what a
/// newer change has replaced. This is the one place that decides.
///
/// # Panics
/// When a document would be replaced by an older one.
pub(super) fn retire_previous(
    batch: &mut Batch<'_>,
    vb: VbId,
    previous: Seqno,
    by: Seqno,
) -> Result<()> {
    assert!(previous < by, "seqno {by} of {vb} replaces {previous}");
    batch.delete_document(vb, previous)
}
