//! The life of streams in the mailbox: their start, deliveries by workers, pauses and ends.

use super::state::{EventSource, Mailbox, MailboxEntry, MailboxState};
use crate::delivery::batch::EventBatch;
use crate::delivery::tail::Tail;
use crate::stream::{BackfillId, EndReason, Stream, StreamId, add};
use parking_lot::MutexGuard;
use std::collections::VecDeque;
use std::sync::Arc;
use vbstore_core::VbId;
use vbstore_engine::ReaderGuard;

/// How a stream continues after a delivery.
#[derive(Debug)]
pub(crate) enum NextSource {
    /// With another slice of the same backfill.
    Disk,
    /// From memory.
    Memory(Tail),
    End(EndReason),
}

/// The batches, tails and backfills of streams that were paused. Must be dropped without any lock
/// held, since the batches release buffer space and the tails release cursors.
#[derive(Debug, Default)]
pub(crate) struct PausedWork {
    /// Backfills whose results are no longer wanted.
    pub(crate) backfills: Vec<BackfillId>,
    pub(crate) streams: u64,
    batches: Vec<EventBatch>,
    tails: Vec<Tail>,
}

impl Mailbox {
    /// Returns the stream of a vBucket, if there is one, and whether it has ended.
    pub(crate) fn stream_of(&self, vb: VbId) -> Option<(StreamId, bool)> {
        let state = self.state.lock();
        let id = *state.by_vb.get(&vb)?;
        let has_ended = matches!(state.entry(id).source, EventSource::Ended(_));
        Some((id, has_ended))
    }

    /// Adds a stream that a backfill reads. Panics if the mailbox has a stream of the vBucket
    /// already: only the consumer adds streams, and it has checked that.
    pub(crate) fn begin_on_disk(
        &self,
        stream: &Arc<Stream>,
        reader: ReaderGuard,
        backfill: BackfillId,
    ) {
        self.begin(stream, reader, EventSource::Disk(backfill));
    }

    /// Adds a stream that reads from memory from its start.
    pub(crate) fn begin_in_memory(&self, tail: Tail, reader: ReaderGuard) {
        let stream = Arc::clone(&tail.stream);
        self.begin(&stream, reader, EventSource::Memory(Some(tail)));
    }

    /// Adds a stream that delivers only its end.
    pub(crate) fn begin_ended(&self, stream: &Arc<Stream>, reader: ReaderGuard, reason: EndReason) {
        self.begin(stream, reader, EventSource::Ended(reason));
    }

    fn begin(&self, stream: &Arc<Stream>, reader: ReaderGuard, source: EventSource) {
        let mut state = self.state.lock();
        let before = state.by_vb.insert(stream.vb, stream.id);
        assert!(
            before.is_none(),
            "a second stream of {} in one mailbox",
            stream.vb
        );
        let entry = MailboxEntry {
            stream: Arc::clone(stream),
            reader: Some(reader),
            batches: VecDeque::new(),
            source,
            turn: 0,
            is_ready: false,
            is_in_memory_turn: false,
        };
        state.streams.insert(stream.id, entry);
        state.queue(stream.id);
        self.announce(state);
    }

    /// Removes a stream whose backfill was refused.
    pub(crate) fn refuse(&self, id: StreamId) {
        let removed = self.state.lock().remove(id);
        self.counters.closed.refused.add(1);
        drop(removed);
    }

    /// Ends a stream from outside. Its waiting batches are dropped, its end is delivered, and it is
    /// unregistered as a reader of its vBucket, whether or not the end is ever taken. Returns its
    /// backfill, if it has one, for the caller to remove. Does nothing if the stream has ended
    /// already.
    pub(crate) fn end(&self, id: StreamId, reason: EndReason) -> Option<BackfillId> {
        self.end_in(self.state.lock(), id, reason)
    }

    /// Like [`Self::end`], for a stream of a stalled consumer. Does nothing if the reader has acted
    /// since the watchdog read `acted`.
    pub(crate) fn end_stalled(&self, id: StreamId, acted: u64) -> Option<BackfillId> {
        let state = self.state.lock();
        if self.activity.acted() != acted {
            return None;
        }
        self.end_in(state, id, EndReason::Stalled)
    }

    fn end_in(
        &self,
        mut state: MutexGuard<'_, MailboxState>,
        id: StreamId,
        reason: EndReason,
    ) -> Option<BackfillId> {
        let entry = state.streams.get_mut(&id)?;
        if matches!(entry.source, EventSource::Ended(_)) {
            return None;
        }
        let batches = std::mem::take(&mut entry.batches);
        let source = std::mem::replace(&mut entry.source, EventSource::Ended(reason));
        let reader = entry.reader.take();
        let current = self.take_current_of(id);
        state.queue(id);
        self.announce(state);
        // Dropped after `announce` has released the lock.
        drop((batches, current, reader));
        match source {
            EventSource::Disk(backfill) => Some(backfill),
            EventSource::Memory(_) | EventSource::Paused | EventSource::Ended(_) => None,
        }
    }

