//! Detail by vBucket.

use crate::inner::Inner;
use std::sync::Arc;
use vbstore_metrics::{MetricsSnapshot, SampleSource, names};

#[derive(Debug)]
pub(super) struct VbucketsSource {
    inner: Arc<Inner>,
}

impl VbucketsSource {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }
}

impl SampleSource for VbucketsSource {
    fn sample(&self, into: &mut MetricsSnapshot) -> Result<(), Box<dyn std::error::Error>> {
        for cell in &self.inner.vbs {
            // ORDER: synced, persisted, high: none is above the next.
            let (synced, persisted) = (cell.synced(), cell.persisted());
            let inner = cell.lock();
            let (high, state) = (inner.checkpoints.high_seqno(), inner.state);
            let (figures, memory) = (inner.checkpoints.figures(), inner.checkpoints.memory());
            drop(inner);
            let of = cell.id.get().to_string();
            let rows = [
                (&names::VB_HIGH_SEQNO, high.get()),
                (&names::VB_PERSISTED_SEQNO, persisted.get()),
                (&names::VB_SYNCED_SEQNO, synced.get()),
                (&names::VB_PURGE_SEQNO, state.purge_seqno.get()),
                (&names::VB_ITEMS, state.counts.items),
                (&names::VB_TOMBSTONES, state.counts.tombstones),
                (&names::VB_CHECKPOINT_BYTES, memory),
                (&names::VB_CURSORS, figures.cursors),
                (&names::VB_CURSOR_MAX_LAG_ITEMS, figures.worst.items),
            ];
            for (metric, value) in rows {
                into.put_by(metric, of.clone(), value);
            }
        }
        Ok(())
    }
}
