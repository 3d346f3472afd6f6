//! What happens to a replaced document: the flush deletes or keeps it.

use crate::error::Result;
use crate::storage::RecordBatch;
use vbstore_core::{Seqno, VbId};

/// The readers that may still need a key's previous document after the batch that replaces it is
/// written. Determined by the leader when it begins to build the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PreviousNeededBy {
    /// No reader needs it: streams do not read changes that a newer change has replaced.
    Nothing,
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
        PreviousNeededBy::Nothing => batch.delete_document(vb, previous),
    }
}
