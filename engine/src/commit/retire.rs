//! What becomes of a document that was replaced.

use crate::error::Result;
use crate::storage::Batch;
use vbstore_core::{Seqno, VbId};

/// Who may still need the previous document of a key once the batch that replaces it is written.
/// Looked at by the leader when it begins to build the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PreviousNeededBy {
    /// Nobody: no stream reads what a newer change has replaced.
    Nobody,
}

/// Decides what becomes of the document at `previous`, which `by` replaces in the same batch. This is
/// the one place that decides.
///
/// # Panics
/// When a document would be replaced by an older one.
pub(super) fn retire_previous(
    batch: &mut Batch<'_>,
    vb: VbId,
    previous: Seqno,
    by: Seqno,
    needed_by: PreviousNeededBy,
) -> Result<()> {
    assert!(previous < by, "seqno {by} of {vb} replaces {previous}");
    match needed_by {
        PreviousNeededBy::Nobody => batch.delete_document(vb, previous),
    }
}
