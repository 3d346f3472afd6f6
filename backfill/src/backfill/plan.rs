//! Step 1 of the slice law: decides what to read, or what to wait for.

use super::task::{Backfill, BackfillContext, BackfillOutcome, StepOutcome};
use crate::delivery::{BATCH_BYTES, Charge};
use crate::schedule::Snooze;
use crate::stream::EndReason;
use std::sync::Arc;
use vbstore_core::{Seqno, Visibility, u64_from};
use vbstore_engine::failpoint::place;
use vbstore_engine::{CursorGuard, Result as EngineResult, Slice, SliceBudget, SliceRequest};

/// Failed joins in a row after which memory is held for the next view. A join fails if memory has
/// already freed the changes that follow the view.
const FAILED_JOINS_MAX: u32 = 3;

/// A read that a backfill has planned.
#[derive(Debug)]
pub(crate) struct ReadPlan {
    pub(crate) ask: SliceRequest,
    /// Space reserved for the slice in the consumer's buffer.
    pub(super) charge: Charge,
    /// Keeps the changes after the view in memory; set after repeated failed joins.
    pub(super) held: Option<CursorGuard>,
}

impl ReadPlan {
    /// Returns `budget` reduced to what was reserved. At most half of the reservation goes to the
    /// rows' overhead, the rest to keys and values.
    pub(crate) fn budget(&self, budget: SliceBudget) -> SliceBudget {
        let reserved = self.charge.bytes();
        let row = u64_from(Slice::ROW_BYTES);
        let items = (reserved / 2 / row).min(u64_from(budget.items_max));
        SliceBudget {
            items_max: at_most(budget.items_max, items.max(1)),
            bytes_max: at_most(budget.bytes_max, (reserved - items * row).max(1)),
            ..budget
        }
    }
}

/// Returns the smaller of the two numbers.
fn at_most(number: usize, limit: u64) -> usize {
    // A limit that does not fit into a `usize` is larger than any `usize`.
    usize::try_from(limit).map_or(number, |limit| number.min(limit))
}

/// Distributes the reservation of the first plan over all plans read together with it, by the size
/// of what was read for each.
///
/// The remainder stays with the first charge. Each plan has what it needs before any charge is
/// settled, so no other consumer can reserve these bytes in between.
pub(crate) fn distribute_charge<'a>(
    first: &mut ReadPlan,
    others: impl Iterator<Item = &'a mut ReadPlan>,
    slices: &[EngineResult<Slice>],
) {
    let needed = |slice: &EngineResult<Slice>| {
        let slice = slice.as_ref();
        slice.map_or(0, |slice| slice.memory() + BATCH_BYTES)
    };
    let mut needed = slices.iter().map(needed);
    let Some(kept) = needed.next() else {
        return;
    };
    for (plan, bytes) in others.zip(needed) {
        first.charge.share(&mut plan.charge, bytes, kept);
    }
}

#[derive(Debug)]
pub(crate) enum PlanOutcome {
    /// A slice must be read.
    Read(Box<Backfill>, ReadPlan),
    /// Nothing must be read: the invocation is over.
    Settled(BackfillOutcome),
}

enum PlanDecision {
    Read(ReadPlan),
    Share(Arc<Slice>, Charge),
    Step(StepOutcome),
}

impl Backfill {
    /// Plans one invocation. `first` is the first plan of the group that shares the db snapshot,
    /// if there is one: its reservation covers the whole group.
    pub(crate) fn plan(
        mut self: Box<Self>,
        first: Option<&ReadPlan>,
        context: &BackfillContext,
    ) -> PlanOutcome {
        let waited = self.clock.monotonic().saturating_sub(self.queued);
        context.counters.queue_wait_micros.observe_time(waited);
        self.counted.set_active(true);
        let step = match self.decide(first, context) {
            Ok(PlanDecision::Read(plan)) => return PlanOutcome::Read(self, plan),
            Ok(PlanDecision::Share(slice, charge)) => self.take_shared(&slice, charge, context),
            Ok(PlanDecision::Step(step)) => Ok(step),
            Err(reason) => Err(reason),
        };
        PlanOutcome::Settled(self.outcome(step))
    }

