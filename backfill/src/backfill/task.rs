//! The state of a backfill, and the outcome of its invocations.

use super::divergence::Divergence;
use super::shared_slices::{BackfillGuard, SharedSlices};
use crate::delivery::{Buffers, EventBatch, Mailbox, NextSource, ReadState, WatchGuard};
use crate::schedule::{self, ScheduledTask, Snooze};
use crate::stream::{BackfillId, ConsumerId, EndReason, Stream};
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Duration;
use vbstore_core::{Clock, Seqno, Visibility};
use vbstore_engine::{CursorGuard, Engine};
use vbstore_metrics::StreamCounters;

/// What all backfills of an engine share.
#[derive(Debug)]
pub(crate) struct BackfillContext {
    pub(crate) engine: Engine,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) slices: Arc<SharedSlices>,
    pub(crate) buffers: Arc<Buffers>,
    pub(crate) counters: Arc<StreamCounters>,
    pub(crate) diverging_after: Duration,
}

/// The part of a stream that reads from disk. Between invocations it holds a position, and at most
/// one slice in hand that waits for its sync.
#[derive(Debug)]
pub(crate) struct Backfill {
    pub(super) id: BackfillId,
    pub(super) reading: ReadState,
    pub(super) mailbox: Weak<Mailbox>,
    pub(super) counters: Arc<StreamCounters>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) unsynced_read: Option<UnsyncedRead>,
    pub(super) failed_joins: u32,
    pub(super) divergence: Divergence,
    /// Counts the backfill as a possible user of the slices cached for its vBucket.
    pub(super) counted: BackfillGuard,
    pub(super) begun: Duration,
    /// The time since which it waits for a worker or a slot; meaningless while it runs or is
    /// snoozed.
    pub(super) queued: Duration,
    pub(super) has_delivered: bool,
    /// Watches for durability while the backfill is snoozed. Created once, so that a new watch
    /// replaces the old one.
    pub(super) watcher: Option<Arc<WatchGuard>>,
}

/// A slice that was read and waits for its sync.
#[derive(Debug)]
pub(super) struct UnsyncedRead {
    pub(super) batch: EventBatch,
    pub(super) cursor: Option<CursorGuard>,
    /// Whether the stream reaches its requested end with this batch.
    pub(super) is_over: bool,
    /// The end of the view: once it is synced, so is the batch.
    pub(super) persisted: Seqno,
    /// The time since which it waits; `None` if it has not had to wait yet.
    pub(super) since: Option<Duration>,
}

/// The outcome of an invocation.
pub(crate) type BackfillOutcome = schedule::InvocationOutcome<Backfill>;

pub(crate) type BackfillScheduler = schedule::Scheduler<Backfill>;

/// The result of a step within an invocation.
pub(super) enum StepOutcome {
    Again,
    Snooze(Snooze),
    Done,
}

impl Backfill {
    pub(crate) fn new(
        id: BackfillId,
        reading: ReadState,
        mailbox: Weak<Mailbox>,
        context: &BackfillContext,
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
            unsynced_read: None,
            failed_joins: 0,
            divergence: Divergence::default(),
            begun: now,
            queued: now,
            has_delivered: false,
            watcher: None,
        })
    }

    pub(crate) fn stream(&self) -> &Arc<Stream> {
        &self.reading.stream
    }

    /// Returns a handle that can end the stream without the backfill, in case an invocation panics.
    pub(crate) fn end_on_panic(&self) -> EndOnPanic {
        EndOnPanic {
            id: self.id,
            stream: Arc::clone(self.stream()),
            mailbox: Weak::clone(&self.mailbox),
        }
    }

    /// Converts the outcome of a step into the scheduler's.
    pub(super) fn outcome(
        mut self: Box<Self>,
        step: Result<StepOutcome, EndReason>,
    ) -> BackfillOutcome {
        match step {
            Ok(StepOutcome::Again) => BackfillOutcome::Again(self),
            Ok(StepOutcome::Snooze(snooze)) => {
                let is_for_room = matches!(snooze, Snooze::Room);
                // A backfill that waits for room cannot use a slice, so no slices are cached for
                // it.
                self.counted.set_active(!is_for_room);
                BackfillOutcome::Snooze(self, snooze)
            }
            Ok(StepOutcome::Done) => BackfillOutcome::Done,
            Err(reason) => {
                let vb = self.stream().vb;
                tracing::debug!(%vb, reason = reason.name(), "backfill ended");
                self.deliver(None, NextSource::End(reason));
                BackfillOutcome::Done
            }
        }
    }

    /// Delivers to the mailbox. Returns false if the stream no longer waits for this backfill,
    /// which is then over.
    pub(super) fn deliver(&self, batch: Option<EventBatch>, next: NextSource) -> bool {
        let mailbox = self.mailbox.upgrade();
        mailbox.is_some_and(|mailbox| mailbox.deliver(self.stream().id, self.id, batch, next))
    }

    /// Returns whether the stream still waits for this backfill.
    pub(super) fn is_awaited(&self) -> bool {
        let mailbox = self.mailbox.upgrade();
        mailbox.is_some_and(|mailbox| mailbox.is_awaited(self.stream().id, self.id))
    }

    /// Returns the time since the backfill began.
    pub(super) fn age(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.begun)
    }
}

impl ScheduledTask for Backfill {
    type Watcher = WatchGuard;

    fn id(&self) -> BackfillId {
        self.id
    }

    fn consumer(&self) -> ConsumerId {
        self.stream().consumer
    }

    fn set_queued(&mut self) {
        self.queued = self.clock.monotonic();
    }

    fn watcher(&mut self, make: impl FnOnce() -> Waker) -> Arc<WatchGuard> {
        let (feed, generation) = (&self.reading.feed, self.reading.stream.generation);
        let watcher = self
            .watcher
            .get_or_insert_with(|| Arc::new(WatchGuard::new(feed, generation, make())));
        Arc::clone(watcher)
    }

    fn watch(watcher: &WatchGuard, visibility: Visibility, above: Seqno) -> bool {
        watcher.watch(visibility, above)
    }
}

impl Drop for Backfill {
    fn drop(&mut self) {
        self.counters.duration_micros.observe_time(self.age());
        self.counters.backfills_ended.add(1);
    }
}

/// A handle that ends the stream of a backfill whose invocation panicked. The backfill itself is
/// lost then.
#[derive(Debug)]
pub(crate) struct EndOnPanic {
    id: BackfillId,
    stream: Arc<Stream>,
    mailbox: Weak<Mailbox>,
}

impl EndOnPanic {
    pub(crate) fn id(&self) -> BackfillId {
        self.id
    }

    pub(crate) fn end(&self) {
        let vb = self.stream.vb;
        if let Some(mailbox) = self.mailbox.upgrade() {
            let reason = EndReason::Error(vbstore_engine::Error::StreamPanicked { vb });
            mailbox.deliver(self.stream.id, self.id, None, NextSource::End(reason));
        }
    }
}
