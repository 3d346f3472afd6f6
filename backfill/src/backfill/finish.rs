//! Steps 3 to 6 of the slice law: from a slice to what the consumer receives.

use super::plan::{ReadPlan, below};
use super::shared_slices::SharedSlice;
use super::task::{Backfill, BackfillContext, BackfillOutcome, StepOutcome, UnsyncedRead};
use crate::delivery::{
    BATCH_BYTES, Charge, EventBatch, NextSource, ReadState, SelectedChanges, Tail, TailWaker,
    choose,
};
use crate::schedule::Snooze;
use crate::stream::{EndReason, add, set};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vbstore_core::progress::{ViewInfo, ViewRejection};
use vbstore_core::{RollbackReason, Seqno, Visibility, u64_from};
use vbstore_engine::failpoint::place;
use vbstore_engine::{CursorGuard, Result as EngineResult, Slice, SliceEnd};

/// Whether a slice was read for this stream or for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SliceOrigin {
    /// Read for this stream.
    Own,
    /// Read for another stream of the vBucket.
    Shared,
}

impl Backfill {
    /// Finishes an invocation with the slice that was read for `plan`, through the view with the
    /// number `view`.
    pub(crate) fn finish(
        mut self: Box<Self>,
        plan: ReadPlan,
        view: u64,
        slice: EngineResult<Slice>,
        context: &BackfillContext,
    ) -> BackfillOutcome {
        let step = self.finish_own(plan, view, slice, context);
        self.outcome(step)
    }

    fn finish_own(
        &mut self,
        plan: ReadPlan,
        view: u64,
        slice: EngineResult<Slice>,
        context: &BackfillContext,
    ) -> Result<StepOutcome, EndReason> {
        let ReadPlan { ask, charge, held } = plan;
        let slice = Arc::new(slice?);
        // Failpoint: tests let the hand-over fail here.
        self.reading.feed.pass(place::SLICE_HAND_ON)?;
        context.slices.keep(SharedSlice {
            vb: ask.vb,
            generation: self.stream().generation,
            after: ask.after,
            view,
            slice: Arc::clone(&slice),
        });
        let step = self.take(&slice, charge, SliceOrigin::Own, context);
        // Memory stays held until `take` has tried to register the cursor.
        drop(held);
        step
    }

    /// Finishes an invocation with a cached slice that was read for another stream.
    pub(super) fn take_shared(
        &mut self,
        slice: &Arc<Slice>,
        charge: Charge,
        context: &BackfillContext,
    ) -> Result<StepOutcome, EndReason> {
        self.take(slice, charge, SliceOrigin::Shared, context)
    }

    fn take(
        &mut self,
        slice: &Arc<Slice>,
        mut charge: Charge,
        origin: SliceOrigin,
        context: &BackfillContext,
    ) -> Result<StepOutcome, EndReason> {
        let view = ViewInfo {
            vb_uuid: slice.vb_uuid(),
            persisted_seqno: slice.persisted_seqno(),
            purge_seqno: slice.purge_seqno(),
        };
        let marker = match self.take_view(&view) {
            Ok(marker) => marker,
            Err(ViewRejection::Behind) => {
                return self.wait_for_view(self.reading.progress.end_min());
            }
            Err(ViewRejection::Purged) => return Err(from_zero(RollbackReason::Purged)),
            // The branch does not belong to this generation: the vBucket was deleted.
            Err(ViewRejection::OtherBranch) => return Err(EndReason::VbucketGone),
        };
        let progress = &mut self.reading.progress;
        let after = progress.position();
        let room = match origin {
            // It was read within its charge, except for one large item.
            SliceOrigin::Own => u64::MAX,
            SliceOrigin::Shared => charge.bytes(),
        };
        let options = &self.reading.stream.options;
        let skips_upto = progress.deletions_skipped_upto();
        let chosen = choose(options, after, skips_upto, slice, room);
        // The reservation covered the largest possible slice; release what was not needed.
        charge.settle(chosen.memory + BATCH_BYTES);
        progress.advance(chosen.position);
        self.count(&chosen, slice, origin, context);

        let last = chosen.changes.last_seqno();
        let position = chosen.position;
        // Without this event, the consumer's position would stop at the last change that passed the
        // filter.
        let advance = (last != Some(position) && position > after).then_some(position);
        let is_over = self.reading.progress.is_at_end();
        let mut cursor = None;
        if !is_over && self.reading.progress.is_complete() {
            // Step 4: join memory right after the read, so that the cursor starts with little lag.
            cursor = self.join(self.stream().generation)?;
            self.failed_joins = match cursor {
                Some(_) => 0,
                None => self.failed_joins + 1,
            };
        }
        let stream = Arc::clone(self.stream());
        let batch = EventBatch::new(stream, marker, chosen.changes, advance, Some(charge));
        let unsynced_read = UnsyncedRead {
            batch,
            cursor,
            is_over,
            persisted: slice.persisted_seqno(),
            since: None,
        };
        self.deliver_or_wait(unsynced_read, context)
    }

