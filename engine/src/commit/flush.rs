//! One flush: take checkpoints, build a batch, write it, record the witness, publish.
//!
//! Only the leader runs this code. It holds a vBucket's lock only briefly, to take checkpoints and
//! to publish.
//!
//! A vBucket's part of the batch cannot be built if data that it needs is unreadable or wrong.
//! Then the flush leaves this vBucket out: its changes stay in memory, it refuses writes, and the
//! threads that wait for its changes get the error. All other vBuckets are written.

use super::build::{BuiltBatch, FlushUnit, build};
use super::demand::Demand;
use super::dirty::DirtyList;
use super::lead::Lead;
use super::recovery::MemoryRecovery;
use super::syncs::Syncs;
use crate::error::{Error, Result};
use crate::failpoint::{MaybeFailpoints, place};
use crate::gate::Gate;
use crate::health::Health;
use crate::storage::{RecordBatch, Storage};
use crate::tuning::CurrentTuning;
use crate::vbuckets::Vb;
use std::sync::Arc;
use vbstore_core::Clock;
use vbstore_metrics::EngineMetrics;

/// The result of a flush.
pub(super) struct FlushOutcome {
    /// The number of vBuckets whose changes were written.
    pub(super) vbuckets: usize,
    /// Whether any changes were taken, whether written or left out.
    has_taken: bool,
    /// Whether memory was freed, or a cursor was dropped so that memory can be freed later.
    has_recovered: bool,
}

impl FlushOutcome {
    /// Returns whether there was nothing to do, so that another flush now would do nothing either.
    pub(super) fn is_idle(&self) -> bool {
        !self.has_taken && !self.has_recovered
    }
}

pub(crate) struct Flush {
    pub(crate) gate: Arc<Gate>,
    pub(crate) dirty: Arc<DirtyList>,
    pub(crate) demand: Arc<Demand>,
    pub(crate) syncs: Arc<Syncs>,
    pub(crate) recovery: Arc<MemoryRecovery>,
    pub(crate) health: Arc<Health>,
    pub(crate) tuning: Arc<CurrentTuning>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<EngineMetrics>,
    pub(crate) failpoints: MaybeFailpoints,
}

impl Flush {
    /// Flushes once: dirty changes up to `flush_bytes_max`, in one batch. Syncs if `sync` is set,
    /// or if a change in the batch or a waiter in the queue wants a sync. Then frees memory if
    /// usage is too high, or if the caller (`room` bytes) or a waiter wants room. Before an error
    /// is returned it is recorded in the health, and everything taken is put back for the next
    /// flush.
    pub(super) fn run(&self, lead: &mut Lead<'_>, sync: bool, room: u64) -> Result<FlushOutcome> {
        let storage = self.gate.acquire_while_closing()?;
        // A full disk (the state `Degraded`) does not stop a flush: only a flush that succeeds ends
        // that state.
        if self.health.is_failed() {
            self.health.check()?;
        }
        let mut taken = TakenUnits {
            dirty: &self.dirty,
            clock: &*self.clock,
            units: self.take(lead),
        };
        // Computed before `write_units` removes the units that it leaves out. A flush that took any
        // changes is not idle, because changes that did not fit need another flush.
        let has_taken = !taken.units.is_empty();
        let sync = sync || lead.is_sync_awaited() || taken.is_sync_wanted();
        let done = if has_taken {
            self.write_units(lead, &storage, &mut taken, sync)
        } else if self.health.is_degraded() {
            self.probe(lead, &storage).map(|()| true)
        } else if sync {
            self.syncs.sync(lead, &storage).map(|()| false)
        } else {
            Ok(false)
        };
        match done {
            Ok(has_written) => {
                let room = room.max(lead.room_awaited());
                let has_recovered = self.recovery.run(lead, room);
                // Only a successful write proves that the disk has space.
                if has_written {
                    self.health.heal();
                }
                Ok(FlushOutcome {
                    vbuckets: taken.units.len(),
                    has_taken,
                    has_recovered,
                })
            }
            Err(error) => {
                lead.run_after(self.health.note(&error));
                Err(error)
            }
        }
    }

    /// Seals and takes the checkpoints of dirty vBuckets.
    fn take(&self, lead: &mut Lead<'_>) -> Vec<FlushUnit> {
        let bytes_max = self.tuning.get().flush_bytes_max;
        let mut units = Vec::new();
        let mut bytes: u64 = 0;
        let mut dirty = self.dirty.take();
        let mut has_left = false;
        while bytes < bytes_max {
            let Some(vb) = dirty.vbs.pop_front() else {
                break;
            };
            let mut inner = vb.cell.lock();
            inner.is_dirty = false;
            // A failed vBucket keeps its changes in memory and leaves the dirty list.
            if vb.has_failed() {
                continue;
            }
            let taken = inner.checkpoints.begin_flush(bytes_max - bytes);
            let mut state = inner.state;
            state.max_cas = inner.max_cas;
            if inner.checkpoints.has_unflushed() {
                inner.is_dirty = true;
                self.dirty.mark(&vb, self.clock.monotonic());
                has_left = true;
            }
            // Sealed changes are visible to streams that accept unsynced changes.
            lead.wake_after(inner.fire(&vb.cell, None));
            drop(inner);
            bytes += taken.iter().map(|sealed| sealed.memory()).sum::<u64>();
            if !taken.is_empty() {
                units.push(FlushUnit { vb, taken, state });
            }
        }
        has_left |= !dirty.vbs.is_empty();
        self.dirty.put_back(dirty);
        if has_left {
            // While this call held the list, the flusher may have found it empty and gone to sleep.
            // A caller that demanded a flush also expects the changes that did not fit to be
            // flushed.
            self.demand.flush();
        }
        units
    }

