//! How streams begin, what workers bring, and how streams pause and end.

use super::state::{Entry, Mailbox, Source, State};
use crate::delivery::batch::Batch;
use crate::delivery::tail::Tail;
use crate::stream::{BackfillId, EndReason, Stream, StreamId, add};
use parking_lot::MutexGuard;
use std::collections::VecDeque;
use std::sync::Arc;
use vbstore_core::VbId;
use vbstore_engine::ReaderGuard;

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

impl Mailbox {
    /// Returns the stream of a vBucket, and whether it has ended.
    pub(crate) fn of_vb(&self, vb: VbId) -> Option<(StreamId, bool)> {
        let state = self.state.lock();
        let id = *state.by_vb.get(&vb)?;
        let has_ended = matches!(state.entry(id).source, Source::Ended(_));
        Some((id, has_ended))
    }

    /// Adds a stream. Panics if one of its vBucket is there: its consumer, which alone adds, has
    /// looked.
    pub(crate) fn begin_on_disk(
        &self,
        stream: &Arc<Stream>,
        reader: ReaderGuard,
        backfill: BackfillId,
    ) {
        self.begin(stream, reader, Source::Disk(backfill));
    }

    /// Adds a stream that memory serves from its start.
    pub(crate) fn begin_in_memory(&self, tail: Tail, reader: ReaderGuard) {
        let stream = Arc::clone(&tail.stream);
        self.begin(&stream, reader, Source::Memory(Some(tail)));
    }

    /// Adds a stream that has nothing to deliver but its end.
    pub(crate) fn begin_ended(&self, stream: &Arc<Stream>, reader: ReaderGuard, reason: EndReason) {
        self.begin(stream, reader, Source::Ended(reason));
    }

    fn begin(&self, stream: &Arc<Stream>, reader: ReaderGuard, source: Source) {
        let mut state = self.state.lock();
        let before = state.by_vb.insert(stream.vb, stream.id);
        assert!(before.is_none(), "two streams of {}", stream.vb);
        let entry = Entry {
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

    /// Removes a stream that was refused before it did anything.
    pub(crate) fn refuse(&self, id: StreamId) {
        let removed = self.state.lock().remove(id);
        self.counters.closed.refused.add(1);
        drop(removed);
    }

    /// Ends a stream from outside: what waits of it is dropped, its end delivered, and it is no reader
    /// of its vBucket any more, whenever the end is taken. Returns its backfill, if it has one. Does
    /// nothing to a stream that has ended.
    pub(crate) fn end(&self, id: StreamId, reason: EndReason) -> Option<BackfillId> {
        self.end_in(self.state.lock(), id, reason)
    }

    /// The same for a stream of a consumer that is stalled. Does nothing if its reader has acted since
    /// `acted` was read, by which it was judged.
    pub(crate) fn end_stalled(&self, id: StreamId, acted: u64) -> Option<BackfillId> {
        let state = self.state.lock();
        if self.taker.acted() != acted {
            return None;
        }
        self.end_in(state, id, EndReason::Stalled)
    }

    fn end_in(
        &self,
        mut state: MutexGuard<'_, State>,
        id: StreamId,
        reason: EndReason,
    ) -> Option<BackfillId> {
        let entry = state.streams.get_mut(&id)?;
        if matches!(entry.source, Source::Ended(_)) {
            return None;
        }
        let batches = std::mem::take(&mut entry.batches);
        let source = std::mem::replace(&mut entry.source, Source::Ended(reason));
        let reader = entry.reader.take();
        let taking = self.take_current_of(id);
        state.queue(id);
        self.announce(state);
        drop((batches, taking, reader));
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

    /// Returns whether a stream waits for a backfill.
    pub(crate) fn is_awaited(&self, id: StreamId, backfill: BackfillId) -> bool {
        let state = self.state.lock();
        let entry = state.streams.get(&id);
        entry.is_some_and(|entry| matches!(entry.source, Source::Disk(b) if b == backfill))
    }

    /// Delivers what a backfill has read, and how the stream goes on. All of it is dropped if the
    /// stream does not wait for that backfill any more; then this returns false.
    pub(crate) fn deliver(
        &self,
        id: StreamId,
        from: BackfillId,
        batch: Option<Batch>,
        next: Next,
    ) -> bool {
        let mut state = self.state.lock();
        let entry = state.streams.get_mut(&id);
        let is_awaited = |entry: &&mut Entry| matches!(entry.source, Source::Disk(b) if b == from);
        let Some(entry) = entry.filter(is_awaited) else {
            drop(state);
            drop((batch, next));
            return false;
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
        true
    }

    /// Drops what is buffered for the consumer, which takes nothing. Its streams that had something
    /// read on, from what was taken, when its reader comes back. What cannot be read again is kept: the
    /// batches of a stream that has ended for good. Does nothing if the reader has acted since `acted`
    /// was read, by which it was judged.
    pub(crate) fn pause(&self, acted: u64) -> Dropped {
        let mut dropped = Dropped::default();
        let mut state = self.state.lock();
        if self.taker.acted() != acted {
            return dropped;
        }
        let taking = {
            let mut taking = self.taking.lock();
            // Nor the last batch of a stream, which is only its end.
            let is_read_again = |batch: &mut Batch| {
                let entry = state.streams.get(&batch.stream.id);
                entry.is_some_and(|entry| entry.source.is_read_again())
            };
            taking.take_if(is_read_again)
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
                // The reader has the tail just now, so it takes.
                Source::Memory(None) => false,
                source => had_batches && source.is_read_again(),
            };
            if !is_paused {
                continue;
            }
            dropped.batches.extend(entry.batches.drain(..));
            let source = std::mem::replace(&mut entry.source, Source::Paused);
            if let Source::Memory(Some(tail)) = source {
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
        // Its reader may have begun to wait meanwhile.
        self.announce(state);
        dropped
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
}
