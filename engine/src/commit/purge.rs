//! Removing tombstones for good.
//!
//! # Protocol
//! The flush leader purges, so that no flush of the vBucket runs at the same time. It scans the key
//! family for tombstones: one found there is its key's newest change. One batch then holds the
//! deletions in both families, the counts and the raised purge seqno.
//!
//! Memory may hold a newer change of such a key, which was recorded as the replacement of the
//! tombstone. So for every change that replaces a tombstone at or below the purge seqno, the flush
//! reads the disk again (`build`).
//!
//! The caller decides *which* tombstones to remove. There is no purge policy yet: only tests call
//! this.

use super::committer::Committer;
use super::lead::Lead;
use super::syncs::Syncs;
use crate::config::SliceBudget;
use crate::error::{Error, Result};
use crate::gate::Gate;
use crate::health::Health;
use crate::storage::RecordBatch;
use crate::vbuckets::Vb;
use bytes::Bytes;
use vbstore_core::{Clock, Seqno};

pub(crate) struct Purger<'a> {
    pub(crate) committer: &'a Committer,
    pub(crate) gate: &'a Gate,
    pub(crate) health: &'a Health,
    pub(crate) syncs: &'a Syncs,
    pub(crate) clock: &'a dyn Clock,
}

impl Purger<'_> {
    /// Removes the tombstones up to `upto`, except one at the vBucket's high seqno. Synced when it
    /// returns. Returns the number of removed tombstones.
    pub(crate) fn purge(&self, vb: &Vb, upto: Seqno) -> Result<u64> {
        self.committer
            .with_lead(|lead| self.purge_as_leader(lead, vb, upto))
    }

    fn purge_as_leader(&self, lead: &mut Lead<'_>, vb: &Vb, upto: Seqno) -> Result<u64> {
        let storage = self.gate.acquire()?;
        self.health.check()?;
        let (id, cell) = (vb.id(), &vb.cell);
        let mut state = cell.lock().state;
        let mut batch = RecordBatch::new(&storage);
        let mut purged: u64 = 0;
        let mut from = Bytes::new();
        loop {
            let budget = SliceBudget::default();
            let page = storage.scan_page(id, &from, None, false, budget, || Ok(()))?;
            for row in page.rows {
                let seqno = row.meta.seqno;
                if row.meta.kind.is_live() || seqno > upto || seqno == state.high_seqno {
                    continue;
                }
                batch.delete_document(id, seqno)?;
                batch.delete_index(id, &row.key)?;
                purged += 1;
                state.purge_seqno = state.purge_seqno.max(seqno);
            }
            match page.next {
                Some(next) => from = next,
                None => break,
            }
        }
        if purged == 0 {
            return Ok(0);
        }
        let counted = state.counts.tombstones;
        let tombstones = counted.checked_sub(purged);
        state.counts.tombstones = tombstones.ok_or_else(|| {
            Error::corrupt_record(
                id,
                None,
                format!(
                    "{purged} tombstones were found, but the state record counts only {counted}"
                ),
            )
        })?;
        batch.put_state(id, &state)?;
        let start = self.clock.monotonic();
        let written = storage.write(batch, true);
        let recorded = written.and_then(|sequence| {
            self.syncs.count(start);
            // The deletions are on disk from here on, even if recording the witness fails.
            cell.lock().state = state;
            self.syncs.record(lead, sequence)
        });
        if let Err(error) = recorded {
            lead.run_after(self.health.note(&error));
            return Err(error);
        }
        self.syncs.publish_all(lead);
        tracing::info!(vb = %id, purged, purge_seqno = %state.purge_seqno, "tombstones purged");
        Ok(purged)
    }
}
