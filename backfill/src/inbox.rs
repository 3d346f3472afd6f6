//! Where the streams of a consumer meet its reader.
//!
//! # Protocol
//! Workers push batches, in the order of each stream. A stream that has joined memory leaves its
//! [`Tail`] here; the reader takes it out, reads with it, and puts it back, so it has one user at a
//! time. A stream in memory is read only when none of its batches waits: its changes come after
//! them.
//!
//! A wake-up of a stream in memory puts its number into `news`. The tail is put back *before* its
//! watch is registered, and a watch that is fulfilled already counts as fired: so the number is
//! there whenever there may be something to read.
//!
//! The inbox's lock is a leaf: nothing is called, woken or dropped that takes another lock while it
//! is held. What is taken out is dropped after it is free.

use crate::batch::Batch;
use crate::event::EndReason;
use crate::stream::{StreamShared, StreamState};
use crate::tail::Tail;
use parking_lot::{Condvar, Mutex};
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};
use std::time::Duration;
use vbstore_core::VbId;
use vbstore_engine::CursorGuard;

/// What the reader finds.
#[derive(Debug)]
pub(crate) enum Found {
    /// A batch to deliver.
    Batch(Batch),
    /// A stream to read from memory.
    Tail(Tail),
    /// Nothing now.
    Nothing,
    /// No stream is left, and nothing of one.
    Ended,
}

#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct State {
    batches: VecDeque<Batch>,
    news: VecDeque<u64>,
    streams: HashMap<u64, Entry>,
    /// The stream whose batch the reader is taking.
    taking: Option<u64>,
    /// Whether the last thing the reader found was from memory: they take turns.
    was_news: bool,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Entry {
    stream: Arc<StreamShared>,
    /// Its batches that wait.
    queued: usize,
    tail: Option<Tail>,
    has_news: bool,
    /// For the watchdog: events taken when it looked last, and when they were other ones.
    seen: (u64, Duration),
}

/// A stream as the watchdog and the figures see it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) stream: Arc<StreamShared>,
    /// Since when its consumer has taken nothing though there was something; `None` if there is
    /// nothing to take.
    pub(crate) idle_since: Option<Duration>,
    /// Its place in memory. Asking it for its lag takes the vBucket's lock.
    pub(crate) cursor: Option<Arc<CursorGuard>>,
}

impl Inbox {
    /// A stream begins. Returns false if one of its vBucket is open.
    pub(crate) fn begin(&self, stream: &Arc<StreamShared>, now: Duration) -> bool {
        let mut state = self.state.lock();
        if state.of_vb(stream.vb()).is_some() {
            return false;
        }
        state.streams.insert(
            stream.number,
            Entry {
                stream: Arc::clone(stream),
                queued: 0,
                tail: None,
                has_news: false,
                seen: (0, now),
            },
        );
        true
    }

    /// Delivers a batch, and the tail if the stream goes on from memory. Both are dropped if the
    /// stream is gone.
    pub(crate) fn deliver(&self, batch: Batch, tail: Option<Tail>) {
        let number = batch.stream.number;
        let mut state = self.state.lock();
        let State {
            streams,
            batches,
            news,
            ..
        } = &mut *state;
        let Some(entry) = streams.get_mut(&number) else {
            drop(state);
            return;
        };
        let is_over = batch.end.is_some();
        if let Some(reason) = &batch.end {
            entry.stream.counters.closed.of(reason).add(1);
        }
        if !batch.is_empty() {
            entry.queued = entry.queued.saturating_add(1);
            batches.push_back(batch);
        }
        if let Some(tail) = tail {
            entry.stream.set_state(StreamState::InMemory);
            entry.tail = Some(tail);
            entry.has_news = true;
            news.push_back(number);
        }
        let ended = if is_over {
            entry.stream.set_state(StreamState::Ended);
            streams.remove(&number)
        } else {
            None
        };
        let waker = state.waker.take();
        drop(state);
        drop(ended);
        self.arrived.notify_all();
        call(waker);
    }

    /// Ends a stream from outside: what waits of it is dropped, its end delivered.
    pub(crate) fn end(&self, number: u64, reason: EndReason) {
        let mut state = self.state.lock();
        let Some(entry) = state.streams.remove(&number) else {
            return;
        };
        let (dropped, kept) = std::mem::take(&mut state.batches)
            .into_iter()
            .partition::<Vec<_>, _>(|batch| batch.stream.number == number);
        state.batches = kept.into();
        entry.stream.close();
        entry.stream.counters.closed.of(&reason).add(1);
        let end = Batch::ended(Arc::clone(&entry.stream), reason);
        state.batches.push_back(end);
        let waker = state.waker.take();
        drop(state);
        drop((entry, dropped));
        self.arrived.notify_all();
        call(waker);
    }

    /// Forgets a stream that was refused before it did anything, or whose reader has its end.
    pub(crate) fn forget(&self, number: u64, end: Option<&EndReason>) {
        let entry = self.state.lock().streams.remove(&number);
        if let Some(entry) = entry {
            entry.stream.close();
            let closed = &entry.stream.counters.closed;
            end.map_or(&closed.refused, |end| closed.of(end)).add(1);
        }
    }

    /// Ends all streams without a word: the consumer is gone.
    pub(crate) fn abandon(&self) {
        let state = std::mem::take(&mut *self.state.lock());
        for entry in state.streams.values() {
            entry.stream.close();
            let closed = &entry.stream.counters.closed;
            closed.of(&EndReason::Closed).add(1);
        }
    }

    /// Returns the number of a vBucket's stream.
    pub(crate) fn number_of(&self, vb: VbId) -> Option<u64> {
        self.state.lock().of_vb(vb)
    }

