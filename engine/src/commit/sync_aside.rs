//! Syncing beside the lead.
//!
//! A stream that has read what is not synced, or a batch that has been unsynced for the sync interval,
//! needs a sync and nothing else; whoever writes `Logged` must not wait for it. So the syncer keeps the
//! lead for two moments only:
//!
//! 1. With the lead, it notes RocksDB's last sequence number, and for each vBucket that is not synced
//!    its generation and persisted seqno. Nobody else writes then, so all that is noted is in the log,
//!    at or below that number.
//! 2. Without the lead and without a lock, it syncs the log. Others go on flushing; what they write
//!    meanwhile may or may not be covered, and is not counted as synced.
//! 3. With the lead again, it records the noted number in the witness, unless a leader has recorded a
//!    newer one meanwhile, and only then publishes what was noted. A vBucket whose generation has
//!    changed is passed over. By resigning it wakes whoever waits.
//!
//! If the engine is unhealthy when the syncer comes for the lead again, it publishes nothing: a sync of
//! the leader's has failed meanwhile, and the kernel reports an fsync error to only one of two callers,
//! so our own success proves nothing. What it noted stays unsynced.
//!
//! That synced seqnos never fall back needs no more: they are published with the lead only, and never
//! below what is published.

use super::committer::Committer;
use super::lead::Lead;
use super::ledger::NotedVb;
use super::syncs::Syncs;
use crate::error::Result;
use crate::failpoint::{MaybeFailpoints, place};
use crate::gate::Gate;
use crate::health::Health;
use crate::storage::Storage;
use std::sync::Arc;
use std::time::Duration;
use vbstore_core::Clock;

/// Syncs what nobody waits for with the lead.
pub(crate) struct SyncAside {
    pub(crate) committer: Arc<Committer>,
    pub(crate) syncs: Arc<Syncs>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) health: Arc<Health>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) failpoints: MaybeFailpoints,
}

/// What a sync beside the lead will have synced.
struct Noted {
    /// RocksDB's last sequence number.
    sequence: u64,
    vbs: Vec<NotedVb>,
    at: Duration,
}

impl SyncAside {
    /// Syncs what is persisted now; see the module's comment. The caller does not have the lead. A
    /// failure has been noted in the health.
    pub(crate) fn run(&self) -> Result<()> {
        let noted = self.committer.with_lead(|_| {
            self.health.check()?;
            self.note()
        })?;
        let Some(noted) = noted else {
            return Ok(());
        };
        // Outside of what is noted: a close that has taken the storage since has synced all of it.
        let storage = self.gate.lend_while_closing()?;
        let synced = self.sync(&storage);
        drop(storage);
        synced.inspect_err(|error| self.health.note(error).run())?;
        self.committer.with_lead(|lead| {
            self.publish_as_leader(lead, &noted)
                .inspect_err(|error| lead.run_after(self.health.note(error)))
        })
    }

    /// Step 1. `None` if all is synced.
    fn note(&self) -> Result<Option<Noted>> {
        let vbs = self.syncs.ledger.note_unsynced();
        if vbs.is_empty() {
            return Ok(None);
        }
        Ok(Some(Noted {
            sequence: self.gate.lend_while_closing()?.rocks_sequence(),
            vbs,
            at: self.clock.monotonic(),
        }))
    }

    /// Step 2.
    fn sync(&self, storage: &Storage) -> Result<()> {
        self.failpoints.pass(place::SYNC)?;
        let start = self.clock.monotonic();
        storage.sync()?;
        self.syncs.count(start);
        Ok(())
    }

    /// Step 3.
    fn publish_as_leader(&self, lead: &mut Lead<'_>, noted: &Noted) -> Result<()> {
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
