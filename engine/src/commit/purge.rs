//! Removing tombstones for good.
//!
//! Done by the leader, so no flush of the vBucket runs beside it: the tombstones are picked through
//! the key family (one that is still its key's newest entry), and both families, the counts and the
//! raised purge seqno go in one batch. A change of such a key may be in memory, noted as replacing
//! the tombstone; the flush asks the disk again for what is at or below the purge seqno (`build`).
//!
//! *Which* tombstones, and who holds them back, is decided by the caller. There is no policy yet:
//! only tests call this.

use crate::config::SliceBudget;
use crate::error::{Error, Result};
use crate::inner::Inner;
use crate::storage::Batch;
use bytes::Bytes;
use vbstore_core::{Seqno, VbId};

impl Inner {
    /// Removes the tombstones up to `upto`, but for the vBucket's highest seqno. Synced when it
    /// returns. Returns how many.
    pub(crate) fn purge_tombstones(&self, vb: VbId, upto: Seqno) -> Result<u64> {
        self.vb(vb)?;
        self.with_lead(|| self.purge_as_leader(vb, upto))
    }

    fn purge_as_leader(&self, vb: VbId, upto: Seqno) -> Result<u64> {
        let storage = self.storage()?;
        self.health.check()?;
        let cell = self.vb(vb)?;
        let mut state = cell.lock().state;
        let mut batch = Batch::new(&storage);
        let mut purged: u64 = 0;
        let mut from = Bytes::new();
        loop {
            let page = storage.scan_page(vb, &from, None, false, SliceBudget::default())?;
            for row in page.rows {
                let seqno = row.meta.seqno;
                if row.meta.kind.is_live() || seqno > upto || seqno == state.high_seqno {
                    continue;
                }
                batch.delete_document(vb, seqno)?;
                batch.delete_index(vb, &row.key)?;
                purged = purged.saturating_add(1);
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
        let tombstones = state.counts.tombstones.checked_sub(purged);
        state.counts.tombstones = tombstones.ok_or_else(|| {
            Error::corrupt_record(vb, None, format!("{purged} tombstones, counts say fewer"))
        })?;
        batch.put_state(vb, &state)?;
        let start = self.clock.monotonic();
        let written = storage.write(batch, true);
        let sequence = written.inspect_err(|error| self.note_failure(error))?;
        self.count_sync(start);
        cell.lock().state = state;
        self.bear_witness(sequence)
            .inspect_err(|error| self.note_failure(error))?;
        self.publish_synced();
        tracing::info!(%vb, purged, purge_seqno = %state.purge_seqno, "tombstones purged");
        Ok(purged)
    }
}
