//! The leader's records from one flush to the next: the unsynced vBuckets, and the bytes written to
//! the log.

use crate::vbuckets::Vb;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use vbstore_core::lock_order::LockRank;
use vbstore_core::sync::Mutex;
use vbstore_core::{Seqno, VbId};

/// Records which vBuckets are unsynced and how many bytes were logged. Changed by the leader only.
/// Any thread may read it.
pub(crate) struct SyncLedger(Mutex<LedgerState>);

#[derive(Default)]
struct LedgerState {
    /// vBuckets whose persisted seqno is above their synced one.
    unsynced: BTreeMap<VbId, Arc<Vb>>,
    /// When the oldest unsynced batch was written.
    unsynced_since: Option<Duration>,
    /// The bytes of all batches written since the engine was opened.
    log_position: u64,
}

/// A vBucket's persisted seqno at the time when a sync began.
pub(super) struct PersistedVb {
    pub(super) vb: Arc<Vb>,
    pub(super) generation: u64,
    pub(super) persisted: Seqno,
}

impl SyncLedger {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(LockRank::Leaf, LedgerState::default()))
    }

    /// Notes that a batch of `bytes` bytes changed these vBuckets. Returns true if everything
    /// before this batch is synced.
    pub(super) fn note_written<'a>(
        &self,
        vbs: impl Iterator<Item = &'a Arc<Vb>>,
        bytes: u64,
        now: Duration,
    ) -> bool {
        let mut state = self.0.lock();
        let position = state.log_position;
        state.log_position += bytes;
        let is_first_unsynced = state.unsynced_since.is_none();
        state.unsynced_since.get_or_insert(now);
        for vb in vbs {
            state.unsynced.insert(vb.id(), Arc::clone(vb));
            vb.note_logged(position);
        }
        is_first_unsynced
    }

    /// Takes the list of unsynced vBuckets. Called when a sync that covers all of them has
    /// succeeded.
    pub(super) fn take_unsynced(&self) -> BTreeMap<VbId, Arc<Vb>> {
        let mut state = self.0.lock();
        state.unsynced_since = None;
        std::mem::take(&mut state.unsynced)
    }

    /// Returns each unsynced vBucket with its persisted seqno.
    pub(super) fn unsynced_vbs(&self) -> Vec<PersistedVb> {
        let state = self.0.lock();
        let noted = state.unsynced.values().map(|vb| PersistedVb {
            vb: Arc::clone(vb),
            generation: vb.cell.generation(),
            persisted: vb.cell.persisted(),
        });
        noted.collect()
    }

    /// Removes these vBuckets from the list of unsynced ones. The sync covered all batches that
    /// were written before `noted_at`, so the oldest unsynced batch is newer than that.
    pub(super) fn note_synced(&self, vbs: &[VbId], noted_at: Duration) {
        let mut state = self.0.lock();
        for vb in vbs {
            state.unsynced.remove(vb);
        }
        state.unsynced_since = match state.unsynced_since {
            Some(since) if !state.unsynced.is_empty() => Some(since.max(noted_at)),
            _ => None,
        };
    }

    pub(super) fn is_all_synced(&self) -> bool {
        self.0.lock().unsynced.is_empty()
    }

    /// Returns the time since which there has been an unsynced batch.
    pub(crate) fn unsynced_since(&self) -> Option<Duration> {
        self.0.lock().unsynced_since
    }

    /// Returns the bytes of all batches written since the engine was opened.
    pub(crate) fn log_position(&self) -> u64 {
        self.0.lock().log_position
    }
}