    /// Writes the taken units. Returns false if nothing was written, because every unit was left
    /// out.
    fn write_units(
        &self,
        lead: &mut Lead<'_>,
        storage: &Storage,
        taken: &mut TakenUnits<'_>,
        sync: bool,
    ) -> Result<bool> {
        self.failpoints.pass(place::FLUSH_BUILD)?;
        let BuiltBatch {
            batch,
            items,
            replaced,
            failed,
        } = build(storage, &mut taken.units, &self.failpoints, &self.metrics)?;
        for (vb, error) in failed {
            self.leave_out(lead, &vb, &error);
        }
        taken.units.retain(|unit| !unit.vb.has_failed());
        if taken.units.is_empty() {
            // A waiter may still need a sync of the batches of earlier flushes.
            if sync {
                self.syncs.sync(lead, storage)?;
            }
            return Ok(false);
        }
        let batch_bytes = batch.size();

        self.failpoints.pass(place::FLUSH_WRITE)?;
        let start = self.clock.monotonic();
        let sequence = storage.write(batch, sync)?;
        if sync {
            self.syncs.count(start);
        } else {
            let took = self.clock.monotonic().saturating_sub(start);
            self.metrics.write_micros.observe_time(took);
        }
        // From here on the units are on disk: they must not be taken again, whatever fails below.
        // If recording the witness fails, the units are persisted but not synced.
        let vbs = taken.units.iter().map(|unit| &unit.vb);
        let now = self.clock.monotonic();
        let is_first_unsynced = self.syncs.ledger.note_written(vbs, batch_bytes, now);
        if is_first_unsynced && !sync {
            // The syncer may have checked before this batch was noted, and gone to sleep.
            self.syncs.signals.syncer.wake_unless_timed();
        }
        let witnessed = if sync {
            self.syncs.record(lead, sequence)
        } else {
            Ok(())
        };
        // The errors of both are returned only after publishing, because the units are on disk in
        // any case.
        let passed = self.failpoints.pass(place::FLUSH_PUBLISH);
        for unit in &mut taken.units {
            lead.wake_after(unit.vb.cell.publish_persisted(unit.state));
            // Drained, so that the drop of `TakenUnits` puts nothing back.
            unit.taken
                .drain(..)
                .for_each(|sealed| lead.free_after(sealed));
        }
        self.count_flush(items, replaced, batch_bytes);
        witnessed?;
        passed?;
        if sync {
            self.syncs.publish_all(lead);
        }
        Ok(true)
    }

    /// Adds a written flush to the metrics.
    fn count_flush(&self, items: u64, replaced: u64, batch_bytes: u64) {
        let metrics = &self.metrics;
        metrics.flushes.add(1);
        metrics.flushed_items.add(items);
        // Counted only after the write: a flush that failed builds the same changes again.
        metrics.replaced_items.add(replaced);
        metrics.flushed_bytes.add(batch_bytes);
        metrics.batch_items.observe(items);
        metrics.batch_bytes.observe(batch_bytes);
    }

    /// Leaves a vBucket out of this flush and of all later ones. ORDER: record its failure first,
    /// wake its streams second, so that they find the failure.
    fn leave_out(&self, lead: &mut Lead<'_>, vb: &Arc<Vb>, error: &Error) {
        tracing::error!(vb = %vb.id(), %error, "cannot flush this vBucket: it refuses writes");
        self.health.count(error);
        let mut inner = vb.cell.lock();
        inner.checkpoints.flush_failed();
        vb.fail(error);
        drop(inner);
        lead.wake_after(vb.cell.fire_all());
    }

    /// Writes a record that changes nothing. With nothing to flush, this is the only way to find
    /// out whether a full disk has space again.
    fn probe(&self, lead: &mut Lead<'_>, storage: &Storage) -> Result<()> {
        let mut batch = RecordBatch::new(storage);
        batch.put_probe()?;
        self.failpoints.pass(place::FLUSH_WRITE)?;
        let sequence = storage.write(batch, true)?;
        self.syncs.record(lead, sequence)?;
        self.syncs.publish_all(lead);
        Ok(())
    }
}

/// The units that a flush has taken. Dropping this, even during a panic, puts back the units that
/// are not on disk.
struct TakenUnits<'a> {
    dirty: &'a DirtyList,
    clock: &'a dyn Clock,
    units: Vec<FlushUnit>,
}

impl TakenUnits<'_> {
    fn is_sync_wanted(&self) -> bool {
        let mut taken = self.units.iter().flat_map(|unit| &unit.taken);
        taken.any(|sealed| sealed.is_sync_wanted())
    }
}

impl Drop for TakenUnits<'_> {
    fn drop(&mut self) {
        for unit in self.units.iter().filter(|unit| !unit.taken.is_empty()) {
            let mut inner = unit.vb.cell.lock();
            inner.checkpoints.flush_failed();
            if !inner.is_dirty {
                inner.is_dirty = true;
                self.dirty.mark(&unit.vb, self.clock.monotonic());
            }
        }
    }
}
