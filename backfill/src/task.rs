//! A backfill: the part of a stream that reads from disk, one slice an invocation.
//!
//! # The slice law: the order of its steps
//! 1. What must be waited for comes first, and waiting is returning: a slice in hand that is not
//!    synced yet; a view that would end below what was announced; room in the consumer's buffer.
//!    (The permit to run was given by the scheduler with the invocation itself. A range to be held
//!    would be registered here.)
//! 2. The db snapshot is opened, the range scanned up to the budget, iterator and snapshot are
//!    dropped: all inside [`vbstore_engine::Feed::slice`], in which nothing waits, sends or calls
//!    back.
//! 3. What the view held besides is checked: branch, purge seqno, its end.
//! 4. If the slice reached the end of its view, the stream's cursor is registered right after it: its
//!    lag at birth is the time of one slice.
//! 5. If the view held what is not synced, a sync is asked for and the slice stays in hand; nothing
//!    of it is delivered before that sync, and nothing ever if it fails. It cannot be cut shorter: it
//!    has lost what the unsynced batch replaced.
//! 6. The marker goes first, then the items.
//!
//! Between two invocations a backfill holds no db snapshot, no iterator and no permit.

use crate::account::Charge;
use crate::batch::{Batch, Changes, Rows};
use crate::event::EndReason;
use crate::shared_slices::{BackfillGuard, SharedSlices};
use crate::stats::StreamCounters;
use crate::stream::{StreamShared, add, set};
use crate::tail::Tail;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use vbstore_core::progress::{Unfit, View};
use vbstore_core::{Clock, Progress, RollbackReason, Seqno, Visibility};
use vbstore_engine::{CursorGuard, Engine, Slice, SliceBudget, SliceEnd};

/// Joins that may fail in a row before memory is held for the next view: after each, memory had
/// already lost what came after the view.
const FAILED_JOINS_MAX: u32 = 3;

/// Memory that a row of a slice takes besides its key and value, in bytes; for the share of a
/// reservation that rows may use.
const ROW_BYTES: u64 = 128;

/// Memory that a batch takes besides its rows, in bytes: one without any waits in the buffer too.
const BATCH_BYTES: u64 = 512;

/// What all backfills share.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) engine: Engine,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) slices: Arc<SharedSlices>,
    pub(crate) counters: Arc<StreamCounters>,
    pub(crate) diverging_after: Duration,
}

/// The part of a stream that reads from disk.
#[derive(Debug)]
pub(crate) struct Backfill {
    pub(crate) stream: Arc<StreamShared>,
    progress: Progress,
    in_hand: Option<InHand>,
    failed_joins: u32,
    gap: Gap,
    counted: BackfillGuard,
    clock: Arc<dyn Clock>,
    begun: Duration,
    /// Since when it waits for a worker, or for a place; meaningless while it runs or is snoozed.
    queued: Duration,
    has_handed_on: bool,
}

/// What was read and waits for its sync.
#[derive(Debug)]
struct InHand {
    batch: Batch,
    cursor: Option<CursorGuard>,
    persisted: Seqno,
    /// Since when it waits; `None` before it does.
    since: Option<Duration>,
}

/// How far the end of the view was, at its nearest.
#[derive(Clone, Copy, Debug)]
struct Gap {
    least: u64,
    since: Option<Duration>,
}

/// What a backfill waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Snooze {
    /// Room in its consumer's buffer.
    Room,
    /// That changes above this are as durable as that.
    Durable {
        visibility: Visibility,
        above: Seqno,
    },
}

/// What an invocation came to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It has more to do.
    Again(Box<Backfill>),
    /// It must wait.
    Snooze(Box<Backfill>, Snooze),
    /// It is over: the stream goes on from memory, or has ended.
    Done,
}

/// What a step came to, within an invocation.
enum Step {
    Again,
    Snooze(Snooze),
    Done,
}

impl Backfill {
    pub(crate) fn new(
        stream: Arc<StreamShared>,
        progress: Progress,
        slices: &Arc<SharedSlices>,
        clock: Arc<dyn Clock>,
    ) -> Box<Self> {
        let counted = slices.begin(stream.vb());
        stream.counters.backfills_started.add(1);
        let now = clock.monotonic();
        Box::new(Self {
            stream,
            progress,
            in_hand: None,
            failed_joins: 0,
            gap: Gap {
                least: u64::MAX,
                since: None,
            },
            counted,
            begun: now,
            queued: now,
            clock,
            has_handed_on: false,
        })
    }

