//! The state of a mailbox.

use crate::config::BackfillOrder;
use crate::delivery::batch::EventBatch;
use crate::delivery::tail::Tail;
use crate::stream::{BackfillId, EndReason, Stream, StreamId};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;
use vbstore_core::{ConsumerActivity, VbId};
use vbstore_engine::{ReaderGuard, Wakers};
use vbstore_metrics::StreamCounters;

/// The streams of one consumer with their undelivered batches; see the module docs for the
/// protocol.
pub(crate) struct Mailbox {
    pub(super) order: BackfillOrder,
    pub(super) state: Mutex<MailboxState>,
    /// Notified when there may be something for the reader. Only the reader waits for it.
    pub(super) arrived: Condvar,
    /// The batch whose events the reader takes one by one.
    pub(super) current: Mutex<Option<EventBatch>>,
    /// Counts the reader's actions: it takes an event, resumes a paused stream, or finds nothing.
    pub(super) activity: Arc<ConsumerActivity>,
    pub(super) counters: Arc<StreamCounters>,
    pub(super) wakers: Wakers,
}

#[derive(Debug, Default)]
pub(super) struct MailboxState {
    pub(super) streams: HashMap<StreamId, MailboxEntry>,
    pub(super) by_vb: HashMap<VbId, StreamId>,
    /// Streams that are paused, or have a batch or an end to deliver; each at most once.
    pub(super) ready: VecDeque<StreamId>,
    /// Streams that may have something to read from memory; each at most once.
    pub(super) memory: VecDeque<StreamId>,
    /// Whether the reader last read from memory: streams in memory and waiting batches take turns.
    pub(super) last_was_memory: bool,
    /// The number of batches and tails that the reader has received so far.
    pub(super) turns: u64,
    /// The waker of a task that waits for events, if there is one.
    pub(super) waker: Option<Waker>,
}

/// The source of the next events of a stream. It changes as described in the module docs of the
/// mailbox.
#[derive(Debug)]
pub(super) enum EventSource {
    /// A backfill reads it from disk.
    Disk(BackfillId),
    /// The reader reads it from memory. `None` while the reader has the tail.
    Memory(Option<Tail>),
    /// Nothing is read until the reader returns.
    Paused,
    /// Nothing more is read; this is its end.
    Ended(EndReason),
}

impl EventSource {
    /// Returns whether undelivered data of the stream can be read again after a pause. This
    /// includes the end `ReachedEnd`, which a resumed stream reaches again. After any other end
    /// nothing is read any more.
    pub(super) fn is_read_again(&self) -> bool {
        match self {
            Self::Disk(_) | Self::Memory(_) | Self::Ended(EndReason::ReachedEnd) => true,
            // A paused stream has no undelivered data.
            Self::Paused | Self::Ended(_) => false,
        }
    }
}

/// A stream in the mailbox.
#[derive(Debug)]
pub(super) struct MailboxEntry {
    pub(super) stream: Arc<Stream>,
    /// Keeps the stream registered as a reader of its vBucket; `None` once it was ended from
    /// outside. Dropping it takes a lock.
    pub(super) reader: Option<ReaderGuard>,
    pub(super) batches: VecDeque<EventBatch>,
    pub(super) source: EventSource,
    /// The number of its last turn, out of [`MailboxState::turns`]; 0 if it had none.
    pub(super) turn: u64,
    /// Whether it is in [`MailboxState::ready`].
    pub(super) is_ready: bool,
    /// Whether it is in [`MailboxState::memory`].
    pub(super) is_in_memory_turn: bool,
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox")
            .field("streams", &self.state.lock().streams.len())
            .finish_non_exhaustive()
    }
}

impl Mailbox {
    pub(crate) fn new(
        order: BackfillOrder,
        activity: Arc<ConsumerActivity>,
        counters: Arc<StreamCounters>,
        wakers: Wakers,
    ) -> Self {
        Self {
            order,
            state: Mutex::default(),
            arrived: Condvar::new(),
            current: Mutex::new(None),
            activity,
            counters,
            wakers,
        }
    }

    /// Returns the counter of the reader's actions.
    pub(crate) fn activity(&self) -> &Arc<ConsumerActivity> {
        &self.activity
    }

    /// Releases the lock, and wakes the reader. The waker of a task is posted to a thread of its
    /// own, because it runs the program's code.
    pub(super) fn announce(&self, mut state: MutexGuard<'_, MailboxState>) {
        let waker = state.waker.take();
        drop(state);
        self.arrived.notify_all();
        if let Some(waker) = waker {
            self.wakers.post(waker);
        }
    }

