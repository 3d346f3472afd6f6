//! Where the streams of a consumer meet its reader.
//!
//! # Protocol
//! A stream is in the mailbox from its opening until its `End` is taken. What it is doing is its
//! [`Source`]:
//! ```text
//! Disk(backfill) -> Memory -> Disk(another backfill)    a cursor was dropped
//!                          -> Ended                     taken out with the End
//! Disk, Memory, Ended -> Paused -> Disk | Memory | Ended    its reader comes back
//! ```
//! - Workers deliver batches, in the order of each stream. What they deliver names the backfill that
//!   read it, and is dropped unless that is the stream's present source: so nothing comes twice, and
//!   nothing comes after an end.
//! - A stream that has joined memory leaves its [`Tail`] here. The reader takes it out, reads with it,
//!   and puts it back together with what it read: so it has one user at a time, and a stream that was
//!   ended meanwhile delivers nothing any more. A stream in memory is read only when none of its
//!   batches waits: its changes come after them.
//! - An end is noted once, in `end`, whoever brings it; it is delivered last, and taking it takes the
//!   stream out. Until then no other stream of its vBucket can be opened.
//! - The batch whose events the reader takes one by one stays here, in `taking`, so that it can be
//!   dropped as well as those that wait.
//!
//! A wake-up of a stream in memory puts it into `memory`. The tail is put back *before* its watch is
//! registered, and a watch that is fulfilled already counts as fired: so the stream is there whenever
//! there may be something to read.
//!
//! # Locks
//! `state` before `taking`. Both are leaves: nothing that takes another lock is called, woken or
//! dropped while one is held. What is taken out is dropped after the lock is released.

use super::batch::Batch;
use super::tail::Tail;
use crate::config::Order;
use crate::stream::{BackfillId, EndReason, Event, Stream, StreamId, add, get};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};
use std::time::Duration;
use vbstore_core::VbId;
use vbstore_engine::{CursorGuard, Wakers};
use vbstore_metrics::StreamCounters;

/// What the reader finds.
#[derive(Debug)]
pub(crate) enum Found {
    /// A batch, which is in `taking` now.
    Batch,
    /// A stream to read from memory.
    Tail(Tail),
    /// A stream whose batches were dropped, to be resumed from what was taken.
    Paused(Arc<Stream>),
    /// Nothing now.
    Nothing,
    /// No stream is left, and nothing of one.
    Ended,
}

/// How a stream goes on after what is delivered.
#[derive(Debug)]
pub(crate) enum Next {
    /// With another slice.
    Disk,
    /// From memory.
    Memory(Tail),
    /// It is over.
    End(EndReason),
}

/// What was dropped of a consumer that takes nothing. Must be dropped without any lock.
#[derive(Debug, Default)]
pub(crate) struct Dropped {
    /// Backfills whose results are not wanted any more.
    pub(crate) backfills: Vec<BackfillId>,
    pub(crate) streams: u64,
    batches: Vec<Batch>,
    tails: Vec<Tail>,
}

pub(crate) struct Mailbox {
    order: Order,
    state: Mutex<State>,
    arrived: Condvar,
    taking: Mutex<Option<Batch>>,
    /// Events that the reader has taken.
    taken: AtomicU64,
    counters: Arc<StreamCounters>,
    wakers: Wakers,
}

#[derive(Debug, Default)]
struct State {
    streams: HashMap<StreamId, Entry>,
    by_vb: HashMap<VbId, StreamId>,
    /// Streams with a batch or an end to deliver, or paused: each once.
    ready: VecDeque<StreamId>,
    /// Streams to be read from memory, each once.
    memory: VecDeque<StreamId>,
    /// Whether the last thing the reader found was from memory: they take turns.
    was_memory: bool,
    waker: Option<Waker>,
}

/// Where the next events of a stream come from.
#[derive(Debug)]
enum Source {
    /// A backfill.
    Disk(BackfillId),
    /// Memory. `None` while the reader has the tail.
    Memory(Option<Tail>),
    /// Nowhere until the reader comes back.
    Paused,
    /// It has an end.
    Ended(EndReason),
}

#[derive(Debug)]
struct Entry {
    stream: Arc<Stream>,
    batches: VecDeque<Batch>,
    source: Source,
    is_ready: bool,
    is_in_memory_turn: bool,
}

