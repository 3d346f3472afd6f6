//! Freeing memory.
//!
//! Recovery starts above the high mark and continues down to the low mark. If a writer waits for
//! room, recovery also frees as much as that writer needs. It first frees checkpoints that are on
//! disk and that every stream has read. If that is not enough, it drops the stream cursor that lags
//! most (in bytes, over all vBuckets), one at a time. The stream of a dropped cursor continues from
//! disk. The persistence cursor is never dropped. Nor is a stream cursor that has read at least as
//! far as the persistence cursor, since dropping it would free nothing.
//!
//! # Protocol
//! The leader recovers memory in turns. A turn frees at most [`TURN_CHANGES`] changes, or one
//! checkpoint, because every writer waits meanwhile. The progress is kept for the next turn, which
//! the flusher is asked to run. A writer that waits for room leads turns of its own.
//!
//! Each turn first visits all vBuckets for checkpoints that every stream has read, because streams
//! go on reading between two turns. The lagging cursors are listed once. After that, dropping a
//! cursor costs only one visit to its own vBucket. The list may be outdated: before a cursor is
//! dropped its lag is read again, and a cursor that has read on is put back into the list with its
//! new lag. A list from an earlier turn is made again when it is used up.

use super::demand::Demand;
use super::lead::Lead;
use crate::memory::Memory;
use crate::tuning::CurrentTuning;
use crate::vbuckets::{VBuckets, Vb};
use std::collections::BinaryHeap;
use std::sync::Arc;
use vbstore_core::VbId;
use vbstore_core::lock_order::LockRank;
use vbstore_core::sync::Mutex;
use vbstore_metrics::EngineMetrics;

/// Changes freed in one turn: 1 to 2 ms with a large key index.
const TURN_CHANGES: usize = 4_096;
/// Cursors dropped in one turn.
const TURN_CURSORS: usize = 64;

/// Frees the memory of checkpoints.
pub(crate) struct MemoryRecovery {
    vbs: Arc<VBuckets>,
    memory: Arc<Memory>,
    tuning: Arc<CurrentTuning>,
    demand: Arc<Demand>,
    metrics: Arc<EngineMetrics>,
    /// Changed by the leader only.
    progress: Mutex<RecoveryProgress>,
}

/// Where the previous turn stopped.
struct RecoveryProgress {
    /// Set when usage passes the high mark, until it reaches the low mark.
    is_recovering: bool,
    /// The vBucket to free a checkpoint of next.
    next: VbId,
    /// Cursors that may be dropped, by their lag in bytes at the time they were listed.
    lagging: BinaryHeap<(u64, VbId)>,
}

impl Default for RecoveryProgress {
    fn default() -> Self {
        Self {
            is_recovering: false,
            next: VbId::new(0),
            lagging: BinaryHeap::new(),
        }
    }
}

/// The changes and cursors that a turn may still free and drop.
struct RecoveryTurn {
    changes: usize,
    cursors: usize,
    /// Whether a checkpoint was freed, or a cursor dropped.
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
            progress: Mutex::new(LockRank::Leaf, RecoveryProgress::default()),
        }
    }

    /// Runs one turn if usage is too high, or if a waiter wants `room` bytes. The freed changes are
    /// dropped after the leader has resigned. Returns whether anything was freed or a cursor
    /// dropped: if so, another turn may free more.
    pub(super) fn run(&self, lead: &mut Lead<'_>, room: u64) -> bool {
        let tuning = self.tuning.get();
        let used = self.memory.used();
        // ORDER: taken out of its lock first. That lock is a leaf, and vBuckets are locked below.
        let mut progress = std::mem::take(&mut *self.progress.lock());
        progress.is_recovering |= used > tuning.memory_high();
        let mut target = u64::MAX;
        if progress.is_recovering {
            target = tuning.memory_low();
        }
        if room > 0 {
            // A write larger than the quota is let in as soon as usage is at or below the quota.
            let quota = tuning.memory_quota;
            target = target.min(if room > quota { quota } else { quota - room });
        }
        let mut has_progressed = false;
        if used > target {
            let mut turn = RecoveryTurn {
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

    /// Frees all persisted checkpoints that every stream has read. With `drops_cursors`, drops the
    /// cursors of the other streams and frees the rest too. For tests.
    #[cfg(feature = "testing")]
    pub(crate) fn forget(&self, lead: &mut Lead<'_>, drops_cursors: bool) {
        let mut turn = RecoveryTurn {
            changes: usize::MAX,
            cursors: if drops_cursors { usize::MAX } else { 0 },
            has_progressed: false,
        };
        self.take_turn(lead, &mut RecoveryProgress::default(), &mut turn, 0);
    }

    /// Runs a turn. Returns whether the target is reached, or nothing more can be freed.
    fn take_turn(
        &self,
        lead: &mut Lead<'_>,
        progress: &mut RecoveryProgress,
        turn: &mut RecoveryTurn,
        target: u64,
    ) -> bool {
        let is_over = |turn: &RecoveryTurn| self.memory.used() <= target || turn.changes == 0;
        self.free_fully_read(lead, progress, turn, target);
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
                // Keeps the cursor for the next turn.
                progress.lagging.push((bytes, id));
                return false;
            }
            let vb = self.vbs.at(id);
            self.drop_lowest(vb, progress, turn, bytes);
            while !is_over(turn) && self.free_oldest_of(lead, vb, turn) {}
        }
        self.memory.used() <= target
    }

    /// Frees checkpoints that every stream has read, one per vBucket and round, so that memory is
    /// not taken from one vBucket only.
    fn free_fully_read(
        &self,
        lead: &mut Lead<'_>,
        progress: &mut RecoveryProgress,
        turn: &mut RecoveryTurn,
        target: u64,
    ) {
        let count = usize::from(self.vbs.count());
        let mut misses = 0;
        while misses < count && self.memory.used() > target && turn.changes > 0 {
            let vb = self.vbs.at(progress.next);
            progress.next = self.vbs.after(progress.next);
            if self.free_oldest_of(lead, vb, turn) {
                misses = 0;
            } else {
                misses += 1;
            }
        }
    }

    /// Frees the oldest checkpoint of a vBucket. Returns false if it may not be freed.
    fn free_oldest_of(&self, lead: &mut Lead<'_>, vb: &Vb, turn: &mut RecoveryTurn) -> bool {
        let mut inner = vb.cell.lock();
        let Some(sealed) = inner.checkpoints.free_oldest() else {
            return false;
        };
        self.memory.subtract(sealed.memory());
        drop(inner);
        // A checkpoint is freed as a whole, so the last one of a turn may have more changes than
        // the turn has left.
        turn.changes -= sealed.entries().len().min(turn.changes);
        turn.has_progressed = true;
        self.metrics.checkpoints_freed.add(1);
        self.metrics.freed_bytes.add(sealed.memory());
        lead.free_after(sealed);
        true
    }

    /// Lists every vBucket that has a cursor that may be dropped.
    fn list_lagging(&self, progress: &mut RecoveryProgress) {
        for vb in &*self.vbs {
            if let Some((_, lag)) = vb.cell.lock().checkpoints.lowest_droppable() {
                progress.lagging.push((lag.bytes, vb.id()));
            }
        }
    }

    /// Drops the cursor that lags most in a vBucket, unless it has read on so far that another
    /// vBucket's cursor lags more. `listed` is its lag when it was listed. Puts the vBucket back
    /// into the list if it still has a cursor that may be dropped.
    fn drop_lowest(
        &self,
        vb: &Vb,
        progress: &mut RecoveryProgress,
        turn: &mut RecoveryTurn,
        listed: u64,
    ) {
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
