//! The table of vBuckets.
//!
//! A vBucket's number is converted into the vBucket here, once, where it enters the engine. The
//! code inside passes the vBucket itself.

use crate::error::{Cause, Error, Result};
use crate::stripes::Stripes;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vbstore_core::lock_order::LockRank;
use vbstore_core::sync::Mutex;
use vbstore_core::{VbCell, VbId};

/// One vBucket of an open engine.
pub(crate) struct Vb {
    pub(crate) cell: VbCell,
    /// The log position of the oldest batch that RocksDB may hold in memory only, plus 1; 0 if
    /// there is none. A position counts the bytes written since the engine was opened.
    oldest_log_position: AtomicU64,
    pub(crate) stripes: Stripes,
    /// Why the vBucket's changes cannot be flushed; `None` while they can. `has_failed` mirrors it,
    /// so that the common case takes no lock.
    failure: Mutex<Option<Error>>,
    has_failed: AtomicBool,
    /// Set by a deletion. Cleared when the compactor takes the vBucket.
    is_uncompacted: AtomicBool,
}

impl Vb {
    pub(crate) fn new(cell: VbCell) -> Self {
        Self {
            cell,
            oldest_log_position: AtomicU64::new(0),
            stripes: Stripes::new(),
            failure: Mutex::new(LockRank::Leaf, None),
            has_failed: AtomicBool::new(false),
            is_uncompacted: AtomicBool::new(false),
        }
    }

    pub(crate) fn id(&self) -> VbId {
        self.cell.id
    }

    /// Makes the vBucket refuse writes, because its changes cannot be flushed. Keeps the first
    /// cause. The leader calls this under the vBucket's lock.
    pub(crate) fn fail(&self, error: &Error) {
        let failed = || Error::VbFailed {
            vb: self.id(),
            cause: Cause::new(error.to_string()),
        };
        self.failure.lock().get_or_insert_with(failed);
        self.has_failed.store(true, Ordering::Release);
    }

    /// Makes the vBucket accept writes again, because everything it held was deleted. The leader
    /// calls this under the vBucket's lock.
    pub(crate) fn heal(&self) {
        self.has_failed.store(false, Ordering::Release);
        *self.failure.lock() = None;
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }

    /// Marks the vBucket as deleted and not yet compacted.
    pub(crate) fn note_uncompacted(&self) {
        self.is_uncompacted.store(true, Ordering::Release);
    }

    /// Returns whether the vBucket was deleted since the last call.
    pub(crate) fn take_uncompacted(&self) -> bool {
        self.is_uncompacted.swap(false, Ordering::AcqRel)
    }

    /// Returns an error if the vBucket's changes cannot be flushed. Takes a leaf lock only to
    /// return the error.
    ///
    /// # Errors
    /// [`Error::VbFailed`].
    pub(crate) fn check(&self) -> Result<()> {
        if !self.has_failed() {
            return Ok(());
        }
        self.failure.lock().clone().map_or(Ok(()), Err)
    }

    /// Records that a batch at this log position changed the vBucket.
    pub(crate) fn note_logged(&self, position: u64) {
        // Does nothing if an older batch is recorded, because the position of the oldest batch is
        // kept.
        let _ = self.oldest_log_position.compare_exchange(
            0,
            position + 1,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
    }

    /// Returns the log position of the oldest batch that RocksDB may hold in memory only.
    pub(crate) fn oldest_log_position(&self) -> Option<u64> {
        self.oldest_log_position
            .load(Ordering::Acquire)
            .checked_sub(1)
    }

    /// Clears the log position. Called before the vBucket's memtables are flushed to files. A batch
    /// written meanwhile records its own position.
    pub(crate) fn clear_logged(&self) {
        self.oldest_log_position.store(0, Ordering::Release);
    }

    /// Restores the log position after the flush to files has failed.
    pub(crate) fn restore_logged(&self, position: u64) {
        self.oldest_log_position
            .store(position + 1, Ordering::Release);
    }
}

impl fmt::Debug for Vb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Vb").field(&self.id()).finish()
    }
}

/// All vBuckets of a store, in the order of their numbers from 0.
pub(crate) struct VBuckets(Box<[Arc<Vb>]>);

impl VBuckets {
    /// Returns the table of these vBuckets.
    ///
    /// # Panics
    /// When there are none, or they are not in the order of their numbers.
    pub(crate) fn new(cells: Vec<VbCell>) -> Self {
        assert!(!cells.is_empty(), "a store without vBuckets");
        let in_order = (0..).map(VbId::new).zip(&cells);
        assert!(
            in_order.into_iter().all(|(id, cell)| cell.id == id),
            "vBuckets out of order"
        );
        Self(cells.into_iter().map(Vb::new).map(Arc::new).collect())
    }

    /// Returns the vBucket with a number that a caller of the engine gave.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the store has no such vBucket.
    pub(crate) fn get(&self, id: VbId) -> Result<&Arc<Vb>> {
        self.0.get(id.index()).ok_or_else(|| {
            let (count, last) = (self.0.len(), self.0.len() - 1);
            let detail = format!(
                "no vBucket {}: the store has {count} (0 to {last})",
                id.get()
            );
            Error::invalid("vb", detail)
        })
    }

    /// Returns the vBucket that a key belongs to.
    #[expect(
        clippy::indexing_slicing,
        reason = "a key's vBucket is below their number"
    )]
    pub(crate) fn of_key(&self, key: &[u8]) -> &Arc<Vb> {
        &self.0[VbId::of_key(key, self.count()).index()]
    }

    /// Returns the vBucket with a number that came from this table.
    #[expect(clippy::indexing_slicing, reason = "the number is of this table")]
    pub(crate) fn at(&self, id: VbId) -> &Arc<Vb> {
        &self.0[id.index()]
    }

    /// Returns the number after this one; after the last comes 0.
    pub(crate) fn after(&self, id: VbId) -> VbId {
        let next = id.get() + 1;
        VbId::new(if next < self.count() { next } else { 0 })
    }

    /// Returns the number of vBuckets.
    #[expect(
        clippy::expect_used,
        reason = "their numbers are 16 bits wide, and a table of 65,536 is never made"
    )]
    pub(crate) fn count(&self) -> u16 {
        u16::try_from(self.0.len()).expect("a number of vBuckets has 16 bits")
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Arc<Vb>> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a VBuckets {
    type Item = &'a Arc<Vb>;
    type IntoIter = std::slice::Iter<'a, Arc<Vb>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
