//! The reader's side of the mailbox.

use super::state::{EventSource, Mailbox, MailboxState};
use crate::config::BackfillOrder;
use crate::delivery::batch::EventBatch;
use crate::delivery::tail::Tail;
use crate::stream::{BackfillId, EndReason, Event, Stream, StreamId};
use std::sync::Arc;
#[cfg(feature = "async")]
use std::task::Waker;
use std::time::Duration;
use vbstore_engine::ReaderGuard;

/// The next thing for the reader to do.
#[derive(Debug)]
pub(crate) enum ReaderFinding {
    /// Take the events of the batch that is now in `current`.
    Batch {
        /// The guard that kept the stream registered as a reader, if the batch is its end. The
        /// caller drops it without the lock.
        ended: Option<ReaderGuard>,
    },
    /// Read a stream from memory with this tail.
    Tail(Tail),
    /// Resume a stream whose batches were dropped, from what was taken.
    Paused(Arc<Stream>),
    /// There is nothing to do now.
    Nothing,
    /// There is nothing left to deliver, and the consumer has no stream.
    Ended,
}

impl Mailbox {
    /// Takes the next event of the current batch; `None` if there is none.
    pub(crate) fn take_event(&self) -> Option<(Arc<Stream>, Event)> {
        let mut current = self.current.lock();
        let batch = current.as_mut()?;
        let event = batch.take_event();
        let stream = Arc::clone(&batch.stream);
        let finished = if batch.is_empty() {
            current.take()
        } else {
            None
        };
        drop(current);
        // Dropped without the lock: releasing its charge wakes backfills that wait for room.
        drop(finished);
        let event = event?;
        self.record_taken(1, u64::from(!matches!(event, Event::SnapshotMarker(_))));
        Some((stream, event))
    }

    /// Takes the rest of the current batch.
    pub(crate) fn take_rest(&self) -> Option<EventBatch> {
        self.current.lock().take()
    }

    /// Records that `events` events were taken. `moving` is the number of them that move a
    /// position: all except markers. Only the reader calls this.
    pub(crate) fn record_taken(&self, events: u64, moving: u64) {
        self.activity.take(events, moving);
    }

    /// Returns what the reader must do next. Called when the current batch is finished. Does not
    /// block.
    pub(crate) fn find(&self) -> ReaderFinding {
        self.find_in(&mut self.state.lock())
    }

