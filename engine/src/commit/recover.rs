//! Giving memory back.
//!
//! Above the high mark, and down to the low one: checkpoints that are on disk and that every stream
//! has read are freed first. Only when that does not do, the stream cursor that lags most (in bytes,
//! over all vBuckets) is dropped, one at a time; its stream goes on from disk. The persistence cursor
//! is never dropped, nor a stream cursor that is not behind it: that would free nothing.

use crate::error::Result;
use crate::inner::Inner;
use std::sync::Arc;
use vbstore_core::Sealed;

impl Inner {
    /// Gives memory back if there is too little. Called by the leader, without any lock.
    pub(super) fn recover_memory(&self) {
        let tuning = self.tuning();
        if self.memory.used() <= tuning.memory_high() {
            return;
        }
        let low = tuning.memory_low();
        loop {
            self.free_read(low);
            if self.memory.used() <= low || !self.drop_most_lagging() {
                return;
            }
        }
    }

    /// Gives back all memory that everyone has read, and if `drops_cursors` also what not. For tests.
    pub(crate) fn forget_memory(&self, drops_cursors: bool) -> Result<()> {
        self.with_lead(|| {
            self.free_read(0);
            while drops_cursors && self.drop_most_lagging() {
                self.free_read(0);
            }
            Ok(())
        })
    }

    /// Frees checkpoints that everyone has read: one a vBucket and round, so that no vBucket loses
    /// its memory for another.
    fn free_read(&self, low: u64) {
        loop {
            // Dropped at the end of the round, without a lock.
            let mut freed: Vec<Arc<Sealed>> = Vec::new();
            for cell in &self.vbs {
                if self.memory.used() <= low {
                    return;
                }
                let mut inner = cell.lock();
                if let Some(sealed) = inner.checkpoints.free_oldest() {
                    self.memory.subtract(sealed.memory());
                    self.metrics.checkpoints_freed.add(1);
                    self.metrics.freed_bytes.add(sealed.memory());
                    freed.push(sealed);
                }
            }
            if freed.is_empty() {
                return;
            }
        }
    }

    /// Drops the cursor that lags most. Returns whether there was one that may be dropped.
    fn drop_most_lagging(&self) -> bool {
        let lagging = self.vbs.iter().filter_map(|cell| {
            let (_, lag) = cell.lock().checkpoints.lowest_droppable()?;
            Some((lag.bytes, cell))
        });
        let Some((_, cell)) = lagging.max_by_key(|(bytes, _)| *bytes) else {
            return false;
        };
        // It may have read on meanwhile; then the one that is lowest now is as good.
        if let Some(lag) = cell.lock().checkpoints.drop_lowest() {
            self.metrics.cursors_dropped.add(1);
            tracing::info!(vb = %cell.id, items = lag.items, bytes = lag.bytes, "cursor dropped");
        }
        true
    }
}
