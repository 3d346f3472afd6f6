//! Syncs by the leader, and the two steps after every sync: recording the witness and publishing
//! seqnos.

use super::lead::Lead;
use super::sync_ledger::SyncLedger;
use crate::error::Result;
use crate::failpoint::{MaybeFailpoints, place};
use crate::signals::TaskSignals;
use crate::storage::Storage;
use crate::store_dir::WitnessFile;
use std::sync::Arc;
use std::time::Duration;
use vbstore_core::Clock;
use vbstore_core::sync::Mutex;
use vbstore_metrics::EngineMetrics;

/// Syncs RocksDB's log, records the synced sequence in the witness, and publishes the synced
/// seqnos.
pub(crate) struct Syncs {
    pub(crate) ledger: Arc<SyncLedger>,
    pub(crate) witness: Arc<Mutex<WitnessFile>>,
    pub(crate) signals: Arc<TaskSignals>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<EngineMetrics>,
    pub(crate) failpoints: MaybeFailpoints,
}

impl Syncs {
    /// Syncs the batches that were written without a sync. Does nothing if everything is synced.
    pub(super) fn sync(&self, lead: &mut Lead<'_>, storage: &Storage) -> Result<()> {
        if self.ledger.is_all_synced() {
            return Ok(());
        }
        self.failpoints.pass(place::SYNC)?;
        let start = self.clock.monotonic();
        let sequence = storage.sync()?;
        self.count(start);
        self.record(lead, sequence)?;
        self.publish_all(lead);
        Ok(())
    }

    /// Adds a sync that began at `start` to the metrics.
    pub(super) fn count(&self, start: Duration) {
        let took = self.clock.monotonic().saturating_sub(start);
        self.metrics.syncs.add(1);
        self.metrics.sync_micros.observe_time(took);
    }

    /// Records in the witness that everything up to RocksDB's `sequence` is synced. Called before
    /// the sync is published to any reader or writer. Only the leader records.
    pub(super) fn record(&self, _: &Lead<'_>, sequence: u64) -> Result<()> {
        self.failpoints.pass(place::FLUSH_WITNESS)?;
        self.witness.lock().record(sequence, 0)?;
        // A background task syncs the witness file once a second, so a power cut loses at most the
        // records of the last second.
        self.signals.witness.wake();
        Ok(())
    }

    /// Publishes everything persisted as synced. The caller has just synced, and no other thread
    /// persists changes while it leads.
    pub(super) fn publish_all(&self, lead: &mut Lead<'_>) {
        for vb in self.ledger.take_unsynced().values() {
            lead.wake_after(vb.cell.publish_synced());
        }
    }
}