    /// Decides the next step. Checks what must be waited for before anything is reserved.
    fn decide(
        &mut self,
        first: Option<&ReadPlan>,
        context: &BackfillContext,
    ) -> Result<PlanDecision, EndReason> {
        let stream = Arc::clone(self.stream());
        let feed = self.reading.feed.clone();
        // A slice in hand goes first: its changes precede everything that is still to be read.
        if let Some(unsynced_read) = self.unsynced_read.take() {
            return self
                .deliver_or_wait(unsynced_read, context)
                .map(PlanDecision::Step);
        }
        if feed.is_gone(stream.generation) {
            return Err(EndReason::VbucketGone);
        }
        let progress = &self.reading.progress;
        let end_min = progress.end_min();
        if feed.persisted() < end_min {
            return self.wait_for_view(end_min).map(PlanDecision::Step);
        }
        // The consumer's copy will be complete at this position, so the stream may continue from
        // memory here.
        if progress.is_complete()
            && let Some(cursor) = self.join(stream.generation)?
        {
            return Ok(PlanDecision::Step(self.go_to_memory(None, cursor)));
        }

        let shared = context.slices.find(
            stream.vb,
            stream.generation,
            self.reading.views_at_open,
            &self.reading.progress,
        );
        let budget = context.engine.tuning().slice_budget;
        // A cached slice is not part of the group's read, so it needs a reservation of its own.
        let reserved = match first {
            Some(plan) if shared.is_none() => Ok(context.buffers.beside(&plan.charge)),
            _ => context.buffers.reserve(stream.consumer, room_for(budget)),
        };
        let Ok(charge) = reserved else {
            return Ok(PlanDecision::Step(StepOutcome::Snooze(Snooze::Room)));
        };
        if let Some(slice) = shared {
            return Ok(PlanDecision::Share(slice, charge));
        }
        feed.pass(place::SLICE_OPEN)?;
        let held = if self.failed_joins >= FAILED_JOINS_MAX {
            Some(feed.hold_memory(stream.generation)?)
        } else {
            None
        };
        let ask = SliceRequest {
            vb: stream.vb,
            after: self.reading.progress.position(),
        };
        Ok(PlanDecision::Read(ReadPlan { ask, charge, held }))
    }

    /// Registers a cursor if memory holds everything after the stream's position. A stream that
    /// omits first deletions must begin on disk, so that what it omits does not depend on where the
    /// changes are stored.
    pub(super) fn join(&self, generation: u64) -> Result<Option<CursorGuard>, EndReason> {
        let progress = &self.reading.progress;
        let skips = self.stream().options.skips_first_deletions;
        if skips && progress.begins_from_zero() {
            return Ok(None);
        }
        Ok(self.reading.feed.join(generation, progress.position())?)
    }

    /// Waits until everything up to `end` is persisted, so that a new view reaches it.
    pub(super) fn wait_for_view(&self, end: Seqno) -> Result<StepOutcome, EndReason> {
        if let Some(error) = self.reading.feed.health_error() {
            return Err(error.into());
        }
        self.reading.feed.demand_flush();
        Ok(StepOutcome::Snooze(Snooze::Durable {
            visibility: Visibility::Persisted,
            above: below(end),
        }))
    }
}

/// Returns the maximum memory in bytes of a slice with this budget, not counting one large item.
fn room_for(budget: SliceBudget) -> u64 {
    let rows = budget.items_max.saturating_mul(Slice::ROW_BYTES);
    u64_from(budget.bytes_max.saturating_add(rows))
}

/// Returns the seqno before `seqno`. `seqno` is never 0, because no backfill waits for a view of an
/// empty vBucket.
pub(super) fn below(seqno: Seqno) -> Seqno {
    Seqno::new(seqno.get() - 1)
}
