//! Freeing memory.
//!
//! Above the high mark, and down to the low one; and as much as somebody waits for room for. Checkpoints
//! that are on disk and that every stream has read are freed first. Only when that does not do, the
//! stream cursor that lags most (in bytes, over all vBuckets) is dropped, one at a time; its stream goes
//! on from disk. The persistence cursor is never dropped, nor a stream cursor that is not behind it: that
//! would free nothing.
//!
//! # Protocol
//! Done in the lead, by turns: a turn frees [`TURN_CHANGES`] changes at most, or one checkpoint, because
//! every writer waits meanwhile. Where it stopped is kept for the next turn, which is asked for from the
//! flusher; a writer that waits for room comes for turns of its own. Each turn begins by looking at all
//! vBuckets for what everyone has read: streams have read on since the turn before. The cursors that lag
//! are listed once; after that a dropped cursor costs a look at its own vBucket. The list is as of that
//! moment: a cursor that has read on since is looked at again before it is dropped, and takes its new
//! place in the list. A list that an earlier turn made is made again when it is used up.

use super::demand::Demand;
use super::lead::Lead;
use crate::memory::Memory;
use crate::tuning::CurrentTuning;
use crate::vbuckets::{VBuckets, Vb};
use std::collections::BinaryHeap;
use std::sync::Arc;
use vbstore_core::VbId;
use vbstore_core::lock_order::Rank;
use vbstore_core::sync::Mutex;
use vbstore_metrics::EngineMetrics;

/// Changes that are freed in one turn: 1 to 2 ms with a large key index.
const TURN_CHANGES: usize = 4_096;
/// Cursors that are dropped in one turn.
const TURN_CURSORS: usize = 64;

/// Frees the memory of checkpoints.
pub(crate) struct MemoryRecovery {
    vbs: Arc<VBuckets>,
    memory: Arc<Memory>,
    tuning: Arc<CurrentTuning>,
    demand: Arc<Demand>,
    metrics: Arc<EngineMetrics>,
    /// Changed by the leader only.
    progress: Mutex<Progress>,
}

/// Where recovery stopped.
struct Progress {
    /// The high mark was passed, and the low one not yet reached.
    is_recovering: bool,
    /// The vBucket whose turn it is to free a checkpoint.
    next: VbId,
    /// Cursors that may be dropped, by their lags in bytes, as of when they were listed.
    lagging: BinaryHeap<(u64, VbId)>,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            is_recovering: false,
            next: VbId::new(0),
            lagging: BinaryHeap::new(),
        }
    }
}

/// What is left of a turn.
struct Turn {
    changes: usize,
    cursors: usize,
    /// A checkpoint was freed, or a cursor dropped.
    has_progressed: bool,
}

impl MemoryRecovery {
    pub(crate) fn new(
        vbs: Arc<VBuckets>,
        memory: Arc<Memory>,
        tuning: Arc<CurrentTuning>,
        demand: Arc<Demand>,
        metrics: Arc<EngineMetrics>,
    ) -> Self {
        Self {
            vbs,
            memory,
            tuning,
            demand,
            metrics,
            progress: Mutex::new(Rank::Leaf, Progress::default()),
        }
    }

    /// Frees memory for one turn, if there is too little or somebody waits for room for so many bytes.
    /// What is freed is dropped after the lead is resigned. Returns whether anything was freed or a cursor
    /// dropped: if so, another turn may free more.
    pub(super) fn run(&self, lead: &mut Lead<'_>, room: u64) -> bool {
        let tuning = self.tuning.get();
        let used = self.memory.used();
        // ORDER: taken out of its lock, a leaf, because vBuckets are locked meanwhile.
        let mut progress = std::mem::take(&mut *self.progress.lock());
        progress.is_recovering |= used > tuning.memory_high();
        let mut target = u64::MAX;
        if progress.is_recovering {
            target = tuning.memory_low();
        }
        if room > 0 {
            // More than the quota is let in as soon as the quota is kept.
            let quota = tuning.memory_quota;
            target = target.min(if room > quota { quota } else { quota - room });
        }
        let mut has_progressed = false;
        if used > target {
            let mut turn = Turn {
                changes: TURN_CHANGES,
                cursors: TURN_CURSORS,
                has_progressed: false,
            };
            let is_done = self.take_turn(lead, &mut progress, &mut turn, target);
            if is_done {
                progress.is_recovering = false;
            } else if progress.is_recovering {
                self.demand.flush();
            }
            has_progressed = turn.has_progressed;
        } else {
            progress.is_recovering = false;
        }
        if !progress.is_recovering {
            progress.lagging.clear();
        }
        *self.progress.lock() = progress;
        has_progressed
    }

