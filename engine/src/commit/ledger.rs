//! What the leader knows from one flush to the next: what is written and not synced, and how long
//! the log has grown.

use crate::vbuckets::Vb;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use vbstore_core::lock_order::Rank;
use vbstore_core::sync::Mutex;
use vbstore_core::{Seqno, VbId};

/// Changed by the leader only, read by anybody.
pub(crate) struct Ledger(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    /// vBuckets whose persisted seqno is above their synced one.
    unsynced: BTreeMap<VbId, Arc<Vb>>,
    /// Since when there has been one.
    unsynced_since: Option<Duration>,
    /// Bytes of all batches written since the engine was opened.
    log_position: u64,
}

/// How far a vBucket was persisted when a sync began.
pub(super) struct NotedVb {
    pub(super) vb: Arc<Vb>,
    pub(super) generation: u64,
    pub(super) persisted: Seqno,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Rank::Leaf, Entries::default()))
    }

    /// Notes that a batch of so many bytes changed these vBuckets. Returns whether it is the first
    /// one that is not synced.
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

    /// Takes the list of what is not synced: a sync that covers all of it has just succeeded.
    pub(super) fn take_unsynced(&self) -> BTreeMap<VbId, Arc<Vb>> {
        let mut entries = self.0.lock();
        entries.unsynced_since = None;
        std::mem::take(&mut entries.unsynced)
    }

    /// Returns how far each vBucket is persisted that is not synced.
    pub(super) fn note_unsynced(&self) -> Vec<NotedVb> {
        let entries = self.0.lock();
        let noted = entries.unsynced.values().map(|vb| NotedVb {
            vb: Arc::clone(vb),
            generation: vb.cell.generation(),
            persisted: vb.cell.persisted(),
        });
        noted.collect()
    }

    /// Takes these vBuckets off the list of what is not synced, of which the rest was written after
    /// `noted_at`.
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

    /// Returns since when there has been a batch that is not synced.
    pub(crate) fn unsynced_since(&self) -> Option<Duration> {
        self.0.lock().unsynced_since
    }

    /// Returns the bytes of all batches written since the engine was opened.
    pub(crate) fn log_position(&self) -> u64 {
        self.0.lock().log_position
    }
}
