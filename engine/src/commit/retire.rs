//! What becomes of a document that was replaced.

use crate::error::Result;
use crate::storage::Batch;
use vbstore_core::{Seqno, VbId};

/// Decides what becomes of the document at `previous`, which `by` replaces in the same batch. Today
/// nobody can need it once the batch is written, so it is deleted. This is the one place that
/// decides.
pub(super) fn retire_previous(
    batch: &mut Batch<'_>,
    vb: VbId,
    previous: Seqno,
    by: Seqno,
) -> Result<()> {
    debug_assert!(previous < by, "seqno {by} of {vb} replaces {previous}");
    batch.delete_document(vb, previous)
}