    /// Frees all memory that everyone has read, and if `drops_cursors` also what not. For tests.
    #[cfg(feature = "testing")]
    pub(crate) fn forget(&self, lead: &mut Lead<'_>, drops_cursors: bool) {
        let mut turn = Turn {
            changes: usize::MAX,
            cursors: if drops_cursors { usize::MAX } else { 0 },
            has_progressed: false,
        };
        self.take_turn(lead, &mut Progress::default(), &mut turn, 0);
    }

    /// Returns whether the target is reached, or nothing more can be freed.
    fn take_turn(
        &self,
        lead: &mut Lead<'_>,
        progress: &mut Progress,
        turn: &mut Turn,
        target: u64,
    ) -> bool {
        let is_over = |turn: &Turn| self.memory.used() <= target || turn.changes == 0;
        self.free_read(lead, progress, turn, target);
        let mut is_listed = false;
        while !is_over(turn) {
            let Some((bytes, id)) = progress.lagging.pop() else {
                if is_listed {
                    return true;
                }
                self.list_lagging(progress);
                is_listed = true;
                continue;
            };
            if turn.cursors == 0 {
                progress.lagging.push((bytes, id));
                return false;
            }
            let vb = self.vbs.at(id);
            self.drop_lowest(vb, progress, turn, bytes);
            while !is_over(turn) && self.free_one(lead, vb, turn) {}
        }
        self.memory.used() <= target
    }

    /// Frees checkpoints that everyone has read: one a vBucket and round, so that no vBucket loses
    /// its memory for another.
    fn free_read(
        &self,
        lead: &mut Lead<'_>,
        progress: &mut Progress,
        turn: &mut Turn,
        target: u64,
    ) {
        let count = usize::from(self.vbs.count());
        let mut in_vain = 0;
        while in_vain < count && self.memory.used() > target && turn.changes > 0 {
            let vb = self.vbs.at(progress.next);
            progress.next = self.vbs.after(progress.next);
            if self.free_one(lead, vb, turn) {
                in_vain = 0;
            } else {
                in_vain += 1;
            }
        }
    }

    /// Frees the oldest checkpoint of a vBucket. Returns false if it may not be freed.
    fn free_one(&self, lead: &mut Lead<'_>, vb: &Vb, turn: &mut Turn) -> bool {
        let mut inner = vb.cell.lock();
        let Some(sealed) = inner.checkpoints.free_oldest() else {
            return false;
        };
        self.memory.subtract(sealed.memory());
        drop(inner);
        // A checkpoint is freed whole, so the last one of a turn may have more than is left.
        turn.changes -= sealed.entries().len().min(turn.changes);
        turn.has_progressed = true;
        self.metrics.checkpoints_freed.add(1);
        self.metrics.freed_bytes.add(sealed.memory());
        lead.free_after(sealed);
        true
    }

    /// Lists every vBucket that has a cursor that may be dropped.
    fn list_lagging(&self, progress: &mut Progress) {
        for vb in &*self.vbs {
            if let Some((_, lag)) = vb.cell.lock().checkpoints.lowest_droppable() {
                progress.lagging.push((lag.bytes, vb.id()));
            }
        }
    }

    /// Drops the cursor of a vBucket that lags most, if it lags no less than when it was listed or no
    /// less than any other; puts the vBucket back into the list if it has one more.
    fn drop_lowest(&self, vb: &Vb, progress: &mut Progress, turn: &mut Turn, listed: u64) {
        let others = progress.lagging.peek().map_or(0, |(bytes, _)| *bytes);
        let mut inner = vb.cell.lock();
        let lowest = inner.checkpoints.lowest_droppable();
        let is_worst = lowest.is_some_and(|(_, lag)| lag.bytes >= listed.min(others));
        let dropped = if is_worst {
            inner.checkpoints.drop_lowest()
        } else {
            None
        };
        let next = inner.checkpoints.lowest_droppable();
        drop(inner);
        progress
            .lagging
            .extend(next.map(|(_, lag)| (lag.bytes, vb.id())));
        if let Some(lag) = dropped {
            turn.cursors -= 1;
            turn.has_progressed = true;
            self.metrics.cursors_dropped.add(1);
            tracing::info!(vb = %vb.id(), items = lag.items, bytes = lag.bytes, "cursor dropped");
        }
    }
}