    /// From now on it waits for a worker.
    pub(crate) fn set_queued(&mut self) {
        self.queued = self.clock.monotonic();
    }

    /// One invocation.
    pub(crate) fn run(mut self: Box<Self>, around: &Surroundings) -> Outcome {
        let waited = self.clock.monotonic().saturating_sub(self.queued);
        around.counters.queue_wait_micros.observe_time(waited);
        if self.stream.is_closed() {
            return Outcome::Done;
        }
        self.counted.set_active(true);
        match self.step(around) {
            Ok(Step::Again) => Outcome::Again(self),
            Ok(Step::Snooze(snooze)) => {
                let is_for_room = matches!(snooze, Snooze::Room);
                self.counted.set_active(!is_for_room);
                Outcome::Snooze(self, snooze)
            }
            Ok(Step::Done) => Outcome::Done,
            Err(reason) => {
                tracing::debug!(vb = %self.stream.vb(), reason = reason.name(), "backfill ended");
                let end = Batch::ended(Arc::clone(&self.stream), reason);
                self.deliver(end, None);
                Outcome::Done
            }
        }
    }

    fn step(&mut self, around: &Surroundings) -> Result<Step, EndReason> {
        if let Some(in_hand) = self.in_hand.take() {
            // ORDER: what is synced first, the generation second; see `VbCell`.
            let is_synced = self.stream.feed.synced() >= in_hand.persisted;
            if is_synced && self.stream.feed.is_gone(self.stream.generation) {
                return Err(EndReason::VbucketGone);
            }
            return self.hand_on(in_hand, around);
        }
        let stream = Arc::clone(&self.stream);
        let feed = &stream.feed;
        if feed.is_gone(stream.generation) {
            return Err(EndReason::VbucketGone);
        }
        let end_min = self.progress.end_min();
        if feed.persisted() < end_min {
            return self.wait_for_view(end_min);
        }
        if self.progress.is_complete()
            && let Some(cursor) = feed.join(stream.generation, self.progress.position())?
        {
            let nothing = self.batch(None, Changes::None, None, None);
            return Ok(self.join(nothing, cursor));
        }

        let budget = around.engine.tuning().slice_budget;
        let wanted = u64::try_from(budget.bytes_max).unwrap_or(u64::MAX);
        let Some(charge) = stream.account.reserve(wanted.saturating_mul(2)) else {
            return Ok(Step::Snooze(Snooze::Room));
        };
        let shared = around.slices.find(
            stream.vb(),
            stream.generation,
            stream.views_at_open,
            &self.progress,
        );
        let after = self.progress.position();
        let mut held = None;
        let is_shared = shared.is_some();
        let slice = if let Some(slice) = shared {
            slice
        } else {
            if self.failed_joins >= FAILED_JOINS_MAX {
                held = Some(feed.hold_memory(stream.generation)?);
            }
            let view = around.slices.begin_view();
            let slice = Arc::new(feed.slice(after, within(budget, charge.bytes()))?);
            let slices = &around.slices;
            slices.keep(stream.vb(), stream.generation, after, view, &slice);
            slice
        };
        let read = self.take(&slice, charge, is_shared, around)?;
        drop(held);
        match read {
            Some(in_hand) => self.hand_on(in_hand, around),
            None => self.wait_for_view(self.progress.end_min()),
        }
    }

    /// Steps 3 and 4: from a slice to what is to be handed on; `None` if its view ends too early.
    fn take(
        &mut self,
        slice: &Arc<Slice>,
        mut charge: Charge,
        is_shared: bool,
        around: &Surroundings,
    ) -> Result<Option<InHand>, EndReason> {
        let view = View {
            vb_uuid: slice.vb_uuid(),
            persisted_seqno: slice.persisted_seqno(),
            purge_seqno: slice.purge_seqno(),
        };
        let marker = match self.progress.take_view(&view) {
            Ok(marker) => marker,
            Err(Unfit::Behind) => return Ok(None),
            Err(Unfit::Purged) => return Err(from_zero(RollbackReason::Purged)),
            Err(Unfit::OtherBranch) if self.stream.feed.is_gone(self.stream.generation) => {
                return Err(EndReason::VbucketGone);
            }
            Err(Unfit::OtherBranch) => return Err(from_zero(RollbackReason::UnknownBranch)),
        };
        let taken = self.choose(slice, &charge, is_shared);
        charge.settle(taken.bytes.saturating_add(BATCH_BYTES));
        self.progress.advance(taken.position);
        let last = taken.changes.last_seqno();
        let advance = (last != Some(taken.position) && taken.position > taken.after)
            .then_some(taken.position);
        self.count(&taken, slice, is_shared, around);

        let position = self.progress.position();
        let end = self.progress.is_at_end().then_some(EndReason::ReachedEnd);
        let mut cursor = None;
        if end.is_none() && self.progress.is_complete() {
            let stream = &self.stream;
            cursor = stream.feed.join(stream.generation, position)?;
            self.failed_joins = match cursor {
                Some(_) => 0,
                None => self.failed_joins.saturating_add(1),
            };
        }
        let mut batch = self.batch(marker, taken.changes, advance, Some(charge));
        batch.end = end;
        Ok(Some(InHand {
            batch,
            cursor,
            persisted: slice.persisted_seqno(),
            since: None,
        }))
    }

