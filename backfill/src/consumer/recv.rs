//! Taking events, one by one or in batches.

use super::Consumer;
use crate::delivery::{EventBatch, PullOutcome, ReaderFinding, Tail};
use crate::stream::{EndReason, Event, Stream, StreamEvent};
use std::sync::Arc;
use std::time::Duration;
use vbstore_core::{Clock, ReadLimit, u64_from};

/// Why no event or batch was returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryRecv {
    /// None is available now; there may be one later.
    Empty,
    /// The consumer has no stream any more, so there will be none.
    Ended,
}

/// How long a call waits for an event.
#[derive(Clone, Copy, Debug)]
enum WaitLimit {
    None,
    Until(Duration),
    Forever,
}

impl Consumer {
    /// Blocks until the next event, and returns it. Returns `None` once no stream is left.
    pub fn recv(&mut self) -> Option<StreamEvent> {
        self.next(WaitLimit::Forever).ok()
    }

    /// Returns the next event if one is available. Does not wait.
    ///
    /// # Errors
    /// [`TryRecv::Empty`] if none is available, [`TryRecv::Ended`] if no stream is left.
    pub fn try_recv(&mut self) -> Result<StreamEvent, TryRecv> {
        self.next(WaitLimit::None)
    }

    /// Blocks until the next event, for at most `timeout` of real time.
    ///
    /// # Errors
    /// [`TryRecv::Empty`] if none became available in time, [`TryRecv::Ended`] if no stream is
    /// left.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<StreamEvent, TryRecv> {
        self.next(self.until(timeout))
    }

    /// Blocks until the next batch, for at most `timeout` of real time. A batch holds many events
    /// of one stream in the form in which they were read, and is the fastest way to take them.
    ///
    /// After [`Self::recv`] has returned a part of a batch, this returns the rest of that batch.
    /// The positions count the whole batch as taken.
    ///
    /// # Errors
    /// [`TryRecv::Empty`] if no batch became available in time, [`TryRecv::Ended`] if no stream is
    /// left.
    pub fn next_batch(&mut self, timeout: Duration) -> Result<EventBatch, TryRecv> {
        let patience = self.until(timeout);
        let mut batch = loop {
            if let Some(batch) = self.mailbox.take_rest() {
                break batch;
            }
            self.find(patience)?;
        };
        // Releases the charge: from here on the memory of the batch is the program's, not the
        // buffer's.
        batch.charge = None;
        let events = u64_from(batch.len());
        let position = self.positions.0.entry(batch.vb()).or_default();
        batch.take_into(position);
        batch.stream.reader.take(position.seqno);
        // Markers do not move a position, so the watchdog must not count them as progress.
        let markers = u64::from(batch.marker().is_some());
        self.mailbox.record_taken(events, events - markers);
        Ok(batch)
    }

    /// Returns an iterator over all events until no stream is left. It blocks for each event.
    pub fn events(&mut self) -> impl Iterator<Item = StreamEvent> + '_ {
        std::iter::from_fn(|| self.recv())
    }

    fn until(&self, timeout: Duration) -> WaitLimit {
        WaitLimit::Until(self.real.monotonic().saturating_add(timeout))
    }

    fn next(&mut self, patience: WaitLimit) -> Result<StreamEvent, TryRecv> {
        loop {
            if let Some(event) = self.take_event() {
                return Ok(event);
            }
            self.find(patience)?;
        }
    }

    /// Takes the next event of the current batch, and moves the position.
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

    /// Makes the next available batch the current one, waiting as `patience` allows.
    fn find(&self, patience: WaitLimit) -> Result<(), TryRecv> {
        self.record_visit(!matches!(patience, WaitLimit::None));
        let found = self.find_registered(patience);
        if !matches!(patience, WaitLimit::None) {
            self.record_visit(false);
        }
        found
    }

    fn find_registered(&self, patience: WaitLimit) -> Result<(), TryRecv> {
        loop {
            let found = match patience {
                WaitLimit::None => self.mailbox.find(),
                WaitLimit::Forever => self.mailbox.wait(None),
                WaitLimit::Until(until) => {
                    let left = until.saturating_sub(self.real.monotonic());
                    if left.is_zero() {
                        self.mailbox.find()
                    } else {
                        self.mailbox.wait(Some(left))
                    }
                }
            };
            if matches!(found, ReaderFinding::Paused(_)) {
                // The watchdog has put the consumer to sleep since the visit was recorded; record
                // it again.
                self.record_visit(!matches!(patience, WaitLimit::None));
            }
            let is_nothing = matches!(found, ReaderFinding::Nothing);
            if self.follow_up(found)? {
                return Ok(());
            }
            let is_over = match patience {
                WaitLimit::None => true,
                WaitLimit::Until(until) => self.real.monotonic() >= until,
                WaitLimit::Forever => false,
            };
            // A step without a batch, such as resuming a paused stream, may have made one
            // available. So an expired call gives up only if there is nothing left to do.
            if is_over && (is_nothing || !self.mailbox.has_something()) {
                return Err(TryRecv::Empty);
            }
        }
    }

    /// Records that the reader is active, and whether it waits. While it does, its streams may
    /// claim buffer space that other consumers hold.
    pub(super) fn record_visit(&self, waits: bool) {
        self.work().scheduler.buffers().visit(self.id, waits);
    }

    /// Acts on what the mailbox returned. Returns whether there is a current batch now.
    pub(crate) fn follow_up(&self, found: ReaderFinding) -> Result<bool, TryRecv> {
        match found {
            ReaderFinding::Batch { ended } => {
                drop(ended);
                Ok(true)
            }
            ReaderFinding::Nothing => Ok(false),
            ReaderFinding::Ended => Err(TryRecv::Ended),
            ReaderFinding::Paused(stream) => {
                self.resume(&stream);
                Ok(false)
            }
            ReaderFinding::Tail(tail) => Ok(self.read(tail)),
        }
    }

    /// Reads from memory with the consumer's own thread. Returns whether there is a current batch
    /// now.
    fn read(&self, mut tail: Tail) -> bool {
        let work = self.work();
        let counters = &work.context.counters;
        let buffers = work.scheduler.buffers();
        // Read for each batch, since the tuning can change at run time.
        let budget = work.context.engine.tuning().slice_budget;
        let limit = ReadLimit {
            items: budget.items_max,
            bytes: u64_from(budget.bytes_max).min(self.buffer_bytes_max),
        };
        match tail.pull(limit, buffers, counters) {
            PullOutcome::Batch(batch, false) => self.mailbox.put_back(tail, Some(batch)),
            PullOutcome::Batch(batch, true) => {
                let reason = EndReason::ReachedEnd;
                self.mailbox.finish(tail, Some(batch), reason)
            }
            PullOutcome::Ended(reason) => {
                self.mailbox.finish(tail, None, reason);
                false
            }
            PullOutcome::Nothing { above } => {
                let (stream, watcher) = (Arc::clone(&tail.stream), tail.watcher());
                // ORDER: put back first, watch second; see `Mailbox`. The waker finds the tail
                // there.
                if self.mailbox.put_back(tail, None)
                    && !watcher.watch(stream.options.visibility, above)
                {
                    self.mailbox.notify(stream.id);
                }
                false
            }
            PullOutcome::Dropped => {
                tracing::debug!(vb = %tail.stream.vb, "cursor dropped: continuing from disk");
                let reading = tail.reading();
                drop(tail);
                self.go_to_disk(reading);
                false
            }
        }
    }
}
