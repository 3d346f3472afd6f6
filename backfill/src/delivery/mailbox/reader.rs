//! What the reader of a consumer does.

use super::state::{Mailbox, Source, State};
use crate::config::Order;
use crate::delivery::batch::Batch;
use crate::delivery::tail::Tail;
use crate::stream::{BackfillId, EndReason, Event, Stream, StreamId};
use std::sync::Arc;
#[cfg(feature = "async")]
use std::task::Waker;
use std::time::Duration;
use vbstore_engine::ReaderGuard;

/// What the reader finds.
#[derive(Debug)]
pub(crate) enum Found {
    /// A batch, which is in `taking` now.
    Batch {
        /// What kept the stream registered as a reader, if the batch is its end.
        ended: Option<ReaderGuard>,
    },
    /// A stream to read from memory.
    Tail(Tail),
    /// A stream whose batches were dropped, to be resumed from what was taken.
    Paused(Arc<Stream>),
    /// Nothing now.
    Nothing,
    /// No stream is left, and nothing of one.
    Ended,
}

impl Mailbox {
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
        // Dropping its charge wakes those that wait for room.
        drop(finished);
        let event = event?;
        self.note_taken(1, u64::from(!matches!(event, Event::SnapshotMarker(_))));
        Some((stream, event))
    }

    /// Takes what is left of the batch that is being taken.
    pub(crate) fn take_rest(&self) -> Option<Batch> {
        self.taking.lock().take()
    }

    /// Notes that events were taken, so many of which move a position: all but markers. Called by the
    /// reader alone.
    pub(crate) fn note_taken(&self, events: u64, moving: u64) {
        self.taker.take(events, moving);
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
            return Found::Ended;
        }
        self.taker.act();
        Found::Nothing
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
            state.note_turn(id);
            *self.taking.lock() = Some(batch);
            return Some(Found::Batch { ended: None });
        }
        let stream = Arc::clone(&entry.stream);
        match &entry.source {
            Source::Paused => {
                self.taker.act();
                Some(Found::Paused(stream))
            }
            Source::Ended(reason) => {
                let reason = reason.clone();
                self.counters.closed.of(reason.name()).add(1);
                let mut removed = state.remove(id);
                let ended = removed.as_mut().and_then(|entry| entry.reader.take());
                // Only the entry goes; it has no batch and no tail any more.
                drop(removed);
                *self.taking.lock() = Some(Batch::ended(stream, reason));
                Some(Found::Batch { ended })
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
        let Some(entry) = state.lent_mut(id) else {
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
        let Some(entry) = state.lent_mut(id) else {
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
        let Some(entry) = state.resumable_mut(id) else {
            drop(state);
            drop(source);
            return false;
        };
        entry.source = source;
        state.queue(id);
        true
    }
}