/// A stream as the watchdog and the figures see it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) stream: Arc<Stream>,
    pub(crate) source: SeenSource,
    /// Whether there is something to take.
    pub(crate) owes: bool,
    /// Its place in memory. Asking it for its lag takes the vBucket's lock.
    pub(crate) cursor: Option<Arc<CursorGuard>>,
}

/// Where the next events of a stream come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SeenSource {
    Disk(BackfillId),
    Memory,
    Paused,
    Ended,
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox")
            .field("streams", &self.state.lock().streams.len())
            .finish_non_exhaustive()
    }
}

impl Mailbox {
    pub(crate) fn new(order: Order, counters: Arc<StreamCounters>, wakers: Wakers) -> Self {
        Self {
            order,
            state: Mutex::default(),
            arrived: Condvar::new(),
            taking: Mutex::new(None),
            taken: AtomicU64::new(0),
            counters,
            wakers,
        }
    }

    // ---- Beginning and ending -----------------------------------------------------------------

    /// Returns the stream of a vBucket, and whether it has ended.
    pub(crate) fn of_vb(&self, vb: VbId) -> Option<(StreamId, bool)> {
        let state = self.state.lock();
        let id = *state.by_vb.get(&vb)?;
        let has_ended = matches!(state.entry(id).source, Source::Ended(_));
        Some((id, has_ended))
    }

    /// Adds a stream. Panics if one of its vBucket is there: its consumer, which alone adds, has
    /// looked.
    pub(crate) fn begin_on_disk(&self, stream: &Arc<Stream>, backfill: BackfillId) {
        self.begin(stream, Source::Disk(backfill));
    }

    /// Adds a stream that memory serves from its start.
    pub(crate) fn begin_in_memory(&self, tail: Tail) {
        let stream = Arc::clone(&tail.stream);
        self.begin(&stream, Source::Memory(Some(tail)));
    }

    /// Adds a stream that has nothing to deliver but its end.
    pub(crate) fn begin_ended(&self, stream: &Arc<Stream>, reason: EndReason) {
        self.begin(stream, Source::Ended(reason));
    }

    fn begin(&self, stream: &Arc<Stream>, source: Source) {
        let mut state = self.state.lock();
        let before = state.by_vb.insert(stream.vb, stream.id);
        assert!(before.is_none(), "two streams of {}", stream.vb);
        let entry = Entry {
            stream: Arc::clone(stream),
            batches: VecDeque::new(),
            source,
            is_ready: false,
            is_in_memory_turn: false,
        };
        state.streams.insert(stream.id, entry);
        state.queue(stream.id);
        self.announce(state);
    }

    /// Removes a stream that was refused before it did anything.
    pub(crate) fn refuse(&self, id: StreamId) {
        let removed = self.state.lock().remove(id);
        self.counters.closed.refused.add(1);
        drop(removed);
    }

    /// Ends a stream from outside: what waits of it is dropped, its end delivered. Returns its
    /// backfill, if it has one. Does nothing to a stream that has ended.
    pub(crate) fn end(&self, id: StreamId, reason: EndReason) -> Option<BackfillId> {
        let mut state = self.state.lock();
        let entry = state.streams.get_mut(&id)?;
        if matches!(entry.source, Source::Ended(_)) {
            return None;
        }
        let batches = std::mem::take(&mut entry.batches);
        let source = std::mem::replace(&mut entry.source, Source::Ended(reason));
        let taking = self.take_current_of(id);
        state.queue(id);
        self.announce(state);
        drop((batches, taking));
        match source {
            Source::Disk(backfill) => Some(backfill),
            Source::Memory(_) | Source::Paused | Source::Ended(_) => None,
        }
    }

    /// Ends all streams without a word: the consumer is gone.
    pub(crate) fn abandon(&self) {
        let state = std::mem::take(&mut *self.state.lock());
        let taking = self.taking.lock().take();
        for entry in state.streams.values() {
            let reason = match &entry.source {
                Source::Ended(reason) => reason,
                _ => &EndReason::Closed,
            };
            self.counters.closed.of(reason.name()).add(1);
        }
        drop((state, taking));
    }

    // ---- What workers bring -------------------------------------------------------------------

