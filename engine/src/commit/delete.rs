//! Deleting a vBucket.
//!
//! # Protocol
//! 1. One synced batch deletes everything on disk.
//! 2. Then the vBucket's memory is dropped and its streams end: a new generation begins. The
//!    vBucket's lock is held from before the batch until then.
//! 3. Still with the lead, the files that hold only deleted data are removed as a whole. No flush
//!    runs meanwhile, so no file has anything of the new generation. A reader with an older view
//!    may miss data that was in those files. Such a reader checks the generation after it has read,
//!    and finds that it has changed.
//! 4. A background task later compacts the rest: small files and the range deletion itself. Without
//!    it, range deletions would accumulate and slow down each later deletion and each read of the
//!    vBucket.

use super::branch::Branches;
use super::committer::Committer;
use super::lead::Lead;
use super::syncs::Syncs;
use crate::error::Result;
use crate::failpoint::{MaybeFailpoints, place};
use crate::gate::Gate;
use crate::health::Health;
use crate::memory::Memory;
use crate::signals::TaskSignals;
use crate::storage::RecordBatch;
use crate::vbuckets::Vb;
use std::sync::Arc;
use vbstore_core::record::VbState;
use vbstore_core::vbucket::GenerationEnd;
use vbstore_core::{Clock, VbUuid};

pub(crate) struct Deleter {
    pub(crate) committer: Arc<Committer>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) health: Arc<Health>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) syncs: Arc<Syncs>,
    pub(crate) branches: Arc<Branches>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) signals: Arc<TaskSignals>,
    pub(crate) failpoints: MaybeFailpoints,
}

impl Deleter {
    /// Deletes everything that a vBucket holds, in memory and on disk, in one synced batch, and
    /// gives it a new uuid. Unflushed changes are discarded. Waiters for them get
    /// [`crate::Error::VbGone`].
    pub(crate) fn delete(&self, vb: &Vb) -> Result<VbUuid> {
        self.committer
            .with_lead(|lead| self.delete_as_leader(lead, vb))
    }

    fn delete_as_leader(&self, lead: &mut Lead<'_>, vb: &Vb) -> Result<VbUuid> {
        let storage = self.gate.acquire()?;
        self.health.check()?;
        let (id, cell) = (vb.id(), &vb.cell);
        let uuid = VbUuid::from_random(rand::random());
        let failover_log = self.branches.first_log(uuid);
        // Held during the write, so that no change is assigned to the old branch after its
        // deletion. A writer that read the old state under its key's stripe will find the
        // generation changed.
        let mut inner = cell.lock();
        let mut state = VbState::new(uuid);
        state.max_cas = self.branches.max_cas(cell, &inner);
        let written = self.failpoints.pass(place::DELETE_VBUCKET).and_then(|()| {
            let mut batch = RecordBatch::new(&storage);
            batch.clear_vbucket(id)?;
            batch.put_state(id, &state)?;
            batch.put_failover_log(id, &failover_log)?;
            let start = self.clock.monotonic();
            storage
                .write(batch, true)
                .inspect(|_| self.syncs.count(start))
        });
        let sequence = match written {
            Ok(sequence) => sequence,
            Err(error) => {
                // Recording the failure wakes every stream, which takes this lock.
                drop(inner);
                return Err(self.note(lead, error));
            }
        };
        let (forgotten, streams) =
            cell.begin_generation(&mut inner, state, failover_log, GenerationEnd::Deleted);
        // The changes that could not be flushed are deleted, so the vBucket works again.
        vb.heal();
        self.memory.subtract(forgotten.memory());
        drop(inner);
        lead.wake_after(streams);
        lead.forget_after(forgotten);

        // The log has older batches of this vBucket, from before the deletion. With position 0 the
        // vBucket counts as the one with the oldest data, so the pacer flushes it early.
        vb.note_logged(0);
        // The sync covered every earlier batch too.
        if let Err(error) = self.syncs.record(lead, sequence) {
            return Err(self.note(lead, error));
        }
        self.syncs.publish_all(lead);
        // Not an error of the deletion: the data is deleted, and a compaction removes the files
        // later.
        if let Err(error) = storage.remove_files(id) {
            tracing::warn!(vb = %id, %error, "a deleted vBucket's files stay until a compaction");
        }
        vb.note_uncompacted();
        self.signals.compactor.wake();
        tracing::info!(vb = %id, %uuid, "vBucket deleted");
        Ok(uuid)
    }

    fn note(&self, lead: &mut Lead<'_>, error: crate::Error) -> crate::Error {
        lead.run_after(self.health.note(&error));
        error
    }
}
