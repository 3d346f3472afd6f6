//! Syncing the log without holding the lead during the sync.
//!
//! Some syncs come without a flush: a stream waits for changes that it has read to be synced, or a
//! batch has been unsynced for the sync interval. Writers of `Logged` changes must not wait for
//! such a sync. So the syncer holds the lead only before and after the sync:
//!
//! 1. With the lead, it notes RocksDB's last sequence number and, for each vBucket that is not
//!    synced, its generation and persisted seqno. No other thread writes to RocksDB then, so
//!    everything noted is in the log at or below that number.
//! 2. Without the lead and without a lock, it syncs the log. Other threads go on flushing. The sync
//!    may or may not cover what they write meanwhile, so those writes do not count as synced.
//! 3. With the lead again, it records the noted number in the witness, unless a leader has recorded
//!    a newer one meanwhile. Only then it publishes the noted seqnos. It skips a vBucket whose
//!    generation has changed. Resigning wakes the threads that wait.
//!
//! If the engine is unhealthy when the syncer has the lead again, it publishes nothing. A sync by
//! the leader may have failed meanwhile, and the kernel reports an fsync error to only one of two
//! callers, so the success of this sync proves nothing. The noted changes stay unsynced.
//!
//! Synced seqnos never go backwards: they are published with the lead only, and never below the
//! published value.

use super::committer::Committer;
use super::lead::Lead;
use super::sync_ledger::PersistedVb;
use super::syncs::Syncs;
use crate::error::Result;
use crate::failpoint::{MaybeFailpoints, place};
use crate::gate::Gate;
use crate::health::Health;
use crate::storage::Storage;
use std::sync::Arc;
use std::time::Duration;
use vbstore_core::Clock;

/// Syncs the log while other threads go on flushing.
pub(crate) struct LeaderlessSync {
    pub(crate) committer: Arc<Committer>,
    pub(crate) syncs: Arc<Syncs>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) health: Arc<Health>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) failpoints: MaybeFailpoints,
}

/// The sequence number and the vBuckets that a running sync covers.
struct PendingSync {
    /// RocksDB's last sequence number.
    sequence: u64,
    vbs: Vec<PersistedVb>,
    at: Duration,
}

impl LeaderlessSync {
    /// Syncs everything that is persisted now. The module docs have the protocol. The caller does
    /// not hold the lead. A failure is recorded in the health.
    pub(crate) fn run(&self) -> Result<()> {
        let noted = self.committer.with_lead(|_| {
            self.health.check()?;
            self.note()
        })?;
        let Some(noted) = noted else {
            return Ok(());
        };
        // An error here is not recorded in the health: the storage is gone only after a close that
        // has synced everything.
        let storage = self.gate.acquire_while_closing()?;
        let synced = self.sync(&storage);
        drop(storage);
        synced.inspect_err(|error| self.health.note(error).run())?;
        self.committer.with_lead(|lead| {
            self.publish_as_leader(lead, &noted)
                .inspect_err(|error| lead.run_after(self.health.note(error)))
        })
    }

    /// Step 1. Returns `None` if everything is synced.
    fn note(&self) -> Result<Option<PendingSync>> {
        let vbs = self.syncs.ledger.unsynced_vbs();
        if vbs.is_empty() {
            return Ok(None);
        }
        Ok(Some(PendingSync {
            sequence: self.gate.acquire_while_closing()?.rocks_sequence(),
            vbs,
            at: self.clock.monotonic(),
        }))
    }

    /// Step 2. Blocks on the disk.
    fn sync(&self, storage: &Storage) -> Result<()> {
        self.failpoints.pass(place::SYNC)?;
        let start = self.clock.monotonic();
        storage.sync()?;
        self.syncs.count(start);
        Ok(())
    }

    /// Step 3. The witness is recorded before the seqnos are published.
    fn publish_as_leader(&self, lead: &mut Lead<'_>, noted: &PendingSync) -> Result<()> {
        if self.health.check().is_err() {
            return Ok(());
        }
        let recorded = self.syncs.witness.lock().newest().rocks_sequence;
        if recorded < noted.sequence {
            self.syncs.record(lead, noted.sequence)?;
        }
        let mut synced = Vec::new();
        for noted in &noted.vbs {
            let cell = &noted.vb.cell;
            if cell.check_generation(noted.generation).is_ok() {
                lead.wake_after(cell.publish_synced_to(noted.persisted));
                if cell.synced() >= cell.persisted() {
                    synced.push(cell.id);
                }
            }
        }
        self.syncs.ledger.note_synced(&synced, noted.at);
        Ok(())
    }
}