    /// Steps 5 and 6.
    fn hand_on(&mut self, mut in_hand: InHand, around: &Surroundings) -> Result<Step, EndReason> {
        let feed = &self.stream.feed;
        let is_synced_only = self.stream.options.visibility == Visibility::Synced;
        // ORDER: the seqno first, the generation second; see `VbCell`.
        if is_synced_only && feed.synced() < in_hand.persisted {
            if feed.is_gone(self.stream.generation) {
                return Err(EndReason::VbucketGone);
            }
            if let Some(error) = feed.unwell() {
                return Err(error.into());
            }
            feed.demand_sync();
            let above = below(in_hand.persisted);
            in_hand.since.get_or_insert(around.clock.monotonic());
            self.in_hand = Some(in_hand);
            let visibility = Visibility::Synced;
            return Ok(Step::Snooze(Snooze::Durable { visibility, above }));
        }
        if let Some(since) = in_hand.since {
            let waited = around.clock.monotonic().saturating_sub(since);
            around.counters.sync_wait_micros.observe_time(waited);
        }
        if !std::mem::replace(&mut self.has_handed_on, true) {
            let first = &around.counters.first_item_micros;
            first.observe_time(self.age());
        }
        let is_over = in_hand.batch.end.is_some();
        if let Some(cursor) = in_hand.cursor {
            return Ok(self.join(in_hand.batch, cursor));
        }
        self.deliver(in_hand.batch, None);
        Ok(if is_over { Step::Done } else { Step::Again })
    }

    /// Waits until a view reaches `end`.
    fn wait_for_view(&self, end: Seqno) -> Result<Step, EndReason> {
        if let Some(error) = self.stream.feed.unwell() {
            return Err(error.into());
        }
        self.stream.feed.demand_flush();
        let (visibility, above) = (Visibility::Persisted, below(end));
        Ok(Step::Snooze(Snooze::Durable { visibility, above }))
    }

    fn batch(
        &self,
        marker: Option<vbstore_core::Marker>,
        changes: Changes,
        advance: Option<Seqno>,
        charge: Option<Charge>,
    ) -> Batch {
        Batch {
            stream: Arc::clone(&self.stream),
            marker,
            changes,
            advance,
            end: None,
            charge,
        }
    }

    /// The stream goes on from memory.
    fn join(&self, batch: Batch, cursor: CursorGuard) -> Step {
        let tail = Tail {
            stream: Arc::clone(&self.stream),
            progress: self.progress,
            cursor: Arc::new(cursor),
        };
        self.deliver(batch, Some(tail));
        Step::Done
    }