    /// Returns whether changes of a vBucket wait, of a stream that has ended.
    pub(crate) fn has_changes_of(&self, vb: VbId) -> bool {
        let state = self.state.lock();
        let of_vb = |batch: &Batch| batch.vb() == vb && (batch.len() > 1 || batch.end.is_none());
        state.batches.iter().any(of_vb)
    }

    /// Returns what the reader is to do next.
    pub(crate) fn find(&self) -> Found {
        self.state.lock().find()
    }

    /// The same, after waiting for it up to `timeout`, or for as long as it takes.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> Found {
        let mut state = self.state.lock();
        loop {
            match state.find() {
                Found::Nothing => {}
                found => return found,
            }
            match timeout {
                None => self.arrived.wait(&mut state),
                Some(timeout) => {
                    // One wait: the caller knows how much time is left.
                    self.arrived.wait_for(&mut state, timeout);
                    return state.find();
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
        let found = state.find();
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
        !state.batches.is_empty() || !state.news.is_empty() || state.streams.is_empty()
    }

    /// The reader has taken all of a batch.
    pub(crate) fn has_taken(&self) {
        self.state.lock().taking = None;
    }

    /// Puts a tail back. With `has_more` it is read again in its turn; without, its watch brings it
    /// back. Returns false if the stream was ended meanwhile; the tail is dropped then.
    pub(crate) fn put_back(&self, tail: Tail, has_more: bool) -> bool {
        let number = tail.stream.number;
        let mut state = self.state.lock();
        let State { streams, news, .. } = &mut *state;
        let Some(entry) = streams.get_mut(&number) else {
            drop(state);
            drop(tail);
            return false;
        };
        entry.tail = Some(tail);
        if has_more && !entry.has_news {
            entry.has_news = true;
            news.push_back(number);
        }
        if !has_more {
            // There was nothing to take.
            state.taking = None;
        }
        true
    }

    /// A stream in memory may have something to read.
    pub(crate) fn notify(&self, number: u64) {
        let mut state = self.state.lock();
        let State { streams, news, .. } = &mut *state;
        let Some(entry) = streams.get_mut(&number) else {
            return;
        };
        if entry.has_news {
            return;
        }
        entry.has_news = true;
        news.push_back(number);
        let waker = state.waker.take();
        drop(state);
        self.arrived.notify_all();
        call(waker);
    }

    /// Looks at all streams, for figures; with `watchdog` also notes who has taken something since.
    pub(crate) fn look(&self, now: Duration, watchdog: bool) -> Vec<Seen> {
        let mut state = self.state.lock();
        let taking = state.taking;
        let mut seen = Vec::with_capacity(state.streams.len());
        for (number, entry) in &mut state.streams {
            let taken = entry
                .stream
                .figures
                .taken
                .load(std::sync::atomic::Ordering::Relaxed);
            let owes = entry.queued > 0 || entry.has_news || taking == Some(*number);
            if watchdog && (taken != entry.seen.0 || !owes) {
                entry.seen = (taken, now);
            }
            seen.push(Seen {
                stream: Arc::clone(&entry.stream),
                idle_since: owes.then_some(entry.seen.1),
                cursor: entry.tail.as_ref().map(|tail| Arc::clone(&tail.cursor)),
            });
        }
        seen
    }
}

impl State {
    fn of_vb(&self, vb: VbId) -> Option<u64> {
        let of_vb = |entry: &&Entry| entry.stream.vb() == vb;
        self.streams.values().find(of_vb).map(|e| e.stream.number)
    }

    fn find(&mut self) -> Found {
        self.taking = None;
        if !self.was_news
            && let Some(tail) = self.next_tail()
        {
            self.was_news = true;
            return Found::Tail(tail);
        }
        self.was_news = false;
        if let Some(batch) = self.next_batch() {
            return Found::Batch(batch);
        }
        if let Some(tail) = self.next_tail() {
            return Found::Tail(tail);
        }
        if self.streams.is_empty() {
            Found::Ended
        } else {
            Found::Nothing
        }
    }

    fn next_batch(&mut self) -> Option<Batch> {
        let batch = self.batches.pop_front()?;
        let number = batch.stream.number;
        self.taking = Some(number);
        if let Some(entry) = self.streams.get_mut(&number) {
            entry.queued = entry.queued.saturating_sub(1);
            // Its tail had to wait for this one.
            if entry.queued == 0 && entry.tail.is_some() && !entry.has_news {
                entry.has_news = true;
                self.news.push_back(number);
            }
        }
        Some(batch)
    }

    fn next_tail(&mut self) -> Option<Tail> {
        while let Some(number) = self.news.pop_front() {
            let Some(entry) = self.streams.get_mut(&number) else {
                continue;
            };
            entry.has_news = false;
            if entry.queued > 0 {
                continue;
            }
            if let Some(tail) = entry.tail.take() {
                self.taking = Some(number);
                return Some(tail);
            }
        }
        None
    }
}

/// Calls a program's waker; a panic in it must not reach the worker or the leader that calls.
fn call(waker: Option<Waker>) {
    if let Some(waker) = waker
        && catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err()
    {
        tracing::error!("the waker of a consumer panicked");
    }
}

/// Wakes the reader of a stream that waits in memory.
#[derive(Debug)]
pub(crate) struct NewsWaker {
    pub(crate) inbox: Weak<Inbox>,
    pub(crate) number: u64,
}

impl Wake for NewsWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(inbox) = self.inbox.upgrade() {
            inbox.notify(self.number);
        }
    }
}
