//! Reads that take an index entry and its document through one view.
//!
//! A deletion of a vBucket removes files that lie wholly in it at once, also while a view is open: what a
//! view still shows of the index may have lost its document. That is no corruption, and only the generation
//! of the vBucket tells the two apart.

use crate::error::{Error, Result};
use crate::vbuckets::Vb;

/// Deletions that one read may meet before it gives up.
const TRIES_MAX: usize = 3;

/// Reads, and reads again if the read has failed and the vBucket was deleted meanwhile.
///
/// # Errors
/// What `read` returns while the vBucket is not deleted; [`Error::VbGone`] if it is deleted again and
/// again.
pub(super) fn of_one_life<R>(vb: &Vb, read: impl Fn() -> Result<R>) -> Result<R> {
    for _ in 0..TRIES_MAX {
        // ORDER: the generation first. A deletion raises it before it removes a file.
        let generation = vb.cell.generation();
        match read() {
            Err(_) if vb.cell.generation() != generation => {}
            result => return result,
        }
    }
    Err(Error::VbGone { vb: vb.id() })
}
