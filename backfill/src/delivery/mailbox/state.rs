//! What a mailbox holds.

use crate::config::Order;
use crate::delivery::batch::Batch;
use crate::delivery::tail::Tail;
use crate::stream::{BackfillId, EndReason, Stream, StreamId};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;
use vbstore_core::{Taker, VbId};
use vbstore_engine::{ReaderGuard, Wakers};
use vbstore_metrics::StreamCounters;

pub(crate) struct Mailbox {
    pub(super) order: Order,
    pub(super) state: Mutex<State>,
    pub(super) arrived: Condvar,
    pub(super) taking: Mutex<Option<Batch>>,
    /// Counts what the reader does: takes an event, goes on with a paused stream, or finds nothing.
    pub(super) taker: Arc<Taker>,
    pub(super) counters: Arc<StreamCounters>,
    pub(super) wakers: Wakers,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) streams: HashMap<StreamId, Entry>,
    pub(super) by_vb: HashMap<VbId, StreamId>,
    /// Streams with a batch or an end to deliver, or paused: each once.
    pub(super) ready: VecDeque<StreamId>,
    /// Streams to be read from memory, each once.
    pub(super) memory: VecDeque<StreamId>,
    /// Whether the last thing the reader found was from memory: they take turns.
    pub(super) was_memory: bool,
    /// Batches and tails that the reader was ever given.
    pub(super) turns: u64,
    pub(super) waker: Option<Waker>,
}

/// Where the next events of a stream come from.
#[derive(Debug)]
pub(super) enum Source {
    /// A backfill.
    Disk(BackfillId),
    /// Memory. `None` while the reader has the tail.
    Memory(Option<Tail>),
    /// Nowhere until the reader comes back.
    Paused,
    /// It has an end.
    Ended(EndReason),
}

impl Source {
    /// Returns whether what was read of the stream and not taken can be read again after a pause. After
    /// a final end it cannot; an end that was reached is reached again.
    pub(super) fn is_read_again(&self) -> bool {
        match self {
            Self::Disk(_) | Self::Memory(_) | Self::Ended(EndReason::ReachedEnd) => true,
            // Nothing is there of one that is paused.
            Self::Paused | Self::Ended(_) => false,
        }
    }
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) stream: Arc<Stream>,
    /// Keeps it registered as a reader of its vBucket; `None` once it was ended from outside. Dropping
    /// it takes a lock.
    pub(super) reader: Option<ReaderGuard>,
    pub(super) batches: VecDeque<Batch>,
    pub(super) source: Source,
    /// Which of all turns was its last one; 0 for none.
    pub(super) turn: u64,
    pub(super) is_ready: bool,
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
        order: Order,
        taker: Arc<Taker>,
        counters: Arc<StreamCounters>,
        wakers: Wakers,
    ) -> Self {
        Self {
            order,
            state: Mutex::default(),
            arrived: Condvar::new(),
            taking: Mutex::new(None),
            taker,
            counters,
            wakers,
        }
    }

    /// Returns what counts the events that the reader has taken.
    pub(crate) fn taker(&self) -> &Arc<Taker> {
        &self.taker
    }

    /// Wakes the reader.
    pub(super) fn announce(&self, mut state: MutexGuard<'_, State>) {
        let waker = state.waker.take();
        drop(state);
        self.arrived.notify_all();
        if let Some(waker) = waker {
            self.wakers.post(waker);
        }
    }

    pub(super) fn take_current_of(&self, id: StreamId) -> Option<Batch> {
        self.taking.lock().take_if(|batch| batch.stream.id == id)
    }
}

impl State {
    pub(super) fn entry(&self, id: StreamId) -> &Entry {
        #[expect(clippy::expect_used, reason = "what is listed is there")]
        self.streams
            .get(&id)
            .expect("a listed stream that is not there")
    }

    pub(super) fn entry_mut(&mut self, id: StreamId) -> &mut Entry {
        #[expect(clippy::expect_used, reason = "what is listed is there")]
        self.streams
            .get_mut(&id)
            .expect("a listed stream that is not there")
    }

    /// Returns the entry of a stream whose tail the reader has; `None` if the stream was ended or
    /// paused meanwhile.
    pub(super) fn lent_mut(&mut self, id: StreamId) -> Option<&mut Entry> {
        let entry = self.streams.get_mut(&id)?;
        matches!(entry.source, Source::Memory(None)).then_some(entry)
    }

    /// Returns the entry of a stream that waits for its reader to say how it goes on: its tail is
    /// with the reader, or it is paused. `None` if it was ended meanwhile.
    pub(super) fn resumable_mut(&mut self, id: StreamId) -> Option<&mut Entry> {
        let entry = self.streams.get_mut(&id)?;
        matches!(entry.source, Source::Memory(None) | Source::Paused).then_some(entry)
    }

    /// Notes that a stream has its turn.
    pub(super) fn note_turn(&mut self, id: StreamId) {
        self.turns += 1;
        self.entry_mut(id).turn = self.turns;
    }

    /// Puts streams that were just paused into the line of what is ready, behind what is there. Round
    /// robin: the one whose last turn was longest ago first, so that however often a consumer is paused,
    /// each of its streams gets its turn. Sequential: in the order in which they were opened.
    pub(super) fn queue_paused(&mut self, mut paused: Vec<StreamId>, order: Order) {
        for id in &paused {
            self.entry_mut(*id).is_ready = false;
        }
        let streams = &self.streams;
        self.ready
            .retain(|id| streams.get(id).is_some_and(|entry| entry.is_ready));
        match order {
            Order::RoundRobin => paused.sort_by_key(|id| (self.entry(*id).turn, *id)),
            Order::Sequential => paused.sort_unstable(),
        }
        for id in paused {
            self.queue(id);
        }
    }

    /// Puts a stream into the turn that it belongs in, if it is not there.
    pub(super) fn queue(&mut self, id: StreamId) {
        let entry = self.entry_mut(id);
        let has_something =
            !entry.batches.is_empty() || matches!(entry.source, Source::Paused | Source::Ended(_));
        if has_something {
            if !entry.is_ready {
                entry.is_ready = true;
                self.ready.push_back(id);
            }
        } else if matches!(entry.source, Source::Memory(Some(_))) && !entry.is_in_memory_turn {
            entry.is_in_memory_turn = true;
            self.memory.push_back(id);
        }
    }

    /// Takes out a stream, from every turn.
    pub(super) fn remove(&mut self, id: StreamId) -> Option<Entry> {
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

    /// Lends the tail of the next stream that is to be read from memory.
    pub(super) fn next_tail(&mut self) -> Option<Tail> {
        loop {
            let id = self.memory.pop_front()?;
            let entry = self.entry_mut(id);
            entry.is_in_memory_turn = false;
            // With batches it is queued again when the last of them is taken out.
            if !entry.batches.is_empty() {
                continue;
            }
            // It may have left memory meanwhile.
            if let Source::Memory(tail) = &mut entry.source
                && let Some(tail) = tail.take()
            {
                self.note_turn(id);
                return Some(tail);
            }
        }
    }
}
