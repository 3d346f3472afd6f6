//! What happens to a document that is replaced.

use crate::error::Result;
use crate::storage::RecordBatch;
use vbstore_core::{Seqno, VbId};

/// What may still need the previous document of a key once the batch that replaces it is written.
/// The leader determines it when it begins to build the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PreviousNeededBy {
    /// Nothing: streams do not read changes that a newer change has replaced.
    Nobody,
}

/// Deletes or keeps the document at `previous`, which `by` replaces in the same batch. This is the
/// only place that decides it.
///
/// # Panics
/// When a document would be replaced by an older one.
pub(super) fn retire_previous(
    batch: &mut RecordBatch<'_>,
    vb: VbId,
    previous: Seqno,
    by: Seqno,
    needed_by: PreviousNeededBy,
) -> Result<()> {
    assert!(
        previous < by,
        "seqno {by} of {vb} cannot replace seqno {previous}"
    );
    match needed_by {
        PreviousNeededBy::Nobody => batch.delete_document(vb, previous),
    }
}
