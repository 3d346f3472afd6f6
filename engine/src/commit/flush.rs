//! One flush: take, look up, build, write, witness, publish.
//!
//! Everything here is done by the leader and by nobody else; the vBucket's lock is held for moments
//! only, to take checkpoints and to publish.

use super::build::{Unit, build};
use crate::error::Result;
use crate::failpoint::place;
use crate::inner::{Inner, StorageRef};
use crate::storage::Batch;
use std::sync::atomic::Ordering;

impl Inner {
    /// Flushes once: what is dirty, up to the size of a flush, in one batch. Syncs if `sync` is
    /// set, or any change in it or anybody in the queue asks for it. Returns how many vBuckets took
    /// part. An error has been noted in the health, and everything taken will be taken again.
    pub(super) fn flush(&self, sync: bool) -> Result<usize> {
        let storage = self.storage_while_closing()?;
        if self.health.is_failed() {
            self.health.check()?;
        }
        let mut taken = TakenUnits {
            inner: self,
            units: self.take(),
        };
        let sync = sync
            || self.commit.is_sync_awaited()
            || taken
                .units
                .iter()
                .any(|unit| unit.taken.iter().any(|s| s.is_sync_wanted()));
        let done = if taken.units.is_empty() && self.health.is_degraded() {
            self.probe(&storage)
        } else if taken.units.is_empty() {
            if sync {
                self.sync_only(&storage)
            } else {
                Ok(())
            }
        } else {
            self.write_units(&storage, &mut taken, sync)
        };
        match done {
            Ok(()) => {
                let count = taken.count_and_forget();
                self.recover_memory();
                self.health.heal();
                Ok(count)
            }
            Err(error) => {
                self.note_failure(&error);
                Err(error)
            }
        }
    }

    /// Seals and takes the checkpoints of dirty vBuckets.
    fn take(&self) -> Vec<Unit> {
        let bytes_max = self.tuning().flush_bytes_max;
        let mut units = Vec::new();
        let mut bytes: u64 = 0;
        let mut dirty = self.commit.take_dirty();
        let mut has_left = false;
        while bytes < bytes_max {
            let Some(vb) = dirty.vbs.pop_front() else {
                break;
            };
            let Some(cell) = self.vbs.get(vb.index()) else {
                continue;
            };
            let mut inner = cell.lock();
            inner.is_dirty = false;
            let taken = inner
                .checkpoints
                .begin_flush(bytes_max.saturating_sub(bytes));
            let mut state = inner.state;
            state.max_cas = inner.max_cas;
            if inner.checkpoints.has_unflushed() {
                inner.is_dirty = true;
                self.commit.mark_dirty(vb, self.clock.monotonic());
                has_left = true;
            }
            // What was sealed is what streams that accept unsynced changes wait for.
            let streams = inner.fire(cell, None);
            drop(inner);
            streams.wake();
            bytes = taken
                .iter()
                .fold(bytes, |sum, sealed| sum.saturating_add(sealed.memory()));
            if !taken.is_empty() {
                units.push(Unit { vb, taken, state });
            }
        }
        has_left |= !dirty.vbs.is_empty();
        self.commit.put_back_dirty(dirty);
        if has_left {
            // The flusher may have found the list empty while it was here, and gone to sleep; and who
            // asked for a flush asked for what did not fit too.
            self.demand_flush();
        }
        units
    }

