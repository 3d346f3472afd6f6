//! A backfill: the part of a stream that reads from disk, one slice an invocation.
//!
//! # The slice law: the order of its steps
//! An invocation is a *plan*, a *read* and a *finish*. One read serves the plans of several backfills
//! through one db snapshot, so that a consumer of many small vBuckets does not open one for each.
//! 1. Plan: what must be waited for comes first, and waiting is returning: a slice in hand that is not
//!    synced yet; a view that would end below what was announced; room in the consumer's buffer.
//!    (The permit to run was given by the scheduler with the invocation itself. A range to be held
//!    would be registered here.) What is left is an [`Ask`], with its charge.
//! 2. Read: the db snapshot is opened, the ranges are scanned up to their budgets, iterators and
//!    snapshot are dropped: all inside [`vbstore_engine::Engine::scan`], in which nothing waits, sends
//!    or calls back.
//! 3. Finish: what the view held besides is checked: branch, purge seqno, its end.
//! 4. If the slice reached the end of its view, the stream's cursor is registered right after it: its
//!    lag at birth is the time of one read.
//! 5. If the view held what is not synced, a sync is asked for and the slice stays in hand; nothing
//!    of it is delivered before that sync, and nothing ever if it fails. It cannot be cut shorter: it
//!    has lost what the unsynced batch replaced.
//! 6. The marker goes first, then the items.
//!
//! Between two invocations a backfill holds no db snapshot, no iterator and no permit.

mod divergence;
mod finish;
mod plan;
mod shared_slices;

pub(crate) use plan::Planned;
pub(crate) use shared_slices::SharedSlices;

use crate::delivery::{Batch, Buffers, Charge, Mailbox, Next, Reading, Watcher};
use crate::stream::{BackfillId, EndReason, Stream};
use divergence::Divergence;
use shared_slices::BackfillGuard;
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Duration;
use vbstore_core::{Clock, Seqno, Visibility};
use vbstore_engine::{CursorGuard, Engine, SliceBudget};
use vbstore_metrics::StreamCounters;

/// What all backfills of an engine share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) engine: Engine,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) slices: Arc<SharedSlices>,
    pub(crate) buffers: Arc<Buffers>,
    pub(crate) counters: Arc<StreamCounters>,
    pub(crate) diverging_after: Duration,
}

/// The part of a stream that reads from disk.
#[derive(Debug)]
pub(crate) struct Backfill {
    id: BackfillId,
    reading: Reading,
    mailbox: Weak<Mailbox>,
    counters: Arc<StreamCounters>,
    clock: Arc<dyn Clock>,
    in_hand: Option<InHand>,
    failed_joins: u32,
    divergence: Divergence,
    counted: BackfillGuard,
    begun: Duration,
    /// Since when it waits for a worker, or for a place; meaningless while it runs or is snoozed.
    queued: Duration,
    has_handed_on: bool,
    /// Watches for durability while it is snoozed. Made once, so that a watch is replaced.
    watcher: Option<Arc<Watcher>>,
}

/// What was read and waits for its sync.
#[derive(Debug)]
struct InHand {
    batch: Batch,
    cursor: Option<CursorGuard>,
    is_over: bool,
    persisted: Seqno,
    /// Since when it waits; `None` before it does.
    since: Option<Duration>,
}

/// What a backfill waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Snooze {
    /// Room in its consumer's buffer; `is_short` if that of the total is used up by others.
    Room { is_short: bool },
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
        id: BackfillId,
        reading: Reading,
        mailbox: Weak<Mailbox>,
        context: &Context,
    ) -> Box<Self> {
        context.counters.backfills_started.add(1);
        let now = context.clock.monotonic();
        Box::new(Self {
            id,
            counted: context.slices.begin(reading.stream.vb),
            reading,
            mailbox,
            counters: Arc::clone(&context.counters),
            clock: Arc::clone(&context.clock),
            in_hand: None,
            failed_joins: 0,
            divergence: Divergence::default(),
            begun: now,
            queued: now,
            has_handed_on: false,
            watcher: None,
        })
    }

    pub(crate) fn id(&self) -> BackfillId {
        self.id
    }

    pub(crate) fn stream(&self) -> &Arc<Stream> {
        &self.reading.stream
    }

    /// Notes that it waits for a worker from now on.
    pub(crate) fn set_queued(&mut self) {
        self.queued = self.clock.monotonic();
    }

    /// Returns what ends its stream from outside: for when an invocation panics.
    pub(crate) fn lifeline(&self) -> Lifeline {
        Lifeline {
            id: self.id,
            stream: Arc::clone(self.stream()),
            mailbox: Weak::clone(&self.mailbox),
        }
    }

    /// Returns what watches for the durability it waits for. `make` makes its waker the first time.
    pub(crate) fn watcher(&mut self, make: impl FnOnce() -> Waker) -> Arc<Watcher> {
        let (feed, generation) = (&self.reading.feed, self.reading.stream.generation);
        let watcher = self
            .watcher
            .get_or_insert_with(|| Arc::new(Watcher::new(feed, generation, make())));
        Arc::clone(watcher)
    }

    /// Turns what a step came to into what the scheduler is told.
    fn outcome(mut self: Box<Self>, step: Result<Step, EndReason>) -> Outcome {
        match step {
            Ok(Step::Again) => Outcome::Again(self),
            Ok(Step::Snooze(snooze)) => {
                let is_for_room = matches!(snooze, Snooze::Room { .. });
                self.counted.set_active(!is_for_room);
                Outcome::Snooze(self, snooze)
            }
            Ok(Step::Done) => Outcome::Done,
            Err(reason) => {
                let vb = self.stream().vb;
                tracing::debug!(%vb, reason = reason.name(), "backfill ended");
                self.deliver(None, Next::End(reason));
                Outcome::Done
            }
        }
    }

    fn deliver(&self, batch: Option<Batch>, next: Next) {
        if let Some(mailbox) = self.mailbox.upgrade() {
            mailbox.deliver(self.stream().id, self.id, batch, next);
        }
    }

    fn age(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.begun)
    }
}

impl Drop for Backfill {
    fn drop(&mut self) {
        self.counters.duration_micros.observe_time(self.age());
        self.counters.backfills_ended.add(1);
    }
}

/// Ends the stream of a backfill whose invocation panicked.
#[derive(Debug)]
pub(crate) struct Lifeline {
    id: BackfillId,
    stream: Arc<Stream>,
    mailbox: Weak<Mailbox>,
}

impl Lifeline {
    pub(crate) fn id(&self) -> BackfillId {
        self.id
    }

    pub(crate) fn end(&self) {
        let vb = self.stream.vb;
        if let Some(mailbox) = self.mailbox.upgrade() {
            let reason = EndReason::Error(vbstore_engine::Error::StreamPanicked { vb });
            mailbox.deliver(self.stream.id, self.id, None, Next::End(reason));
        }
    }
}

/// Returns the budget of a slice that must fit into a charge.
fn within(budget: SliceBudget, charge: &Charge) -> SliceBudget {
    let row = vbstore_engine::Slice::ROW_BYTES;
    // More than there is memory for is as good as all of it.
    let reserved = usize::try_from(charge.bytes()).unwrap_or(usize::MAX);
    let rows = (reserved / 2).min(budget.items_max.saturating_mul(row));
    SliceBudget {
        items_max: budget.items_max.min((rows / row).max(1)),
        bytes_max: budget.bytes_max.min((reserved - rows).max(1)),
        ..budget
    }
}