    /// Checks the view of a slice against the progress of the stream, and returns the marker to
    /// deliver, if any. A branch that began while the stream was open is followed. A view of
    /// another generation of the vBucket is refused.
    fn take_view(
        &mut self,
        view: &ViewInfo,
    ) -> Result<Option<vbstore_core::SnapshotMarker>, ViewRejection> {
        let progress = &mut self.reading.progress;
        if view.vb_uuid != progress.vb_uuid() {
            let generation = self.reading.stream.generation;
            if !self.reading.feed.has_branch(generation, view.vb_uuid) {
                return Err(ViewRejection::OtherBranch);
            }
            progress.follow_branch(view.vb_uuid);
        }
        progress.take_view(view)
    }

    /// Runs steps 5 and 6: delivers the slice, or keeps it in hand until it is synced.
    pub(super) fn deliver_or_wait(
        &mut self,
        mut unsynced_read: UnsyncedRead,
        context: &BackfillContext,
    ) -> Result<StepOutcome, EndReason> {
        let feed = &self.reading.feed;
        let is_synced_only = self.stream().options.visibility == Visibility::Synced;
        // ORDER: read the seqno first, the generation second; see `VbCell`. The synced seqno may
        // already belong to the next generation of the vBucket.
        let waits = is_synced_only && feed.synced() < unsynced_read.persisted;
        if is_synced_only && feed.is_gone(self.stream().generation) {
            return Err(EndReason::VbucketGone);
        }
        if waits {
            if let Some(error) = feed.health_error() {
                return Err(error.into());
            }
            feed.demand_sync();
            let above = below(unsynced_read.persisted);
            unsynced_read.since.get_or_insert(context.clock.monotonic());
            self.unsynced_read = Some(unsynced_read);
            let visibility = Visibility::Synced;
            return Ok(StepOutcome::Snooze(Snooze::Durable { visibility, above }));
        }
        if let Some(since) = unsynced_read.since {
            let waited = context.clock.monotonic().saturating_sub(since);
            context.counters.sync_wait_micros.observe_time(waited);
        }
        if !std::mem::replace(&mut self.has_delivered, true) {
            let first = &context.counters.first_item_micros;
            first.observe_time(self.age());
        }
        if unsynced_read.is_over {
            self.deliver(
                Some(unsynced_read.batch),
                NextSource::End(EndReason::ReachedEnd),
            );
            return Ok(StepOutcome::Done);
        }
        if let Some(cursor) = unsynced_read.cursor {
            return Ok(self.go_to_memory(Some(unsynced_read.batch), cursor));
        }
        if self.deliver(Some(unsynced_read.batch), NextSource::Disk) {
            Ok(StepOutcome::Again)
        } else {
            Ok(StepOutcome::Done)
        }
    }

    /// Delivers a last batch, if there is one, and lets the stream continue from memory.
    pub(super) fn go_to_memory(
        &self,
        batch: Option<EventBatch>,
        cursor: CursorGuard,
    ) -> StepOutcome {
        let reading = ReadState {
            stream: Arc::clone(self.stream()),
            feed: self.reading.feed.clone(),
            ..self.reading
        };
        let waker = TailWaker::waker(&self.mailbox, reading.stream.id);
        self.deliver(batch, NextSource::Memory(Tail::new(reading, cursor, waker)));
        StepOutcome::Done
    }

    fn count(
        &mut self,
        chosen: &SelectedChanges,
        slice: &Slice,
        origin: SliceOrigin,
        context: &BackfillContext,
    ) {
        let counters = &context.counters;
        let items = u64_from(chosen.changes.len());
        counters.items.disk.add(items);
        counters.bytes.disk.add(chosen.data_bytes);
        match origin {
            SliceOrigin::Shared => counters.slices_shared.add(1),
            SliceOrigin::Own => {
                let of_end = match slice.end() {
                    SliceEnd::Complete => &counters.slices.complete,
                    _ => &counters.slices.budget,
                };
                of_end.add(1);
                counters.slice_items.observe(u64_from(slice.len()));
            }
        }
        // A stream that was paused or ended meanwhile no longer waits for this backfill. The slice
        // is dropped then, so the stream's metrics must not include it.
        if self.is_awaited() {
            self.record_metrics(chosen, slice, origin, context);
        }
    }

    fn record_metrics(
        &mut self,
        chosen: &SelectedChanges,
        slice: &Slice,
        origin: SliceOrigin,
        context: &BackfillContext,
    ) {
        let metrics = &self.reading.stream.metrics;
        add(&metrics.items_from_disk, u64_from(chosen.changes.len()));
        match origin {
            SliceOrigin::Shared => add(&metrics.shared_slices, 1),
            SliceOrigin::Own => add(&metrics.slices, 1),
        }
        set(&metrics.read_seqno, chosen.position);
        set(&metrics.announced_seqno, slice.persisted_seqno());

        let now = context.clock.monotonic();
        let gap = slice.persisted_seqno().since(chosen.position);
        let limit = context.diverging_after;
        let is_diverging = self.divergence.record(gap, now, limit);
        if metrics.is_diverging.swap(is_diverging, Ordering::AcqRel) != is_diverging {
            let vb = self.stream().vb;
            tracing::warn!(%vb, gap, is_diverging, "backfill started or stopped diverging");
        }
    }
}

/// Returns the reason that sends the consumer back to the beginning.
fn from_zero(reason: RollbackReason) -> EndReason {
    EndReason::Rollback {
        to: Seqno::ZERO,
        reason,
    }
}