    fn write_units(
        &self,
        storage: &StorageRef<'_>,
        taken: &mut TakenUnits<'_>,
        sync: bool,
    ) -> Result<()> {
        self.pass(place::FLUSH_BUILD)?;
        let batch = build(storage, &mut taken.units, &self.metrics)?;
        let batch_bytes = batch.size();

        self.pass(place::FLUSH_WRITE)?;
        let start = self.clock.monotonic();
        let sequence = storage.write(batch, sync)?;
        if sync {
            self.count_sync(start);
        } else {
            let took = self.clock.monotonic().saturating_sub(start);
            self.metrics.write_micros.observe_time(took);
        }
        // From here on the units are on disk: they must not be taken again, whatever follows. A
        // failure of the witness leaves them persisted and not synced.
        let items: usize = taken.items();
        self.note_written(taken, batch_bytes, sync);
        let witnessed = if sync {
            self.bear_witness(sequence)
        } else {
            Ok(())
        };
        let passed = self.pass(place::FLUSH_PUBLISH);
        for unit in &taken.units {
            self.publish_persisted(unit);
        }
        taken.are_on_disk();
        let (metrics, items) = (&self.metrics, u64::try_from(items).unwrap_or(0));
        metrics.flushes.add(1);
        metrics.flushed_items.add(items);
        metrics.flushed_bytes.add(batch_bytes);
        metrics.batch_items.observe(items);
        metrics.batch_bytes.observe(batch_bytes);
        witnessed?;
        passed?;
        if sync {
            self.publish_synced();
        }
        Ok(())
    }

    /// Writes something that changes nothing: with nothing to flush, it is the only way to learn
    /// whether a full disk has space again.
    fn probe(&self, storage: &StorageRef<'_>) -> Result<()> {
        let Some(cell) = self.vbs.first() else {
            return Ok(());
        };
        let state = cell.lock().state;
        let mut batch = Batch::new(storage);
        batch.put_state(cell.id, &state)?;
        self.pass(place::FLUSH_WRITE)?;
        let sequence = storage.write(batch, true)?;
        self.bear_witness(sequence)?;
        self.publish_synced();
        Ok(())
    }

    /// Keeps the books of the leader and of the pacer.
    fn note_written(&self, taken: &TakenUnits<'_>, batch_bytes: u64, is_synced: bool) {
        let mut led = self.commit.led.lock();
        let position = led.log_position;
        led.log_position = position.saturating_add(batch_bytes);
        let is_first_unsynced = led.unsynced_since.is_none();
        led.unsynced_since.get_or_insert(self.clock.monotonic());
        for unit in &taken.units {
            led.unsynced.insert(unit.vb);
            if let Some(since) = self.rocks_unflushed_since.get(unit.vb.index()) {
                let first = position.saturating_add(1);
                // Fails if there is an older one, which is the one to keep.
                let _ = since.compare_exchange(0, first, Ordering::AcqRel, Ordering::Acquire);
            }
        }
        drop(led);
        if is_first_unsynced && !is_synced {
            // The syncer may have looked before this was set, and gone to sleep.
            self.signals.syncer.wake_from_rest();
        }
    }

    fn publish_persisted(&self, unit: &Unit) {
        let Some(cell) = self.vbs.get(unit.vb.index()) else {
            return;
        };
        cell.publish_persisted(unit.state).wake();
    }
}

/// What a flush has taken. Gives it back when it is dropped, also by a panic, unless it is on disk.
struct TakenUnits<'a> {
    inner: &'a Inner,
    units: Vec<Unit>,
}

impl TakenUnits<'_> {
    fn items(&self) -> usize {
        let of = |unit: &Unit| unit.taken.iter().map(|s| s.entries().len()).sum::<usize>();
        self.units.iter().map(of).sum()
    }

    /// The units are published: nothing is to be given back.
    fn are_on_disk(&mut self) {
        for unit in &mut self.units {
            unit.taken.clear();
        }
    }

    fn count_and_forget(mut self) -> usize {
        std::mem::take(&mut self.units).len()
    }
}

impl Drop for TakenUnits<'_> {
    fn drop(&mut self) {
        for unit in self.units.iter().filter(|unit| !unit.taken.is_empty()) {
            let Some(cell) = self.inner.vbs.get(unit.vb.index()) else {
                continue;
            };
            let mut inner = cell.lock();
            inner.checkpoints.flush_failed();
            if !inner.is_dirty {
                inner.is_dirty = true;
                self.inner
                    .commit
                    .mark_dirty(unit.vb, self.inner.clock.monotonic());
            }
        }
    }
}
