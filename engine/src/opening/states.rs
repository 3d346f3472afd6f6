//! The records of a store and of its vBuckets, as read from disk.

use crate::error::{Error, Result};
use crate::storage::{RecordBatch, Storage};
use vbstore_core::record::{StoreState, VbState};
use vbstore_core::{FailoverLog, VbCell, VbId, VbUuid};
use vbstore_metrics::DbSnapshotHolder;

/// The records of a store and of all its vBuckets.
pub(super) struct LoadedRecords {
    pub(super) store: StoreState,
    pub(super) vbs: Vec<LoadedVb>,
}

/// The records of one vBucket.
pub(super) struct LoadedVb {
    pub(super) vb: VbId,
    pub(super) state: VbState,
    pub(super) log: FailoverLog,
}

impl LoadedRecords {
    pub(super) fn into_cells(self) -> Vec<VbCell> {
        let stops = self.store.unclean_stops;
        let cell = |LoadedVb { vb, state, log }: LoadedVb| {
            let is_branch_due = log.is_branch_due(stops);
            let cell = VbCell::new(vb, state, log);
            if is_branch_due {
                cell.with_branch_due()
            } else {
                cell
            }
        };
        self.vbs.into_iter().map(cell).collect()
    }

    /// Begins a new branch in every vBucket, synced. Returns RocksDB's sequence number after that.
    pub(super) fn begin_branches(&mut self, storage: &Storage) -> Result<u64> {
        for LoadedVb { vb, state, log } in &mut self.vbs {
            state.uuid = VbUuid::from_random(rand::random());
            state.max_cas = state.max_cas.above_lost(self.store.cas_reserved);
            log.begin(state.uuid, state.high_seqno, self.store.unclean_stops);
            tracing::info!(
                vb = %vb,
                uuid = %state.uuid,
                seqno = %state.high_seqno,
                "a new branch begins"
            );
        }
        self.write(storage)
    }

    /// Writes the record of the store, synced. Returns RocksDB's sequence number after that.
    pub(super) fn write_store(&self, storage: &Storage) -> Result<u64> {
        let mut batch = RecordBatch::new(storage);
        batch.put_store_state(&self.store)?;
        storage.write(batch, true)
    }

    /// Writes all records in one batch, synced. Returns RocksDB's sequence number after that.
    pub(super) fn write(&self, storage: &Storage) -> Result<u64> {
        let mut batch = RecordBatch::new(storage);
        batch.put_store_state(&self.store)?;
        for LoadedVb { vb, state, log } in &self.vbs {
            batch.put_state(*vb, state)?;
            batch.put_failover_log(*vb, log)?;
        }
        storage.write(batch, true)
    }
}

/// Reads the records of the store and of all vBuckets.
///
/// # Errors
/// [`Error::Corruption`] if a record is missing, cannot be decoded, or contradicts another.
pub(super) fn load(storage: &Storage, vbuckets: u16) -> Result<LoadedRecords> {
    storage.with_records(DbSnapshotHolder::Admin, |records| {
        let store = records.store_state()?;
        let mut vbs = Vec::with_capacity(usize::from(vbuckets));
        for vb in (0..vbuckets).map(VbId::new) {
            let state = records.state(vb)?;
            let log = records.failover_log(vb)?;
            if log.entries().first().map(|entry| entry.uuid) != Some(state.uuid) {
                let detail = "the state record and the failover log name different newest branches";
                return Err(Error::corrupt_record(vb, None, detail));
            }
            vbs.push(LoadedVb { vb, state, log });
        }
        Ok(LoadedRecords { store, vbs })
    })
}