    /// Delivers what a backfill has read, and how the stream goes on. All of it is dropped if the
    /// stream does not wait for that backfill any more.
    pub(crate) fn deliver(&self, id: StreamId, from: BackfillId, batch: Option<Batch>, next: Next) {
        let mut state = self.state.lock();
        let entry = state.streams.get_mut(&id);
        let is_awaited = |entry: &&mut Entry| matches!(entry.source, Source::Disk(b) if b == from);
        let Some(entry) = entry.filter(is_awaited) else {
            drop(state);
            drop((batch, next));
            return;
        };
        // One without events would be nothing to take.
        let (batch, empty) = match batch {
            Some(batch) if batch.is_empty() => (None, Some(batch)),
            batch => (batch, None),
        };
        entry.batches.extend(batch);
        match next {
            Next::Disk => {}
            Next::Memory(tail) => entry.source = Source::Memory(Some(tail)),
            Next::End(reason) => entry.source = Source::Ended(reason),
        }
        state.queue(id);
        self.announce(state);
        drop(empty);
    }

    /// Drops what is buffered for the consumer, which takes nothing. Its streams that had something
    /// read on, from what was taken, when its reader comes back.
    pub(crate) fn pause(&self) -> Dropped {
        let mut dropped = Dropped::default();
        let mut state = self.state.lock();
        let taking = {
            let mut taking = self.taking.lock();
            // Not the last batch of a stream, which is only its end.
            let is_open = |batch: &mut Batch| state.streams.contains_key(&batch.stream.id);
            taking.take_if(is_open)
        };
        let taken_of = taking.as_ref().map(|batch| batch.stream.id);
        dropped.batches.extend(taking);
        let mut paused = Vec::new();
        for (id, entry) in &mut state.streams {
            let had_batches = !entry.batches.is_empty() || taken_of == Some(*id);
            let is_paused = match &entry.source {
                // What a backfill has in hand is buffered as well.
                Source::Disk(backfill) => {
                    dropped.backfills.push(*backfill);
                    true
                }
                // An end that was reached is reached again when what is before it is read again.
                Source::Memory(Some(_)) | Source::Ended(EndReason::ReachedEnd) => had_batches,
                // The reader has the tail just now, so it takes; other ends are final.
                Source::Memory(None) | Source::Paused | Source::Ended(_) => false,
            };
            if matches!(entry.source, Source::Memory(None)) {
                continue;
            }
            dropped.batches.extend(entry.batches.drain(..));
            if is_paused {
                let source = std::mem::replace(&mut entry.source, Source::Paused);
                if let Source::Memory(Some(tail)) = source {
                    dropped.tails.push(tail);
                }
                dropped.streams += 1;
                add(&entry.stream.figures.pauses, 1);
                paused.push(*id);
            }
        }
        for id in paused {
            state.queue(id);
        }
        drop(state);
        dropped
    }

    // ---- The reader ---------------------------------------------------------------------------

    /// Takes the next event of the batch that is being taken; `None` if there is none.
    pub(crate) fn take_event(&self) -> Option<(Arc<Stream>, Event)> {
        let mut taking = self.taking.lock();
        let batch = taking.as_mut()?;
        let event = batch.take_event();
        let stream = Arc::clone(&batch.stream);
        let finished = if batch.is_empty() {
            taking.take()
        } else {
            None
        };
        drop(taking);
        // Its charge wakes whoever waits for room.
        drop(finished);
        let event = event?;
        self.note_taken(1);
        Some((stream, event))
    }

    /// Takes what is left of the batch that is being taken.
    pub(crate) fn take_rest(&self) -> Option<Batch> {
        self.taking.lock().take()
    }

    /// Notes that events were taken. Called by the reader alone.
    pub(crate) fn note_taken(&self, events: u64) {
        self.taken
            .store(get(&self.taken) + events, Ordering::Relaxed);
    }

    /// Returns how many events the reader has ever taken.
    pub(crate) fn taken(&self) -> u64 {
        get(&self.taken)
    }

    /// Returns what the reader is to do next. The batch that it was taking is finished.
    pub(crate) fn find(&self) -> Found {
        self.find_in(&mut self.state.lock())
    }

