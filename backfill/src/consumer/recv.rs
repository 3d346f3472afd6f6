//! Taking events: one by one, or in batches.

use super::Consumer;
use crate::delivery::{Batch, Found, Pulled, Tail};
use crate::stream::{EndReason, Event, Stream, StreamEvent};
use std::sync::Arc;
use std::time::Duration;
use vbstore_core::{Clock, ReadLimit, u64_from};

/// Nothing to take now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryRecv {
    /// There may be later.
    Empty,
    /// No stream is left.
    Ended,
}

/// How long to wait for something.
#[derive(Clone, Copy, Debug)]
enum Patience {
    None,
    Until(Duration),
    Forever,
}

impl Consumer {
    /// Waits for the next event; `None` if no stream is left.
    pub fn recv(&mut self) -> Option<StreamEvent> {
        self.next(Patience::Forever).ok()
    }

    /// Returns the next event if there is one. Never waits.
    ///
    /// # Errors
    /// That there is none now, or never will be.
    pub fn try_recv(&mut self) -> Result<StreamEvent, TryRecv> {
        self.next(Patience::None)
    }

    /// Waits for the next event no longer than `timeout`, in real time.
    ///
    /// # Errors
    /// That none came, or none ever will.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<StreamEvent, TryRecv> {
        self.next(self.until(timeout))
    }

    /// Waits for the next batch: many events of one stream in the form they were read in, the fast
    /// way. After [`Self::recv`] has returned a part of a batch, the rest of it comes first. The
    /// positions count all of a batch as taken.
    ///
    /// # Errors
    /// That none came within `timeout`, in real time, or none ever will.
    pub fn next_batch(&mut self, timeout: Duration) -> Result<Batch, TryRecv> {
        let patience = self.until(timeout);
        let mut batch = loop {
            if let Some(batch) = self.mailbox.take_rest() {
                break batch;
            }
            self.find(patience)?;
        };
        // The buffer is the consumer's own from now on.
        batch.charge = None;
        let events = u64_from(batch.len());
        let position = self.positions.0.entry(batch.vb()).or_default();
        batch.take_into(position);
        batch.stream.reader.take(position.seqno);
        let markers = u64::from(batch.marker().is_some());
        self.mailbox.note_taken(events, events - markers);
        Ok(batch)
    }

    /// Returns its events one by one, until no stream is left. Waits for each.
    pub fn events(&mut self) -> impl Iterator<Item = StreamEvent> + '_ {
        std::iter::from_fn(|| self.recv())
    }

    fn until(&self, timeout: Duration) -> Patience {
        Patience::Until(self.real.monotonic().saturating_add(timeout))
    }

    fn next(&mut self, patience: Patience) -> Result<StreamEvent, TryRecv> {
        loop {
            if let Some(event) = self.take_event() {
                return Ok(event);
            }
            self.find(patience)?;
        }
    }

    /// Takes the next event of the batch that is being taken.
    pub(super) fn take_event(&mut self) -> Option<StreamEvent> {
        let (stream, event) = self.mailbox.take_event()?;
        let Stream { vb, reader, .. } = &*stream;
        let position = self.positions.0.entry(*vb).or_default();
        match &event {
            Event::SnapshotMarker(marker) => position.take_marker(marker),
            Event::SeqnoAdvanced(seqno) => position.take_seqno(*seqno),
            Event::End(_) => {}
            Event::Mutation(item) | Event::Deletion(item) | Event::Expiration(item) => {
                position.take_seqno(item.meta.seqno);
            }
        }
        reader.take(position.seqno);
        Some(StreamEvent { vb: *vb, event })
    }

    /// Finds the next batch, which is being taken then.
    fn find(&self, patience: Patience) -> Result<(), TryRecv> {
        self.note_reader(!matches!(patience, Patience::None));
        let found = self.find_while_noted(patience);
        if !matches!(patience, Patience::None) {
            self.note_reader(false);
        }
        found
    }

    fn find_while_noted(&self, patience: Patience) -> Result<(), TryRecv> {
        loop {
            let found = match patience {
                Patience::None => self.mailbox.find(),
                Patience::Forever => self.mailbox.wait(None),
                Patience::Until(until) => {
                    let left = until.saturating_sub(self.real.monotonic());
                    if left.is_zero() {
                        self.mailbox.find()
                    } else {
                        self.mailbox.wait(Some(left))
                    }
                }
            };
            if matches!(found, Found::Paused(_)) {
                // It was put to sleep after it was noted.
                self.note_reader(!matches!(patience, Patience::None));
            }
            let is_nothing = matches!(found, Found::Nothing);
            if self.follow_up(found)? {
                return Ok(());
            }
            let is_over = match patience {
                Patience::None => true,
                Patience::Until(until) => self.real.monotonic() >= until,
                Patience::Forever => false,
            };
            if is_over && (is_nothing || !self.mailbox.has_something()) {
                return Err(TryRecv::Empty);
            }
        }
    }

    /// Notes that the reader has come, and whether it waits: its streams may ask for buffers.
    pub(super) fn note_reader(&self, waits: bool) {
        self.work().scheduler.buffers().visit(self.id, waits);
    }

    /// Does what was found. Returns whether a batch is being taken now.
    pub(crate) fn follow_up(&self, found: Found) -> Result<bool, TryRecv> {
        match found {
            Found::Batch { ended } => {
                drop(ended);
                Ok(true)
            }
            Found::Nothing => Ok(false),
            Found::Ended => Err(TryRecv::Ended),
            Found::Paused(stream) => {
                self.resume(&stream);
                Ok(false)
            }
            Found::Tail(tail) => Ok(self.read(tail)),
        }
    }

    /// Reads from memory. Returns whether a batch is being taken now.
    fn read(&self, mut tail: Tail) -> bool {
        let work = self.work();
        let counters = &work.context.counters;
        let buffers = work.scheduler.buffers();
        // Asked each time: it may have been changed since.
        let budget = work.context.engine.tuning().slice_budget;
        let limit = ReadLimit {
            items: budget.items_max,
            bytes: u64_from(budget.bytes_max).min(self.buffer_bytes_max),
        };
        match tail.pull(limit, buffers, counters) {
            Pulled::Batch(batch, false) => self.mailbox.put_back(tail, Some(batch)),
            Pulled::Batch(batch, true) => {
                let reason = EndReason::ReachedEnd;
                self.mailbox.finish(tail, Some(batch), reason)
            }
            Pulled::Ended(reason) => {
                self.mailbox.finish(tail, None, reason);
                false
            }
            Pulled::Nothing { above } => {
                let (stream, watcher) = (Arc::clone(&tail.stream), tail.watcher());
                // ORDER: put back first, watched second; see `Mailbox`.
                if self.mailbox.put_back(tail, None)
                    && !watcher.watch(stream.options.visibility, above)
                {
                    self.mailbox.notify(stream.id);
                }
                false
            }
            Pulled::Dropped => {
                tracing::debug!(vb = %tail.stream.vb, "cursor dropped: the stream reads the disk");
                let reading = tail.reading();
                drop(tail);
                self.go_to_disk(reading);
                false
            }
        }
    }
}
