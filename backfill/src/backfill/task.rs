//! What a backfill is, and what its invocations come to.

use super::divergence::Divergence;
use super::shared_slices::{BackfillGuard, SharedSlices};
use crate::delivery::{Batch, Buffers, Mailbox, Next, Reading, Watcher};
use crate::schedule::{self, Snooze, Task};
use crate::stream::{BackfillId, ConsumerId, EndReason, Stream};
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Duration;
use vbstore_core::{Clock, Seqno, Visibility};
use vbstore_engine::{CursorGuard, Engine};
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
    pub(super) id: BackfillId,
    pub(super) reading: Reading,
    pub(super) mailbox: Weak<Mailbox>,
    pub(super) counters: Arc<StreamCounters>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) in_hand: Option<InHand>,
    pub(super) failed_joins: u32,
    pub(super) divergence: Divergence,
    pub(super) counted: BackfillGuard,
    pub(super) begun: Duration,
    /// Since when it waits for a worker, or for a place; meaningless while it runs or is snoozed.
    pub(super) queued: Duration,
    pub(super) has_handed_on: bool,
    /// Watches for durability while it is snoozed. Made once, so that a watch is replaced.
    pub(super) watcher: Option<Arc<Watcher>>,
}

/// What was read and waits for its sync.
#[derive(Debug)]
pub(super) struct InHand {
    pub(super) batch: Batch,
    pub(super) cursor: Option<CursorGuard>,
    pub(super) is_over: bool,
    pub(super) persisted: Seqno,
    /// Since when it waits; `None` before it does.
    pub(super) since: Option<Duration>,
}

/// What an invocation came to.
pub(crate) type Outcome = schedule::Outcome<Backfill>;

/// The scheduler of backfills.
pub(crate) type Scheduler = schedule::Scheduler<Backfill>;

/// What a step came to, within an invocation.
pub(super) enum Step {
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

    pub(crate) fn stream(&self) -> &Arc<Stream> {
        &self.reading.stream
    }

    /// Returns what ends its stream from outside: for when an invocation panics.
    pub(crate) fn lifeline(&self) -> Lifeline {
        Lifeline {
            id: self.id,
            stream: Arc::clone(self.stream()),
            mailbox: Weak::clone(&self.mailbox),
        }
    }

    /// Converts the outcome of a step into the scheduler's.
    pub(super) fn outcome(mut self: Box<Self>, step: Result<Step, EndReason>) -> Outcome {
        match step {
            Ok(Step::Again) => Outcome::Again(self),
            Ok(Step::Snooze(snooze)) => {
                let is_for_room = matches!(snooze, Snooze::Room);
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

    /// Delivers. Returns false if nobody waits for this backfill any more: it is over.
    pub(super) fn deliver(&self, batch: Option<Batch>, next: Next) -> bool {
        let mailbox = self.mailbox.upgrade();
        mailbox.is_some_and(|mailbox| mailbox.deliver(self.stream().id, self.id, batch, next))
    }

    /// Returns whether its stream waits for it.
    pub(super) fn is_awaited(&self) -> bool {
        let mailbox = self.mailbox.upgrade();
        mailbox.is_some_and(|mailbox| mailbox.is_awaited(self.stream().id, self.id))
    }

    pub(super) fn age(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.begun)
    }
}

impl Task for Backfill {
    type Watcher = Watcher;

    fn id(&self) -> BackfillId {
        self.id
    }

    fn consumer(&self) -> ConsumerId {
        self.stream().consumer
    }

    fn set_queued(&mut self) {
        self.queued = self.clock.monotonic();
    }

    fn watcher(&mut self, make: impl FnOnce() -> Waker) -> Arc<Watcher> {
        let (feed, generation) = (&self.reading.feed, self.reading.stream.generation);
        let watcher = self
            .watcher
            .get_or_insert_with(|| Arc::new(Watcher::new(feed, generation, make())));
        Arc::clone(watcher)
    }

    fn watch(watcher: &Watcher, visibility: Visibility, above: Seqno) -> bool {
        watcher.watch(visibility, above)
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