    /// The same, after waiting for it up to `timeout`, or for as long as it takes.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> Found {
        let mut state = self.state.lock();
        loop {
            match self.find_in(&mut state) {
                Found::Nothing => {}
                found => return found,
            }
            match timeout {
                None => self.arrived.wait(&mut state),
                Some(timeout) => {
                    // One wait: the caller knows how much time is left.
                    self.arrived.wait_for(&mut state, timeout);
                    return self.find_in(&mut state);
                }
            }
        }
    }

    /// The same for a task: `waker` is called when there may be something.
    #[cfg(feature = "async")]
    pub(crate) fn poll(&self, waker: &Waker) -> Found {
        // Cloning and dropping a waker runs the program's code: never under the lock.
        let mut kept = Some(waker.clone());
        let mut state = self.state.lock();
        let found = self.find_in(&mut state);
        if matches!(found, Found::Nothing) {
            std::mem::swap(&mut state.waker, &mut kept);
        }
        drop(state);
        drop(kept);
        found
    }

    /// Returns whether the reader would find something.
    pub(crate) fn has_something(&self) -> bool {
        let state = self.state.lock();
        !state.ready.is_empty() || !state.memory.is_empty() || state.streams.is_empty()
    }

    fn find_in(&self, state: &mut State) -> Found {
        let memory_first = !std::mem::replace(&mut state.was_memory, false);
        if memory_first && let Some(tail) = state.next_tail() {
            state.was_memory = true;
            return Found::Tail(tail);
        }
        if let Some(found) = self.next_ready(state) {
            return found;
        }
        if let Some(tail) = state.next_tail() {
            return Found::Tail(tail);
        }
        if state.streams.is_empty() {
            Found::Ended
        } else {
            Found::Nothing
        }
    }

    /// Serves the next stream that has a batch, an end, or is paused.
    fn next_ready(&self, state: &mut State) -> Option<Found> {
        let id = state.ready.pop_front()?;
        let entry = state.entry_mut(id);
        entry.is_ready = false;
        if let Some(batch) = entry.batches.pop_front() {
            // Sequential streams are delivered as they were read: one after another.
            let goes_on = self.order == Order::Sequential && !entry.batches.is_empty();
            if goes_on {
                entry.is_ready = true;
                state.ready.push_front(id);
            } else {
                state.queue(id);
            }
            *self.taking.lock() = Some(batch);
            return Some(Found::Batch);
        }
        let stream = Arc::clone(&entry.stream);
        match &entry.source {
            Source::Paused => Some(Found::Paused(stream)),
            Source::Ended(reason) => {
                let reason = reason.clone();
                self.counters.closed.of(reason.name()).add(1);
                // Only the entry goes; it has no batch and no tail any more.
                drop(state.remove(id));
                *self.taking.lock() = Some(Batch::ended(stream, reason));
                Some(Found::Batch)
            }
            // It is ready only while it has a batch, and nobody but this takes one out.
            Source::Disk(_) | Source::Memory(_) => unreachable!("{id} is ready with nothing"),
        }
    }

    /// Puts a tail back, with the batch that was read with it, which is in `taking` then. Returns
    /// false if the stream was ended or paused meanwhile; tail and batch are dropped then. Without a
    /// batch, its watch brings it back.
    pub(crate) fn put_back(&self, tail: Tail, batch: Option<Batch>) -> bool {
        let id = tail.stream.id;
        let mut state = self.state.lock();
        let entry = state.streams.get_mut(&id);
        let is_lent = |entry: &&mut Entry| matches!(entry.source, Source::Memory(None));
        let Some(entry) = entry.filter(is_lent) else {
            drop(state);
            drop((tail, batch));
            return false;
        };
        entry.source = Source::Memory(Some(tail));
        if batch.is_some() {
            *self.taking.lock() = batch;
            state.queue(id);
        }
        true
    }

    /// Ends a stream whose tail the reader has, after a last batch if there is one. Returns false if
    /// it was ended or paused meanwhile; the batch is dropped then.
    pub(crate) fn finish(&self, tail: Tail, batch: Option<Batch>, reason: EndReason) -> bool {
        let id = tail.stream.id;
        let mut state = self.state.lock();
        let entry = state.streams.get_mut(&id);
        let is_lent = |entry: &&mut Entry| matches!(entry.source, Source::Memory(None));
        let Some(entry) = entry.filter(is_lent) else {
            drop(state);
            drop((tail, batch));
            return false;
        };
        entry.source = Source::Ended(reason);
        if batch.is_some() {
            *self.taking.lock() = batch;
        }
        state.queue(id);
        drop(state);
        drop(tail);
        true
    }

    /// A stream whose tail the reader has, or that is paused, goes on with a backfill. Returns false
    /// if it was ended meanwhile.
    pub(crate) fn go_to_disk(&self, id: StreamId, backfill: BackfillId) -> bool {
        self.resume(id, Source::Disk(backfill))
    }

    /// A paused stream goes on from memory.
    pub(crate) fn go_to_memory(&self, tail: Tail) {
        self.resume(tail.stream.id, Source::Memory(Some(tail)));
    }

    /// A paused stream cannot go on.
    pub(crate) fn end_paused(&self, id: StreamId, reason: EndReason) {
        self.resume(id, Source::Ended(reason));
    }

    fn resume(&self, id: StreamId, source: Source) -> bool {
        let mut state = self.state.lock();
        let entry = state.streams.get_mut(&id);
        let is_with_reader =
            |entry: &&mut Entry| matches!(entry.source, Source::Memory(None) | Source::Paused);
        let Some(entry) = entry.filter(is_with_reader) else {
            drop(state);
            drop(source);
            return false;
        };
        entry.source = source;
        state.queue(id);
        true
    }

    /// A stream in memory may have something to read.
    pub(crate) fn notify(&self, id: StreamId) {
        let mut state = self.state.lock();
        // Its watch may fire when it is not in memory any more.
        let Some(entry) = state.streams.get_mut(&id) else {
            return;
        };
        if !matches!(entry.source, Source::Memory(_)) || entry.is_in_memory_turn {
            return;
        }
        entry.is_in_memory_turn = true;
        state.memory.push_back(id);
        self.announce(state);
    }

    /// Wakes the reader.
    fn announce(&self, mut state: MutexGuard<'_, State>) {
        let waker = state.waker.take();
        drop(state);
        self.arrived.notify_all();
        if let Some(waker) = waker {
            self.wakers.post(waker);
        }
    }

    fn take_current_of(&self, id: StreamId) -> Option<Batch> {
        self.taking.lock().take_if(|batch| batch.stream.id == id)
    }

    // ---- Figures ------------------------------------------------------------------------------

    /// Returns whether there is something to take.
    pub(crate) fn owes(&self) -> bool {
        let state = self.state.lock();
        let taking = self.taking.lock().is_some();
        taking || !state.ready.is_empty() || !state.memory.is_empty()
    }

    /// Looks at all streams.
    pub(crate) fn look(&self) -> Vec<Seen> {
        let state = self.state.lock();
        let taking = self.taking.lock();
        let taken_of = taking.as_ref().map(|batch| batch.stream.id);
        drop(taking);
        let entries = state.streams.iter();
        entries
            .map(|(id, entry)| Seen {
                stream: Arc::clone(&entry.stream),
                source: match &entry.source {
                    Source::Disk(backfill) => SeenSource::Disk(*backfill),
                    Source::Memory(_) => SeenSource::Memory,
                    Source::Paused => SeenSource::Paused,
                    Source::Ended(_) => SeenSource::Ended,
                },
                owes: entry.is_ready || entry.is_in_memory_turn || taken_of == Some(*id),
                cursor: match &entry.source {
                    Source::Memory(Some(tail)) => Some(Arc::clone(&tail.cursor)),
                    _ => None,
                },
            })
            .collect()
    }
}

