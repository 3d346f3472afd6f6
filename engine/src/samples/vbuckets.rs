//! Metrics of single vBuckets.

use crate::services::Services;
use std::sync::Arc;
use vbstore_metrics::{MetricsSnapshot, SampleSource, names};

pub(super) struct VbucketsSource {
    services: Arc<Services>,
}

impl VbucketsSource {
    pub(super) fn new(services: Arc<Services>) -> Self {
        Self { services }
    }
}

impl SampleSource for VbucketsSource {
    fn sample(&self, into: &mut MetricsSnapshot) -> Result<(), Box<dyn std::error::Error>> {
        for vb in &*self.services.vbs {
            let cell = &vb.cell;
            // ORDER: read synced, persisted, high: then none exceeds the next.
            let (synced, persisted) = (cell.synced(), cell.persisted());
            let inner = cell.lock();
            let (high, state) = (inner.checkpoints.high_seqno(), inner.state);
            let (checkpoints, memory) = (inner.checkpoints.stats(), inner.checkpoints.memory());
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
                (&names::VB_CURSORS, checkpoints.cursors),
                (&names::VB_CURSOR_MAX_LAG_ITEMS, checkpoints.worst.items),
            ];
            for (metric, value) in rows {
                into.put_by(metric, of.clone(), value);
            }
        }
        Ok(())
    }
}