    /// Like [`Self::find`], but blocks until there is something to do, or for at most `timeout`.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> ReaderFinding {
        let mut state = self.state.lock();
        loop {
            match self.find_in(&mut state) {
                ReaderFinding::Nothing => {}
                found => return found,
            }
            match timeout {
                None => self.arrived.wait(&mut state),
                Some(timeout) => {
                    // Waits once only: the caller computes the remaining time.
                    self.arrived.wait_for(&mut state, timeout);
                    return self.find_in(&mut state);
                }
            }
        }
    }

    /// Like [`Self::find`], for a task. If there is nothing to do, `waker` is called when there may
    /// be something.
    #[cfg(feature = "async")]
    pub(crate) fn poll(&self, waker: &Waker) -> ReaderFinding {
        // Cloning and dropping a waker runs the program's code, which must never run under the
        // lock.
        let mut kept = Some(waker.clone());
        let mut state = self.state.lock();
        let found = self.find_in(&mut state);
        if matches!(found, ReaderFinding::Nothing) {
            std::mem::swap(&mut state.waker, &mut kept);
        }
        drop(state);
        drop(kept);
        found
    }

    /// Returns whether [`Self::find`] would return something other than `Nothing`.
    pub(crate) fn has_something(&self) -> bool {
        let state = self.state.lock();
        !state.ready.is_empty() || !state.memory.is_empty() || state.streams.is_empty()
    }

    fn find_in(&self, state: &mut MailboxState) -> ReaderFinding {
        // Streams in memory and waiting batches take turns.
        let memory_first = !std::mem::replace(&mut state.last_was_memory, false);
        if memory_first && let Some(tail) = state.next_tail() {
            state.last_was_memory = true;
            return ReaderFinding::Tail(tail);
        }
        if let Some(found) = self.next_ready(state) {
            return found;
        }
        if let Some(tail) = state.next_tail() {
            return ReaderFinding::Tail(tail);
        }
        if state.streams.is_empty() {
            return ReaderFinding::Ended;
        }
        self.activity.act();
        ReaderFinding::Nothing
    }

    /// Serves the next stream that has a batch or an end, or is paused.
    fn next_ready(&self, state: &mut MailboxState) -> Option<ReaderFinding> {
        let id = state.ready.pop_front()?;
        let entry = state.entry_mut(id);
        entry.is_ready = false;
        if let Some(batch) = entry.batches.pop_front() {
            // A sequential consumer gets all waiting batches of one stream before those of the
            // next.
            let goes_on = self.order == BackfillOrder::Sequential && !entry.batches.is_empty();
            if goes_on {
                entry.is_ready = true;
                state.ready.push_front(id);
            } else {
                state.queue(id);
            }
            state.record_turn(id);
            *self.current.lock() = Some(batch);
            return Some(ReaderFinding::Batch { ended: None });
        }
        let stream = Arc::clone(&entry.stream);
        match &entry.source {
            EventSource::Paused => {
                self.activity.act();
                Some(ReaderFinding::Paused(stream))
            }
            EventSource::Ended(reason) => {
                let reason = reason.clone();
                self.counters.closed.of(reason.name()).add(1);
                let mut removed = state.remove(id);
                let ended = removed.as_mut().and_then(|entry| entry.reader.take());
                // Dropped under the lock, which is safe: without its guard the entry has no batch
                // and no tail, so this takes no other lock.
                drop(removed);
                *self.current.lock() = Some(EventBatch::ended(stream, reason));
                Some(ReaderFinding::Batch { ended })
            }
            // A stream is ready only while it has a batch, and only this function takes one out.
            EventSource::Disk(_) | EventSource::Memory(_) => {
                unreachable!("{id} is ready, but has no batch")
            }
        }
    }

    /// Puts a tail back. The batch that was read with it, if any, becomes the current one. Without
    /// a batch, the tail's watch brings the stream back. Returns false if the stream was ended or
    /// paused meanwhile; tail and batch are dropped then.
    pub(crate) fn put_back(&self, tail: Tail, batch: Option<EventBatch>) -> bool {
        let id = tail.stream.id;
        let mut state = self.state.lock();
        let Some(entry) = state.lent_mut(id) else {
            drop(state);
            drop((tail, batch));
            return false;
        };
        entry.source = EventSource::Memory(Some(tail));
        if batch.is_some() {
            *self.current.lock() = batch;
            state.queue(id);
        }
        true
    }

    /// Ends a stream whose tail the reader has, after a last batch if there is one. Returns false
    /// if the stream was ended or paused meanwhile; the batch is dropped then.
    pub(crate) fn finish(&self, tail: Tail, batch: Option<EventBatch>, reason: EndReason) -> bool {
        let id = tail.stream.id;
        let mut state = self.state.lock();
        let Some(entry) = state.lent_mut(id) else {
            drop(state);
            drop((tail, batch));
            return false;
        };
        entry.source = EventSource::Ended(reason);
        if batch.is_some() {
            *self.current.lock() = batch;
        }
        state.queue(id);
        drop(state);
        drop(tail);
        true
    }

    /// Continues a stream with a backfill. The reader has the stream's tail, or the stream is
    /// paused. Returns false if the stream was ended meanwhile.
    pub(crate) fn go_to_disk(&self, id: StreamId, backfill: BackfillId) -> bool {
        self.resume(id, EventSource::Disk(backfill))
    }

    /// Continues a paused stream from memory.
    pub(crate) fn go_to_memory(&self, tail: Tail) {
        self.resume(tail.stream.id, EventSource::Memory(Some(tail)));
    }

    /// Ends a paused stream that cannot continue.
    pub(crate) fn end_paused(&self, id: StreamId, reason: EndReason) {
        self.resume(id, EventSource::Ended(reason));
    }

    fn resume(&self, id: StreamId, source: EventSource) -> bool {
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