impl State {
    fn entry(&self, id: StreamId) -> &Entry {
        #[expect(clippy::expect_used, reason = "what is listed is there")]
        self.streams
            .get(&id)
            .expect("a listed stream that is not there")
    }

    fn entry_mut(&mut self, id: StreamId) -> &mut Entry {
        #[expect(clippy::expect_used, reason = "what is listed is there")]
        self.streams
            .get_mut(&id)
            .expect("a listed stream that is not there")
    }

    /// Puts a stream into the turn that it belongs in, if it is not there.
    fn queue(&mut self, id: StreamId) {
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
    fn remove(&mut self, id: StreamId) -> Option<Entry> {
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
    fn next_tail(&mut self) -> Option<Tail> {
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
                return Some(tail);
            }
        }
    }
}

/// Wakes the reader of a stream that waits in memory.
#[derive(Debug)]
pub(crate) struct NewsWaker {
    mailbox: Weak<Mailbox>,
    stream: StreamId,
}

impl NewsWaker {
    pub(crate) fn waker(mailbox: &Weak<Mailbox>, stream: StreamId) -> Waker {
        Waker::from(Arc::new(Self {
            mailbox: Weak::clone(mailbox),
            stream,
        }))
    }
}

impl Wake for NewsWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(mailbox) = self.mailbox.upgrade() {
            mailbox.notify(self.stream);
        }
    }
}
