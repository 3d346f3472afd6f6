//! Step 1 of an invocation: what is to be read, or waited for.

use super::task::{Backfill, Context, Outcome, Step};
use crate::delivery::{BATCH_BYTES, Charge};
use crate::schedule::Snooze;
use crate::stream::EndReason;
use std::sync::Arc;
use vbstore_core::{Seqno, Visibility, u64_from};
use vbstore_engine::failpoint::place;
use vbstore_engine::{Ask, CursorGuard, Result as EngineResult, Slice, SliceBudget};

/// Joins that may fail in a row before memory is held for the next view: after each, memory had
/// already lost what came after the view.
const FAILED_JOINS_MAX: u32 = 3;

/// What is to be read for a backfill.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) ask: Ask,
    /// Room for it in the consumer's buffer.
    pub(super) charge: Charge,
    /// Keeps in memory what comes after the view, after joins that failed.
    pub(super) held: Option<CursorGuard>,
}

impl Plan {
    /// Returns the budget of a read that keeps to what was reserved.
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

/// Returns the lesser of the two.
fn at_most(number: usize, limit: u64) -> usize {
    // A limit that is no `usize` is above each of them.
    usize::try_from(limit).map_or(number, |limit| number.min(limit))
}

/// Shares out what the first plan has reserved among all that were read within it, by what was read for
/// each. What is left over goes with the first one's charge: each has what it needs by then, so that
/// nobody else can have reserved it before it is settled.
pub(crate) fn share_out<'a>(
    first: &mut Plan,
    others: impl Iterator<Item = &'a mut Plan>,
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

/// What planning came to.
#[derive(Debug)]
pub(crate) enum Planned {
    /// Something is to be read.
    Read(Box<Backfill>, Plan),
    /// Nothing is to be read: the invocation is over.
    Settled(Outcome),
}

/// The same, within the invocation.
enum Decision {
    Read(Plan),
    Share(Arc<Slice>, Charge),
    Step(Step),
}

impl Backfill {
    /// Plans one invocation. `beside` is the plan that it is read together with, if there is one: what
    /// that has reserved does for both.
    pub(crate) fn plan(mut self: Box<Self>, beside: Option<&Plan>, context: &Context) -> Planned {
        let waited = self.clock.monotonic().saturating_sub(self.queued);
        context.counters.queue_wait_micros.observe_time(waited);
        self.counted.set_active(true);
        let step = match self.decide(beside, context) {
            Ok(Decision::Read(plan)) => return Planned::Read(self, plan),
            Ok(Decision::Share(slice, charge)) => self.take_shared(&slice, charge, context),
            Ok(Decision::Step(step)) => Ok(step),
            Err(reason) => Err(reason),
        };
        Planned::Settled(self.outcome(step))
    }

    fn decide(&mut self, beside: Option<&Plan>, context: &Context) -> Result<Decision, EndReason> {
        let stream = Arc::clone(self.stream());
        let feed = self.reading.feed.clone();
        if let Some(in_hand) = self.in_hand.take() {
            return self.hand_on(in_hand, context).map(Decision::Step);
        }
        if feed.is_gone(stream.generation) {
            return Err(EndReason::VbucketGone);
        }
        let progress = &self.reading.progress;
        let end_min = progress.end_min();
        if feed.persisted() < end_min {
            return self.wait_for_view(end_min).map(Decision::Step);
        }
        if progress.is_complete()
            && let Some(cursor) = self.join(stream.generation)?
        {
            return Ok(Decision::Step(self.go_to_memory(None, cursor)));
        }

        let shared = context.slices.find(
            stream.vb,
            stream.generation,
            self.reading.views_at_open,
            &self.reading.progress,
        );
        let budget = context.engine.tuning().slice_budget;
        let reserved = match beside {
            Some(plan) if shared.is_none() => Ok(context.buffers.beside(&plan.charge)),
            _ => context.buffers.reserve(stream.consumer, room_for(budget)),
        };
        let Ok(charge) = reserved else {
            return Ok(Decision::Step(Step::Snooze(Snooze::Room)));
        };
        if let Some(slice) = shared {
            return Ok(Decision::Share(slice, charge));
        }
        feed.pass(place::SLICE_OPEN)?;
        let held = if self.failed_joins >= FAILED_JOINS_MAX {
            Some(feed.hold_memory(stream.generation)?)
        } else {
            None
        };
        let ask = Ask {
            vb: stream.vb,
            after: self.reading.progress.position(),
        };
        Ok(Decision::Read(Plan { ask, charge, held }))
    }

    /// Gives the stream a place in memory, if memory serves it. A stream that leaves out first
    /// deletions begins on disk, so that what it leaves out does not depend on where the changes are.
    pub(super) fn join(&self, generation: u64) -> Result<Option<CursorGuard>, EndReason> {
        let progress = &self.reading.progress;
        let skips = self.stream().options.skips_first_deletions;
        if skips && progress.begins_from_zero() {
            return Ok(None);
        }
        Ok(self.reading.feed.join(generation, progress.position())?)
    }

    /// Waits until a view reaches `end`.
    pub(super) fn wait_for_view(&self, end: Seqno) -> Result<Step, EndReason> {
        if let Some(error) = self.reading.feed.unwell() {
            return Err(error.into());
        }
        self.reading.feed.demand_flush();
        Ok(Step::Snooze(Snooze::Durable {
            visibility: Visibility::Persisted,
            above: below(end),
        }))
    }
}

/// Returns what a slice of this budget may take in memory at most, but for one large item.
fn room_for(budget: SliceBudget) -> u64 {
    let rows = budget.items_max.saturating_mul(Slice::ROW_BYTES);
    u64_from(budget.bytes_max.saturating_add(rows))
}

/// Returns the seqno above which `seqno` is the first. A view is never waited for at 0.
pub(super) fn below(seqno: Seqno) -> Seqno {
    Seqno::new(seqno.get() - 1)
}
