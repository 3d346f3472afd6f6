//! Reads of an index entry and its document that a deletion of the vBucket may disturb.
//!
//! Deleting a vBucket at once removes the files that hold only its data, even while a view is open.
//! So a view may still show an index entry whose document is gone. That is not corruption, and only
//! the vBucket's generation tells the two cases apart.

use crate::error::{Error, Result};
use crate::vbuckets::Vb;

/// The number of deletions during one read after which it gives up.
const TRIES_MAX: usize = 3;

/// Calls `read`. Calls it again if it failed while the vBucket was being deleted.
///
/// # Errors
/// Those of `read`, if the vBucket was not deleted meanwhile; [`Error::VbGone`] if it was deleted
/// during every attempt.
pub(super) fn in_one_generation<R>(vb: &Vb, read: impl Fn() -> Result<R>) -> Result<R> {
    for _ in 0..TRIES_MAX {
        // ORDER: read the generation first. A deletion changes it before it removes a file.
        let generation = vb.cell.generation();
        match read() {
            Err(_) if vb.cell.generation() != generation => {}
            result => return result,
        }
    }
    Err(Error::VbGone { vb: vb.id() })
}