    fn age(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.begun)
    }

    fn deliver(&self, batch: Batch, tail: Option<Tail>) {
        if let Some(inbox) = self.stream.inbox.upgrade() {
            inbox.deliver(batch, tail);
        }
    }

    /// Chooses what of a slice is delivered, and in which form.
    fn choose(&self, slice: &Arc<Slice>, charge: &Charge, is_shared: bool) -> Taken {
        let options = &self.stream.options;
        let after = self.progress.position();
        let first = slice.first_above(after);
        let mut taken = Taken {
            after,
            position: slice.position(),
            changes: Changes::None,
            bytes: 0,
        };
        let skips_upto = self.progress.deletions_skipped_upto();
        let mut wanted = Vec::new();
        for index in first..slice.len() {
            let Some(item) = slice.item(index) else {
                break;
            };
            if !options.wants(&item.meta, item.key, skips_upto) {
                continue;
            }
            let value_len = if options.is_keys_only {
                0
            } else {
                item.value.len()
            };
            let size = item.key.len().saturating_add(value_len);
            let size = u64::try_from(size)
                .unwrap_or(u64::MAX)
                .saturating_add(ROW_BYTES);
            // What this stream read itself was read within its reservation.
            let is_over = taken.bytes.saturating_add(size) > charge.bytes();
            if is_shared && is_over && !wanted.is_empty() {
                // Everything before this one was seen.
                taken.position = Seqno::new(item.meta.seqno.get().saturating_sub(1));
                break;
            }
            taken.bytes = taken.bytes.saturating_add(size);
            wanted.push(index);
        }
        let is_whole = wanted.len() == slice.len();
        if !wanted.is_empty() {
            // Few of many would keep the whole buffer in memory, and be charged for a few.
            let is_lean = taken.bytes.saturating_mul(2) >= slice.memory();
            taken.changes = if is_whole && is_lean && !options.is_keys_only {
                Changes::Slice(Arc::clone(slice), Rows::Range(first..slice.len()))
            } else if is_lean && !options.is_keys_only {
                Changes::Slice(Arc::clone(slice), Rows::List(wanted))
            } else {
                let lean = slice.with_only(&wanted, !options.is_keys_only);
                let rows = Rows::Range(0..lean.len());
                Changes::Slice(Arc::new(lean), rows)
            };
        }
        taken
    }

    fn count(&mut self, taken: &Taken, slice: &Slice, is_shared: bool, around: &Surroundings) {
        let figures = &self.stream.figures;
        let counter = if is_shared {
            &figures.shared_slices
        } else {
            &figures.slices
        };
        add(counter, 1);
        let items = u64::try_from(taken.changes.len()).unwrap_or(0);
        add(&figures.items_from_disk, items);
        let counters = &around.counters;
        counters.items_from_disk.add(items);
        let bytes = taken.bytes.saturating_sub(ROW_BYTES.saturating_mul(items));
        counters.bytes_from_disk.add(bytes);
        if is_shared {
            counters.slices.shared.add(1);
        } else {
            let is_complete = slice.end() == SliceEnd::Complete;
            let slices = &counters.slices;
            let end = if is_complete {
                &slices.complete
            } else {
                &slices.budget
            };
            end.add(1);
            let items = u64::try_from(slice.len()).unwrap_or(0);
            counters.slice_items.observe(items);
        }
        set(&figures.read_seqno, taken.position);
        set(&figures.announced_seqno, slice.persisted_seqno());

        // Nearer than ever: it converges.
        let now = around.clock.monotonic();
        let gap = slice.persisted_seqno().since(taken.position);
        let is_nearer = gap < self.gap.least || slice.end() == SliceEnd::Complete;
        if is_nearer || self.gap.since.is_none() {
            self.gap.least = gap;
            self.gap.since = Some(now);
        }
        let since = self.gap.since.unwrap_or(now);
        let is_diverging = gap > 0 && now.saturating_sub(since) >= around.diverging_after;
        if figures.is_diverging.swap(is_diverging, Ordering::AcqRel) != is_diverging {
            tracing::warn!(vb = %self.stream.vb(), gap, is_diverging, "backfill and its end");
        }
    }
}

impl Drop for Backfill {
    fn drop(&mut self) {
        let counters = &self.stream.counters;
        counters.duration_micros.observe_time(self.age());
        counters.backfills_ended.add(1);
    }
}

/// What is delivered of a slice.
struct Taken {
    after: Seqno,
    position: Seqno,
    changes: Changes,
    /// What it takes in memory.
    bytes: u64,
}

/// The budget of a slice that must fit into a reservation.
fn within(budget: SliceBudget, reserved: u64) -> SliceBudget {
    let half = reserved / 2;
    let size = |bytes: u64| usize::try_from(bytes.max(1)).unwrap_or(usize::MAX);
    SliceBudget {
        items_max: budget.items_max.min(size(half / ROW_BYTES)),
        bytes_max: budget.bytes_max.min(size(half)),
        ..budget
    }
}

fn below(seqno: Seqno) -> Seqno {
    Seqno::new(seqno.get().saturating_sub(1))
}

fn from_zero(reason: RollbackReason) -> EndReason {
    EndReason::Rollback {
        to: Seqno::ZERO,
        reason,
    }
}
