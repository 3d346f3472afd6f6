//! Who pulls: a consumer with any number of streams.

use crate::account::Account;
use crate::batch::Batch;
use crate::event::{EndReason, Event, StreamEvent};
use crate::inbox::{Found, Inbox};
use crate::request::{Opened, Positions, StreamRequest};
use crate::stats::StreamStats;
use crate::stream::{Parts, StreamShared, add, set};
use crate::streams::StreamsHandle;
use crate::tail::{Pulled, Tail};
use crate::task::Backfill;
use std::sync::Arc;
#[cfg(feature = "async")]
use std::task::Waker;
use std::time::Duration;
use vbstore_core::{Clock, Position, ReadLimit, Resume, SystemClock, VbId};
use vbstore_engine::{Admitted, Error, Result};

/// A named consumer: any number of streams, at most one a vBucket, with one place to read, one byte
/// budget and one set of positions. May be moved to another thread; has one reader at a time.
///
/// Dropping it ends all its streams and gives everything back at once: buffers, cursors, places in
/// queues.
#[derive(Debug)]
pub struct Consumer {
    handle: Arc<StreamsHandle>,
    number: u64,
    name: Arc<str>,
    inbox: Arc<Inbox>,
    account: Arc<Account>,
    positions: Positions,
    /// The batch that is being taken, and the next event in it.
    taking: Option<(Batch, usize)>,
    limit: ReadLimit,
    real: SystemClock,
}

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
    pub(crate) fn new(
        handle: Arc<StreamsHandle>,
        number: u64,
        name: &str,
        account: Arc<Account>,
        bytes_max: u64,
    ) -> Self {
        let budget = handle.engine().tuning().slice_budget;
        let slice_bytes = u64::try_from(budget.bytes_max).unwrap_or(u64::MAX);
        Self {
            handle,
            number,
            name: name.into(),
            inbox: Arc::default(),
            account,
            positions: Positions::default(),
            taking: None,
            limit: ReadLimit {
                items: budget.items_max,
                bytes: slice_bytes.min(bytes_max),
            },
            real: SystemClock::new(),
        }
    }

    pub(crate) fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Opens a stream. If memory holds everything above the position, it never reads the disk.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field that no consumer can mean, for an unknown vBucket, and for
    /// one of which a stream is open here, or has ended and not all of its events are taken; [`Error::Busy`] if too many backfills wait;
    /// [`Error::Closed`]. Nothing was changed then.
    pub fn open(&mut self, request: &StreamRequest) -> Result<Opened> {
        let feed = self.handle.engine().feed(request.vb)?;
        if self.inbox.number_of(request.vb).is_some() {
            let detail = format!("a stream of {} is open", request.vb);
            return Err(Error::invalid("vb", detail));
        }
        let is_taking = |(batch, _): &(Batch, usize)| batch.vb() == request.vb;
        if self.taking.as_ref().is_some_and(is_taking) || self.inbox.has_changes_of(request.vb) {
            // They would be mixed up with those of the new one.
            let detail = format!(
                "events of an earlier stream of {} are not taken",
                request.vb
            );
            return Err(Error::invalid("vb", detail));
        }
        // ORDER: before it is admitted, so that every view numbered later was begun after.
        let views_at_open = self.handle.slices().views();
        let admitted = feed.admit(&request.position, request.end)?;
        let (progress, generation, cursor) = match admitted {
            Admitted::Continue {
                progress,
                generation,
                cursor,
            } => (progress, generation, cursor),
            Admitted::Rollback(Resume::Rollback { to, reason }) => {
                self.handle.counters().rollbacks.add(reason);
                tracing::info!(vb = %request.vb, %to, reason = reason.name(), "rollback answered");
                return Ok(Opened::Rollback { to, reason });
            }
            // Not an answer to refuse with.
            Admitted::Rollback(Resume::Continue) => return Err(Error::Closed),
        };
        let stream = StreamShared::new(Parts {
            number: self.handle.next_number(),
            consumer: self.number,
            feed,
            generation,
            options: request.options.clone(),
            views_at_open,
            account: Arc::clone(&self.account),
            inbox: Arc::downgrade(&self.inbox),
            counters: Arc::clone(self.handle.counters()),
        });
        stream.counters.opened.add(1);
        let now = self.handle.clock().monotonic();
        // Before anybody sees it: figures go by them.
        set(&stream.figures.read_seqno, progress.position());
        set(&stream.figures.taken_seqno, progress.position());
        self.inbox.begin(&stream, now);
        if progress.is_at_end() {
            let end = Batch::ended(Arc::clone(&stream), EndReason::ReachedEnd);
            self.inbox.deliver(end, None);
        } else if let Some(cursor) = cursor {
            let nothing = Batch::nothing(Arc::clone(&stream));
            let tail = Tail {
                stream: Arc::clone(&stream),
                progress,
                cursor: Arc::new(cursor),
            };
            self.inbox.deliver(nothing, Some(tail));
        } else {
            let slices = self.handle.slices();
            let clock = self.handle.shared_clock();
            let backfill = Backfill::new(Arc::clone(&stream), progress, slices, clock);
            if self.handle.scheduler().submit(backfill, true).is_err() {
                self.inbox.forget(stream.number, None);
                return Err(Error::Busy {
                    what: "too many backfills wait",
                });
            }
        }
        // Until its first marker is taken the position stays what it came with, on the branch that
        // the stream was opened on.
        let from = request.position;
        let is_untouched = from.seqno == from.snap_start;
        let position = Position {
            vb_uuid: progress.vb_uuid(),
            snap_end: if is_untouched {
                from.seqno
            } else {
                from.snap_end
            },
            purge_seqno: progress.purge_seqno(),
            ..from
        };
        self.positions.0.insert(request.vb, position);
        Ok(Opened::Continue)
    }

    /// Ends the stream of a vBucket: what waits of it is dropped, and its `End {closed}` follows.
    /// Returns whether there was one.
    pub fn close(&mut self, vb: VbId) -> bool {
        let Some(number) = self.inbox.number_of(vb) else {
            return false;
        };
        if let Some((batch, _)) = &self.taking
            && batch.stream.number == number
        {
            self.finish_batch();
        }
        self.inbox.end(number, EndReason::Closed);
        self.handle.scheduler().remove(self.number, number);
        true
    }

    /// Returns where the consumer is in a vBucket, going by what it has taken.
    #[must_use]
    pub fn position(&self, vb: VbId) -> Option<Position> {
        self.positions.0.get(&vb).copied()
    }

    /// Returns where it is in each vBucket of which it ever opened a stream.
    #[must_use]
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// Waits for the next event; `None` if no stream is left.
    pub fn recv(&mut self) -> Option<StreamEvent> {
        self.next(Patience::Forever).ok()
    }

    /// Returns the next event if there is one. Never waits.
    ///
    /// # Errors
    /// That there is none now, or never will be.
    pub fn try_recv(&mut self) -> std::result::Result<StreamEvent, TryRecv> {
        self.next(Patience::None)
    }

    /// Waits for the next event no longer than `timeout`, in real time.
    ///
    /// # Errors
    /// That none came, or none ever will.
    pub fn recv_timeout(&mut self, timeout: Duration) -> std::result::Result<StreamEvent, TryRecv> {
        let until = self.real.monotonic().saturating_add(timeout);
        self.next(Patience::Until(until))
    }

    /// Waits for the next batch: many events of one stream in the form they were read in, the fast
    /// way. What is left of one that [`Self::recv`] began is delivered by that first; then this
    /// returns `Err(Empty)`. The positions count all of it as taken.
    ///
    /// # Errors
    /// That none came within `timeout`, or none ever will.
    pub fn next_batch(&mut self, timeout: Duration) -> std::result::Result<Batch, TryRecv> {
        let until = self.real.monotonic().saturating_add(timeout);
        if self.taking.is_some() {
            return Err(TryRecv::Empty);
        }
        let mut batch = self.find_batch(Patience::Until(until))?;
        // The buffer is the consumer's own from now on.
        batch.charge = None;
        self.inbox.has_taken();
        self.take_batch(&batch);
        Ok(batch)
    }

    /// Returns its events one by one, until no stream is left.
    pub fn events(&mut self) -> impl Iterator<Item = StreamEvent> + '_ {
        std::iter::from_fn(|| self.recv())
    }

    /// Returns how its streams are doing.
    #[must_use]
    pub fn stats(&self) -> Vec<StreamStats> {
        let now = self.handle.clock().monotonic();
        let seen = self.inbox.look(now, false);
        seen.iter()
            .map(|seen| StreamStats::of(&self.name, seen, now))
            .collect()
    }

    /// Returns the bytes it has in its buffer.
    #[must_use]
    pub fn buffered_bytes(&self) -> u64 {
        self.account.used()
    }

    fn next(&mut self, patience: Patience) -> std::result::Result<StreamEvent, TryRecv> {
        loop {
            if let Some(event) = self.next_of_batch() {
                return Ok(event);
            }
            let batch = self.find_batch(patience)?;
            self.taking = Some((batch, 0));
        }
    }

    fn next_of_batch(&mut self) -> Option<StreamEvent> {
        let (batch, at) = self.taking.as_mut()?;
        let Some(event) = batch.event(*at) else {
            self.finish_batch();
            return None;
        };
        *at = at.saturating_add(1);
        let vb = batch.vb();
        let position = self.positions.0.entry(vb).or_default();
        match &event {
            Event::SnapshotMarker(marker) => position.take_marker(marker),
            Event::SeqnoAdvanced(seqno) => position.take_seqno(*seqno),
            Event::End(_) => {}
            Event::Mutation(item) | Event::Deletion(item) | Event::Expiration(item) => {
                position.take_seqno(item.meta.seqno);
            }
        }
        let figures = &batch.stream.figures;
        set(&figures.taken_seqno, position.seqno);
        add(&figures.taken, 1);
        let is_last = *at >= batch.len();
        if is_last {
            self.finish_batch();
        }
        Some(StreamEvent { vb, event })
    }

    /// Counts all of a batch as taken.
    fn take_batch(&mut self, batch: &Batch) {
        let position = self.positions.0.entry(batch.vb()).or_default();
        if let Some(marker) = &batch.marker {
            position.take_marker(marker);
        }
        if let Some(seqno) = batch.changes.last_seqno() {
            position.take_seqno(seqno);
        }
        if let Some(seqno) = batch.advance {
            position.take_seqno(seqno);
        }
        let figures = &batch.stream.figures;
        set(&figures.taken_seqno, position.seqno);
        add(&figures.taken, u64::try_from(batch.len()).unwrap_or(0));
    }

    fn finish_batch(&mut self) {
        if let Some((batch, _)) = self.taking.take() {
            self.inbox.has_taken();
            drop(batch);
        }
    }

    fn find_batch(&self, patience: Patience) -> std::result::Result<Batch, TryRecv> {
        loop {
            let found = match patience {
                Patience::None => self.inbox.find(),
                Patience::Forever => self.inbox.wait(None),
                Patience::Until(until) => {
                    let left = until.saturating_sub(self.real.monotonic());
                    if left.is_zero() {
                        self.inbox.find()
                    } else {
                        self.inbox.wait(Some(left))
                    }
                }
            };
            if let Some(batch) = self.read(found)? {
                return Ok(batch);
            }
            if let Patience::Until(until) = patience
                && self.real.monotonic() >= until
                && !self.inbox.has_something()
            {
                return Err(TryRecv::Empty);
            }
            if matches!(patience, Patience::None) && !self.inbox.has_something() {
                return Err(TryRecv::Empty);
            }
        }
    }

    /// Turns what was found into a batch; `None` if it came to nothing.
    fn read(&self, found: Found) -> std::result::Result<Option<Batch>, TryRecv> {
        let mut tail = match found {
            Found::Batch(batch) => return Ok(Some(batch)),
            Found::Nothing => return Ok(None),
            Found::Ended => return Err(TryRecv::Ended),
            Found::Tail(tail) => tail,
        };
        let stream = Arc::clone(&tail.stream);
        match tail.pull(self.limit) {
            Pulled::Batch(batch) => {
                if let Some(end) = &batch.end {
                    drop(tail);
                    self.inbox.forget(stream.number, Some(end));
                    return Ok(Some(batch));
                }
                Ok(self.inbox.put_back(tail, true).then_some(batch))
            }
            Pulled::Nothing { above } => {
                // ORDER: put back first, watched second; see `inbox`.
                if self.inbox.put_back(tail, false) {
                    let waker = stream.reader_waker();
                    let visibility = stream.options.visibility;
                    let generation = stream.generation;
                    if !stream.feed.watch(generation, visibility, above, waker) {
                        self.inbox.notify(stream.number);
                    }
                }
                Ok(None)
            }
            Pulled::Dropped => {
                self.handle.counters().cursor_drops.add(1);
                tracing::debug!(vb = %stream.vb(), "cursor dropped: the stream reads the disk");
                let slices = self.handle.slices();
                let clock = self.handle.shared_clock();
                let backfill = Backfill::new(stream, tail.progress, slices, clock);
                drop(tail);
                // Refused only if the consumer is gone, or the workers are.
                drop(self.handle.scheduler().submit(backfill, false));
                Ok(None)
            }
        }
    }

    #[cfg(feature = "async")]
    pub(crate) fn poll_event(&mut self, waker: &Waker) -> std::task::Poll<Option<StreamEvent>> {
        use std::task::Poll;
        loop {
            if let Some(event) = self.next_of_batch() {
                return Poll::Ready(Some(event));
            }
            let found = self.inbox.poll(waker);
            if matches!(found, Found::Nothing) {
                return Poll::Pending;
            }
            match self.read(found) {
                Ok(Some(batch)) => self.taking = Some((batch, 0)),
                Ok(None) => {}
                Err(_) => return Poll::Ready(None),
            }
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.taking = None;
        self.inbox.abandon();
        self.handle.scheduler().remove_consumer(self.number);
        self.handle.forget_consumer(self.number);
    }
}

#[cfg(feature = "async")]
impl futures_core::Stream for Consumer {
    type Item = StreamEvent;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.get_mut().poll_event(context.waker())
    }
}