    /// Removes all streams without delivering ends, since the consumer was dropped.
    pub(crate) fn abandon(&self) {
        let state = std::mem::take(&mut *self.state.lock());
        let current = self.current.lock().take();
        for entry in state.streams.values() {
            let reason = match &entry.source {
                EventSource::Ended(reason) => reason,
                _ => &EndReason::Closed,
            };
            self.counters.closed.of(reason.name()).add(1);
        }
        drop((state, current));
    }

    /// Returns whether a stream waits for this backfill.
    pub(crate) fn is_awaited(&self, id: StreamId, backfill: BackfillId) -> bool {
        let state = self.state.lock();
        let entry = state.streams.get(&id);
        entry.is_some_and(|entry| matches!(entry.source, EventSource::Disk(b) if b == backfill))
    }

    /// Delivers a batch of a backfill, and how the stream continues. Returns false if the stream no
    /// longer waits for that backfill; everything is dropped then.
    pub(crate) fn deliver(
        &self,
        id: StreamId,
        from: BackfillId,
        batch: Option<EventBatch>,
        next: NextSource,
    ) -> bool {
        let mut state = self.state.lock();
        let entry = state.streams.get_mut(&id);
        let is_awaited =
            |entry: &&mut MailboxEntry| matches!(entry.source, EventSource::Disk(b) if b == from);
        let Some(entry) = entry.filter(is_awaited) else {
            drop(state);
            drop((batch, next));
            return false;
        };
        // A batch without events would wake the reader for nothing.
        let (batch, empty) = match batch {
            Some(batch) if batch.is_empty() => (None, Some(batch)),
            batch => (batch, None),
        };
        entry.batches.extend(batch);
        match next {
            NextSource::Disk => {}
            NextSource::Memory(tail) => entry.source = EventSource::Memory(Some(tail)),
            NextSource::End(reason) => entry.source = EventSource::Ended(reason),
        }
        state.queue(id);
        self.announce(state);
        drop(empty);
        true
    }

    /// Drops what is buffered for an idle consumer. The affected streams resume from what was taken
    /// when the reader returns. What cannot be read again is kept: the batches of a stream that has
    /// ended for good. Does nothing if the reader has acted since the watchdog read `acted`.
    pub(crate) fn pause(&self, acted: u64) -> PausedWork {
        let mut dropped = PausedWork::default();
        let mut state = self.state.lock();
        if self.activity.acted() != acted {
            return dropped;
        }
        let current = {
            let mut current = self.current.lock();
            // The batch of an `End` is kept as well: its stream is no longer in the mailbox.
            let is_read_again = |batch: &mut EventBatch| {
                let entry = state.streams.get(&batch.stream.id);
                entry.is_some_and(|entry| entry.source.is_read_again())
            };
            current.take_if(is_read_again)
        };
        let current_stream = current.as_ref().map(|batch| batch.stream.id);
        dropped.batches.extend(current);
        let mut paused = Vec::new();
        for (id, entry) in &mut state.streams {
            let had_batches = !entry.batches.is_empty() || current_stream == Some(*id);
            let is_paused = match &entry.source {
                // A backfill may keep a slice that waits for its sync, and that slice uses buffer
                // space, too.
                EventSource::Disk(backfill) => {
                    dropped.backfills.push(*backfill);
                    true
                }
                // The reader has the tail at the moment, so the consumer is not idle.
                EventSource::Memory(None) => false,
                source => had_batches && source.is_read_again(),
            };
            if !is_paused {
                continue;
            }
            dropped.batches.extend(entry.batches.drain(..));
            let source = std::mem::replace(&mut entry.source, EventSource::Paused);
            if let EventSource::Memory(Some(tail)) = source {
                dropped.tails.push(tail);
            }
            dropped.streams += 1;
            add(&entry.stream.metrics.pauses, 1);
            paused.push(*id);
        }
        if paused.is_empty() {
            drop(state);
            return dropped;
        }
        state.queue_paused(paused, self.order);
        // The reader may have begun to wait since the watchdog found it idle.
        self.announce(state);
        dropped
    }

    /// Records that a stream in memory may have something to read, and wakes the reader.
    pub(crate) fn notify(&self, id: StreamId) {
        let mut state = self.state.lock();
        // The watch may fire after the stream has left memory or the mailbox.
        let Some(entry) = state.streams.get_mut(&id) else {
            return;
        };
        if !matches!(entry.source, EventSource::Memory(_)) || entry.is_in_memory_turn {
            return;
        }
        entry.is_in_memory_turn = true;
        state.memory.push_back(id);
        self.announce(state);
    }
}
