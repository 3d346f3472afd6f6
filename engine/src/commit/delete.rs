//! Deleting a vBucket.

use crate::error::Result;
use crate::failpoint::place;
use crate::inner::Inner;
use crate::storage::Batch;
use std::sync::atomic::Ordering;
use vbstore_core::record::VbState;
use vbstore_core::{FailoverLog, VbId, VbUuid};

impl Inner {
    /// Deletes everything a vBucket holds, in memory and on disk, in one synced batch, and gives it
    /// a new uuid. What was not flushed is forgotten; whoever waits for it is told
    /// [`crate::Error::VbGone`].
    pub(crate) fn delete_vbucket(&self, vb: VbId) -> Result<VbUuid> {
        self.vb(vb)?;
        self.with_lead(|| self.delete_as_leader(vb))
    }

    fn delete_as_leader(&self, vb: VbId) -> Result<VbUuid> {
        let storage = self.storage()?;
        self.health.check()?;
        let cell = self.vb(vb)?;
        let uuid = VbUuid::from_random(rand::random());
        let failover_log = FailoverLog::new(uuid);
        // Held through the write: no change may be assigned to the old branch after it is gone. A
        // write that read the old state under its key's stripe finds the generation changed.
        let mut inner = cell.lock();
        let mut state = VbState::new(uuid);
        state.max_cas = inner.max_cas;
        let written = self.pass(place::DELETE_VBUCKET).and_then(|()| {
            let mut batch = Batch::new(&storage);
            batch.clear_vbucket(vb)?;
            batch.put_state(vb, &state)?;
            batch.put_failover_log(vb, &failover_log)?;
            let start = self.clock.monotonic();
            storage
                .write(batch, true)
                .inspect(|_| self.count_sync(start))
        });
        let sequence = match written {
            Ok(sequence) => sequence,
            Err(error) => {
                // A failure wakes every stream, which takes this lock.
                drop(inner);
                self.note_failure(&error);
                return Err(error);
            }
        };
        let (memory, streams) = cell.begin_generation(&mut inner, state, failover_log);
        self.memory.subtract(memory);
        drop(inner);
        streams.wake();

        if let Some(since) = self.rocks_unflushed_since.get(vb.index()) {
            since.fetch_max(1, Ordering::AcqRel);
        }
        // The sync covered every batch before this one too.
        self.bear_witness(sequence)
            .inspect_err(|error| self.note_failure(error))?;
        self.publish_synced();
        tracing::info!(%vb, %uuid, "vBucket deleted");
        Ok(uuid)
    }
}