    /// Takes the current batch if it belongs to this stream.
    pub(super) fn take_current_of(&self, id: StreamId) -> Option<EventBatch> {
        self.current.lock().take_if(|batch| batch.stream.id == id)
    }
}

impl MailboxState {
    pub(super) fn entry(&self, id: StreamId) -> &MailboxEntry {
        #[expect(clippy::expect_used, reason = "listed streams exist")]
        self.streams
            .get(&id)
            .expect("a listed stream does not exist")
    }

    pub(super) fn entry_mut(&mut self, id: StreamId) -> &mut MailboxEntry {
        #[expect(clippy::expect_used, reason = "listed streams exist")]
        self.streams
            .get_mut(&id)
            .expect("a listed stream does not exist")
    }

    /// Returns the entry of a stream whose tail the reader has. `None` if the stream was ended or
    /// paused meanwhile.
    pub(super) fn lent_mut(&mut self, id: StreamId) -> Option<&mut MailboxEntry> {
        let entry = self.streams.get_mut(&id)?;
        matches!(entry.source, EventSource::Memory(None)).then_some(entry)
    }

    /// Returns the entry of a stream whose next source the reader decides: the reader has its tail,
    /// or it is paused. `None` if it was ended meanwhile.
    pub(super) fn resumable_mut(&mut self, id: StreamId) -> Option<&mut MailboxEntry> {
        let entry = self.streams.get_mut(&id)?;
        matches!(
            entry.source,
            EventSource::Memory(None) | EventSource::Paused
        )
        .then_some(entry)
    }

    /// Records that it is a stream's turn, for the order of paused streams.
    pub(super) fn record_turn(&mut self, id: StreamId) {
        self.turns += 1;
        self.entry_mut(id).turn = self.turns;
    }

    /// Adds newly paused streams to the end of `ready`. For round robin, the streams whose last
    /// turn is longest ago come first, so that each stream gets its turn however often the consumer
    /// is paused. A sequential consumer's streams keep the order in which they were opened.
    pub(super) fn queue_paused(&mut self, mut paused: Vec<StreamId>, order: BackfillOrder) {
        for id in &paused {
            self.entry_mut(*id).is_ready = false;
        }
        let streams = &self.streams;
        self.ready
            .retain(|id| streams.get(id).is_some_and(|entry| entry.is_ready));
        match order {
            BackfillOrder::RoundRobin => paused.sort_by_key(|id| (self.entry(*id).turn, *id)),
            BackfillOrder::Sequential => paused.sort_unstable(),
        }
        for id in paused {
            self.queue(id);
        }
    }

    /// Adds a stream to `ready` or to `memory`, if it belongs there and is not in it yet.
    pub(super) fn queue(&mut self, id: StreamId) {
        let entry = self.entry_mut(id);
        let has_something = !entry.batches.is_empty()
            || matches!(entry.source, EventSource::Paused | EventSource::Ended(_));
        if has_something {
            if !entry.is_ready {
                entry.is_ready = true;
                self.ready.push_back(id);
            }
        } else if matches!(entry.source, EventSource::Memory(Some(_))) && !entry.is_in_memory_turn {
            entry.is_in_memory_turn = true;
            self.memory.push_back(id);
        }
    }

    /// Removes a stream, also from `ready` and `memory`.
    pub(super) fn remove(&mut self, id: StreamId) -> Option<MailboxEntry> {
        let entry = self.streams.remove(&id)?;
        self.by_vb.remove(&entry.stream.vb);
        if entry.is_ready {
            self.ready.retain(|ready| *ready != id);
        }
        if entry.is_in_memory_turn {
            self.memory.retain(|waiting| *waiting != id);
        }
        Some(entry)
    }

    /// Takes the tail of the next stream to read from memory. The reader must put it back or end
    /// the stream.
    pub(super) fn next_tail(&mut self) -> Option<Tail> {
        loop {
            let id = self.memory.pop_front()?;
            let entry = self.entry_mut(id);
            entry.is_in_memory_turn = false;
            // A stream with batches is queued again when the last of them is taken out.
            if !entry.batches.is_empty() {
                continue;
            }
            // The stream may have left memory meanwhile.
            if let EventSource::Memory(tail) = &mut entry.source
                && let Some(tail) = tail.take()
            {
                self.record_turn(id);
                return Some(tail);
            }
        }
    }
}
