//! What the leader keeps from one flush to the next: which vBuckets are unsynced, and how long the
//! log has grown.

use crate::vbuckets::Vb;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use vbstore_core::lock_order::LockRank;
use vbstore_core::sync::Mutex;
use vbstore_core::{Seqno, VbId};

/// Changed by the leader only. Any thread may read it.
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

    /// Notes that a batch of `bytes` bytes changed these vBuckets. Returns whether it is the only
    /// unsynced batch.
    pub(super) fn note_written<'a>(
        &self,
        vbs: impl Iterator<Item = &'a Arc<Vb>>,
        bytes: u64,
        now: Duration,
    ) -> bool {
        let mut entries = self.0.lock();
        let position = entries.log_position;
        entries.log_position += bytes;
        let is_first_unsynced = entries.unsynced_since.is_none();
        entries.unsynced_since.get_or_insert(now);
        for vb in vbs {
            entries.unsynced.insert(vb.id(), Arc::clone(vb));
            vb.note_logged(position);
        }
        is_first_unsynced
    }

    /// Takes the list of unsynced vBuckets. Called when a sync that covers all of them has
    /// succeeded.
    pub(super) fn take_unsynced(&self) -> BTreeMap<VbId, Arc<Vb>> {
        let mut entries = self.0.lock();
        entries.unsynced_since = None;
        std::mem::take(&mut entries.unsynced)
    }

    /// Returns each unsynced vBucket with its persisted seqno.
    pub(super) fn note_unsynced(&self) -> Vec<PersistedVb> {
        let entries = self.0.lock();
        let noted = entries.unsynced.values().map(|vb| PersistedVb {
            vb: Arc::clone(vb),
            generation: vb.cell.generation(),
            persisted: vb.cell.persisted(),
        });
        noted.collect()
    }

    /// Removes these vBuckets from the list of unsynced ones. What is unsynced after that was
    /// written after `noted_at`.
    pub(super) fn note_synced(&self, vbs: &[VbId], noted_at: Duration) {
        let mut entries = self.0.lock();
        for vb in vbs {
            entries.unsynced.remove(vb);
        }
        entries.unsynced_since = match entries.unsynced_since {
            Some(since) if !entries.unsynced.is_empty() => Some(since.max(noted_at)),
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
