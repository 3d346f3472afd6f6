//! Freeing memory.
//!
//! Above the high mark, and down to the low one: checkpoints that are on disk and that every stream
//! has read are freed first. Only when that does not do, the stream cursor that lags most (in bytes,
//! over all vBuckets) is dropped, one at a time; its stream goes on from disk. The persistence cursor
//! is never dropped, nor a stream cursor that is not behind it: that would free nothing.

use super::lead::Lead;
use crate::memory::Memory;
use crate::tuning::CurrentTuning;
use crate::vbuckets::VBuckets;
use std::sync::Arc;
use vbstore_metrics::EngineMetrics;

/// Frees the memory of checkpoints.
pub(crate) struct MemoryRecovery {
    pub(crate) vbs: Arc<VBuckets>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) tuning: Arc<CurrentTuning>,
    pub(crate) metrics: Arc<EngineMetrics>,
}

impl MemoryRecovery {
    /// Frees memory if there is too little. What is freed is dropped after the lead is resigned.
    pub(super) fn run(&self, lead: &mut Lead<'_>) {
        let tuning = self.tuning.get();
        if self.memory.used() <= tuning.memory_high() {
            return;
        }
        let low = tuning.memory_low();
        loop {
            self.free_read(lead, low);
            if self.memory.used() <= low || !self.drop_most_lagging() {
                return;
            }
        }
    }

    /// Frees all memory that everyone has read, and if `drops_cursors` also what not. For tests.
    #[cfg(feature = "testing")]
    pub(crate) fn forget(&self, lead: &mut Lead<'_>, drops_cursors: bool) {
        self.free_read(lead, 0);
        while drops_cursors && self.drop_most_lagging() {
            self.free_read(lead, 0);
        }
    }

    /// Frees checkpoints that everyone has read: one a vBucket and round, so that no vBucket loses
    /// its memory for another.
    fn free_read(&self, lead: &mut Lead<'_>, low: u64) {
        loop {
            let mut has_freed = false;
            for vb in &*self.vbs {
                if self.memory.used() <= low {
                    return;
                }
                let mut inner = vb.cell.lock();
                if let Some(sealed) = inner.checkpoints.free_oldest() {
                    self.memory.subtract(sealed.memory());
                    drop(inner);
                    self.metrics.checkpoints_freed.add(1);
                    self.metrics.freed_bytes.add(sealed.memory());
                    lead.free_after(sealed);
                    has_freed = true;
                }
            }
            if !has_freed {
                return;
            }
        }
    }

    /// Drops the cursor that lags most. Returns whether there was one that may be dropped.
    fn drop_most_lagging(&self) -> bool {
        let lagging = self.vbs.iter().filter_map(|vb| {
            let (_, lag) = vb.cell.lock().checkpoints.lowest_droppable()?;
            Some((lag.bytes, vb))
        });
        let Some((_, vb)) = lagging.max_by_key(|(bytes, _)| *bytes) else {
            return false;
        };
        // It may have read on meanwhile; then the one that is lowest now is as good.
        let dropped = vb.cell.lock().checkpoints.drop_lowest();
        if let Some(lag) = dropped {
            self.metrics.cursors_dropped.add(1);
            tracing::info!(vb = %vb.id(), items = lag.items, bytes = lag.bytes, "cursor dropped");
        }
        true
    }
}
