//! Syncing: by the leader as part of a flush, and beside the lead.
//!
//! # Beside the lead
//! A stream that has read what is not synced, or a batch that has been unsynced for the sync interval,
//! needs a sync and nothing else; whoever writes `Logged` must not wait for it. So the syncer keeps the
//! lead for two moments only:
//!
//! 1. With the lead, it notes RocksDB's last sequence number, and for each vBucket that is not synced
//!    its generation and persisted seqno. Nobody else writes then, so all that is noted is in the log,
//!    at or below that number.
//! 2. Without the lead and without a lock, it syncs the log. Others go on flushing; what they write
//!    meanwhile may or may not be covered, and is not counted as synced.
//! 3. With the lead again, it bears witness up to the noted number, unless a leader has borne a newer
//!    one meanwhile, and only then publishes what was noted. A vBucket whose generation has changed is
//!    passed over. By resigning it wakes whoever waits.
//!
//! If the engine is not well when the syncer comes for the lead again, it publishes nothing: a sync of
//! the leader's has failed meanwhile, and of two syncs of one file only one is told of an error. What
//! it noted stays unsynced.
//!
//! That synced seqnos never fall back needs no more: they are published with the lead only, and never
//! below what is published.

use crate::error::Result;
use crate::failpoint::place;
use crate::inner::{Inner, StorageRef};
use crate::storage::Storage;
use std::time::Duration;
use vbstore_core::{Seqno, VbId};

/// What a sync beside the lead will have synced.
struct Noted {
    /// RocksDB's last sequence number.
    sequence: u64,
    /// With its generation and persisted seqno.
    vbs: Vec<(VbId, u64, Seqno)>,
    at: Duration,
}

impl Inner {
    /// Syncs what is persisted now; see the module's comment. The caller does not have the lead. An
    /// error has been noted in the health.
    pub(crate) fn sync_aside(&self) -> Result<()> {
        let noted = self.with_lead(|| {
            self.health.check()?;
            Ok(self.note_unsynced(&*self.storage_while_closing()?))
        })?;
        let Some(noted) = noted else {
            return Ok(());
        };
        let synced = self.pass(place::SYNC).and_then(|()| {
            let start = self.clock.monotonic();
            self.storage_while_closing()?.sync()?;
            self.count_sync(start);
            Ok(())
        });
        let published = synced.and_then(|()| self.with_lead(|| self.publish_noted(&noted)));
        published.inspect_err(|error| self.note_failure(error))
    }

    /// Step 1. `None` if all is synced.
    fn note_unsynced(&self, storage: &Storage) -> Option<Noted> {
        let led = self.commit.led.lock();
        let cells = led
            .unsynced
            .iter()
            .filter_map(|vb| self.vbs.get(vb.index()));
        let vbs: Vec<_> = cells
            .map(|cell| (cell.id, cell.generation(), cell.persisted()))
            .collect();
        (!vbs.is_empty()).then(|| Noted {
            sequence: storage.rocks_sequence(),
            vbs,
            at: self.clock.monotonic(),
        })
    }

    /// Step 3.
    fn publish_noted(&self, noted: &Noted) -> Result<()> {
        if self.health.check().is_err() {
            return Ok(());
        }
        if self.witness.lock().newest().rocks_sequence < noted.sequence {
            self.bear_witness(noted.sequence)?;
        }
        let mut synced = Vec::new();
        for &(vb, generation, seqno) in &noted.vbs {
            let Some(cell) = self.vbs.get(vb.index()) else {
                continue;
            };
            if cell.check_generation(generation).is_ok() {
                cell.publish_synced_to(seqno).wake();
                if cell.synced() >= cell.persisted() {
                    synced.push(vb);
                }
            }
        }
        let mut led = self.commit.led.lock();
        for vb in synced {
            led.unsynced.remove(&vb);
        }
        led.unsynced_since = match led.unsynced_since {
            // What is left was written after it was noted.
            Some(since) if !led.unsynced.is_empty() => Some(since.max(noted.at)),
            _ => None,
        };
        Ok(())
    }

    /// Syncs what was written without a sync.
    pub(super) fn sync_only(&self, storage: &StorageRef<'_>) -> Result<()> {
        if self.commit.led.lock().unsynced.is_empty() {
            return Ok(());
        }
        self.pass(place::SYNC)?;
        let start = self.clock.monotonic();
        let sequence = storage.sync()?;
        self.count_sync(start);
        self.bear_witness(sequence)?;
        self.publish_synced();
        Ok(())
    }

    pub(super) fn count_sync(&self, start: Duration) {
        let took = self.clock.monotonic().saturating_sub(start);
        self.metrics.syncs.add(1);
        self.metrics.sync_micros.observe_time(took);
    }

    /// Writes down that everything up to `sequence` is synced, before anybody is told.
    pub(super) fn bear_witness(&self, sequence: u64) -> Result<()> {
        self.pass(place::FLUSH_WITNESS)?;
        self.witness.lock().record(sequence, 0)?;
        self.signals.witness.wake();
        Ok(())
    }

    /// Everything persisted is synced now: the leader alone persists, and has just synced.
    pub(super) fn publish_synced(&self) {
        let mut led = self.commit.led.lock();
        let unsynced = std::mem::take(&mut led.unsynced);
        led.unsynced_since = None;
        drop(led);
        for cell in unsynced.iter().filter_map(|vb| self.vbs.get(vb.index())) {
            cell.publish_synced().wake();
        }
    }
}
