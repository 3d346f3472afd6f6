//! Closing.

use crate::error::Result;
use crate::failpoint::place;
use crate::home::data_files;
use crate::inner::Inner;
use crate::storage::Storage;
use std::sync::atomic::Ordering;
use vbstore_core::{Seqno, VbCell, VbId};

/// vBuckets whose families are moved to files between two looks at the clock.
const VBUCKETS_AT_ONCE: usize = 16;

impl Inner {
    /// Flushes and syncs what there is now. What others write meanwhile is not waited for.
    pub(crate) fn flush_all(&self) -> Result<()> {
        let now: Vec<(&VbCell, u64, Seqno)> = self
            .vbs
            .iter()
            .map(|cell| {
                // ORDER: the generation first, so that what is waited for is of that life or older.
                let generation = cell.generation();
                (cell, generation, cell.lock().checkpoints.high_seqno())
            })
            .collect();
        loop {
            self.flush_in_turn(true)?;
            let is_done = now.iter().all(|(cell, generation, high)| {
                cell.synced() >= *high || cell.check_generation(*generation).is_err()
            });
            if is_done {
                return Ok(());
            }
        }
    }

    /// Everything after the threads are stopped. Runs once.
    pub(crate) fn close(&self) -> Result<()> {
        // Whoever has the gate finishes first: no change is appended after the last flush.
        drop(self.storage.write());
        let flushed = self.pass(place::CLOSE).and_then(|()| {
            if self.health.is_failed() {
                self.health.check()
            } else {
                self.flush_all()
            }
        });
        self.commit.close();
        // Wakes whoever still waits for what will not come.
        self.with_lead(|| Ok(()))?;

        // From here on nobody uses the storage: reads that were under way are waited for.
        let storage = self.storage.write().take();
        let closed = storage.map_or(Ok(()), |storage| {
            self.close_storage(storage, flushed.is_ok())
        });
        // Gives the directory's lock back, last.
        *self.home.lock() = None;
        flushed.and(closed)
    }

    fn close_storage(&self, storage: Storage, is_flushed: bool) -> Result<()> {
        let moved = if is_flushed {
            self.move_to_files(&storage)
        } else {
            Ok(())
        };
        storage.stop_background_work();
        let sequence = storage.rocks_sequence();
        drop(storage);
        if !is_flushed {
            return Ok(());
        }
        moved?;
        // The digest is taken after RocksDB has let go of its files. Synced before the lock is
        // given back.
        let home = self.home.lock();
        let Some(home) = home.as_ref() else {
            return Ok(());
        };
        let digest = data_files(&home.db())?.digest;
        let mut witness = self.witness.lock();
        witness.record(sequence, digest)?;
        witness.sync()?;
        tracing::info!("store closed");
        Ok(())
    }

    /// Moves what RocksDB has in memory to files, as far as the time allows. What is left stays in
    /// its log, and the next open takes longer by recovering it.
    fn move_to_files(&self, storage: &Storage) -> Result<()> {
        let deadline = self
            .clock
            .monotonic()
            .saturating_add(self.config.close_timeout);
        let dirty: Vec<VbId> = self
            .vbs
            .iter()
            .zip(&self.rocks_unflushed_since)
            .filter(|(_, since)| since.load(Ordering::Acquire) > 0)
            .map(|(cell, _)| cell.id)
            .collect();
        for some in dirty.chunks(VBUCKETS_AT_ONCE) {
            if self.clock.monotonic() >= deadline {
                tracing::warn!("close timeout: the next open recovers from the log");
                return Ok(());
            }
            storage.rocks_flush(some.iter().copied())?;
        }
        storage.rocks_flush_records()
    }
}
