//! One flush: take, look up, build, write, witness, publish.
//!
//! Everything here is done by the leader and by nobody else; the vBucket's lock is held for moments
//! only, to take checkpoints and to publish.
//!
//! A vBucket whose part of the batch cannot be built, because what it needs cannot be read or does not
//! agree, is left out: its changes go back to memory, it takes no more writes, and whoever waits for
//! them is told why. All others are written.

use super::build::{Built, Unit, build};
use super::demand::Demand;
use super::dirty::DirtyList;
use super::lead::Lead;
use super::recovery::MemoryRecovery;
use super::syncs::Syncs;
use crate::error::{Error, Result};
use crate::failpoint::{MaybeFailpoints, place};
use crate::gate::Gate;
use crate::health::Health;
use crate::storage::{Batch, Storage};
use crate::tuning::CurrentTuning;
use crate::vbuckets::Vb;
use std::sync::Arc;
use vbstore_core::Clock;
use vbstore_metrics::EngineMetrics;

/// What a flush did.
pub(super) struct Flushed {
    /// vBuckets whose changes were written.
    pub(super) vbuckets: usize,
    /// Whether anything was taken, to be written or to be left out.
    has_taken: bool,
    /// Whether memory was freed, or a cursor dropped so that it can be.
    has_recovered: bool,
}

impl Flushed {
    /// Returns whether there was nothing to do: another flush would find nothing either.
    pub(super) fn is_idle(&self) -> bool {
        !self.has_taken && !self.has_recovered
    }
}

/// Flushes what is dirty.
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
    /// Flushes once: what is dirty, up to the size of a flush, in one batch. Syncs if `sync` is
    /// set, or any change in it or anybody in the queue asks for it. Then frees memory, if there is too
    /// little or somebody waits for room: for `room` bytes the caller. An error has been noted in the
    /// health, and everything taken will be taken again.
    pub(super) fn run(&self, lead: &mut Lead<'_>, sync: bool, room: u64) -> Result<Flushed> {
        let storage = self.gate.lend_while_closing()?;
        if self.health.is_failed() {
            self.health.check()?;
        }
        let mut taken = TakenUnits {
            dirty: &self.dirty,
            clock: &*self.clock,
            units: self.take(lead),
        };
        // What is left out is taken once; what did not fit beside it is taken by the next flush.
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
                // Only a write that succeeded says that there is space.
                if has_written {
                    self.health.heal();
                }
                Ok(Flushed {
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
    fn take(&self, lead: &mut Lead<'_>) -> Vec<Unit> {
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
            // What was sealed is what streams that accept unsynced changes wait for.
            lead.wake_after(inner.fire(&vb.cell, None));
            drop(inner);
            bytes += taken.iter().map(|sealed| sealed.memory()).sum::<u64>();
            if !taken.is_empty() {
                units.push(Unit { vb, taken, state });
            }
        }
        has_left |= !dirty.vbs.is_empty();
        self.dirty.put_back(dirty);
        if has_left {
            // The flusher may have found the list empty while it was here, and gone to sleep. A
            // demanded flush also covers what did not fit.
            self.demand.flush();
        }
        units
    }

    /// Writes what was taken. Returns false if all of it was left out, so that nothing was written.
    fn write_units(
        &self,
        lead: &mut Lead<'_>,
        storage: &Storage,
        taken: &mut TakenUnits<'_>,
        sync: bool,
    ) -> Result<bool> {
        self.failpoints.pass(place::FLUSH_BUILD)?;
        let Built {
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
        // From here on the units are on disk: they must not be taken again, whatever follows. A
        // failure of the witness leaves them persisted and not synced.
        let vbs = taken.units.iter().map(|unit| &unit.vb);
        let now = self.clock.monotonic();
        let is_first_unsynced = self.syncs.ledger.note_written(vbs, batch_bytes, now);
        if is_first_unsynced && !sync {
            // The syncer may have looked before this was noted, and gone to sleep.
            self.syncs.signals.syncer.wake_from_rest();
        }
        let witnessed = if sync {
            self.syncs.record(lead, sequence)
        } else {
            Ok(())
        };
        let passed = self.failpoints.pass(place::FLUSH_PUBLISH);
        for unit in &mut taken.units {
            lead.wake_after(unit.vb.cell.publish_persisted(unit.state));
            // Nothing is to be put back.
            unit.taken
                .drain(..)
                .for_each(|sealed| lead.free_after(sealed));
        }
        let metrics = &self.metrics;
        metrics.flushes.add(1);
        metrics.flushed_items.add(items);
        // Counted now that they are never built again: a flush that fails leaves out the same ones later.
        metrics.replaced_items.add(replaced);
        metrics.flushed_bytes.add(batch_bytes);
        metrics.batch_items.observe(items);
        metrics.batch_bytes.observe(batch_bytes);
        witnessed?;
        passed?;
        if sync {
            self.syncs.publish_all(lead);
        }
        Ok(true)
    }

    /// Leaves a vBucket out of this flush and of all later ones. ORDER: its failure is noted first, and
    /// its streams are woken second, so that they find it.
    fn leave_out(&self, lead: &mut Lead<'_>, vb: &Arc<Vb>, error: &Error) {
        tracing::error!(vb = %vb.id(), %error, "the vBucket cannot be flushed: its writes are refused");
        self.health.count(error);
        let mut inner = vb.cell.lock();
        inner.checkpoints.flush_failed();
        vb.fail(error);
        drop(inner);
        lead.wake_after(vb.cell.fire_all());
    }

    /// Writes something that changes nothing and belongs to nobody: with nothing to flush, it is the only
    /// way to learn whether a full disk has space again.
    fn probe(&self, lead: &mut Lead<'_>, storage: &Storage) -> Result<()> {
        let mut batch = Batch::new(storage);
        batch.put_nothing()?;
        self.failpoints.pass(place::FLUSH_WRITE)?;
        let sequence = storage.write(batch, true)?;
        self.syncs.record(lead, sequence)?;
        self.syncs.publish_all(lead);
        Ok(())
    }
}

/// What a flush has taken. Puts back what is not on disk when it is dropped, also by a panic.
struct TakenUnits<'a> {
    dirty: &'a DirtyList,
    clock: &'a dyn Clock,
    units: Vec<Unit>,
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
