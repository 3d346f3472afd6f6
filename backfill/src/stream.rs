//! What the parts of one stream share: its task, its place in the inbox, and its figures.

use crate::account::Account;
use crate::inbox::{Inbox, NewsWaker};
use crate::request::StreamOptions;
use crate::stats::StreamCounters;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Waker;
use vbstore_core::{Seqno, VbId};
use vbstore_engine::Feed;

/// What a stream is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StreamState {
    /// Its backfill waits for others to end; it holds nothing.
    Pending,
    /// Its backfill waits for a worker.
    Ready,
    /// A worker reads a slice for it.
    Running,
    /// Its backfill waits for room in the buffer, for a sync or for a boundary.
    Snoozed,
    /// It reads from memory, when its consumer does.
    InMemory,
    /// It has ended; what it delivered may not be taken yet.
    Ended,
}

impl StreamState {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Ready,
        Self::Running,
        Self::Snoozed,
        Self::InMemory,
        Self::Ended,
    ];

    /// Returns the name used in output and as a label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Snoozed => "snoozed",
            Self::InMemory => "in_memory",
            Self::Ended => "ended",
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Pending => 0,
            Self::Ready => 1,
            Self::Running => 2,
            Self::Snoozed => 3,
            Self::InMemory => 4,
            Self::Ended => 5,
        }
    }

    fn from_code(code: u8) -> Self {
        *Self::ALL.get(usize::from(code)).unwrap_or(&Self::Ended)
    }
}

/// One stream. Its numbers are written by one thread at a time and read by anybody.
#[derive(Debug)]
pub(crate) struct StreamShared {
    /// Unique among all streams of the engine.
    pub(crate) number: u64,
    pub(crate) consumer: u64,
    pub(crate) feed: Feed,
    /// Which life of the vBucket it is of.
    pub(crate) generation: u64,
    pub(crate) options: StreamOptions,
    /// How many views of the disk had been begun when it was opened.
    pub(crate) views_at_open: u64,
    pub(crate) account: Arc<Account>,
    pub(crate) inbox: Weak<Inbox>,
    pub(crate) counters: Arc<StreamCounters>,
    is_closed: AtomicBool,
    state: AtomicU8,
    pub(crate) figures: Figures,
    /// Wakes its reader, or its backfill: made once, so that a watch is known again.
    reader_waker: Waker,
    backfill_waker: OnceLock<Waker>,
}

/// What one stream counts.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Last seqno its consumer has taken.
    pub(crate) taken_seqno: AtomicU64,
    /// Events its consumer has taken.
    pub(crate) taken: AtomicU64,
    /// Up to where it has read.
    pub(crate) read_seqno: AtomicU64,
    /// The end it has announced.
    pub(crate) announced_seqno: AtomicU64,
    pub(crate) slices: AtomicU64,
    pub(crate) shared_slices: AtomicU64,
    pub(crate) items_from_disk: AtomicU64,
    pub(crate) items_from_memory: AtomicU64,
    pub(crate) cursor_drops: AtomicU64,
    pub(crate) is_diverging: AtomicBool,
    pub(crate) is_stalled: AtomicBool,
}

/// What a stream is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) number: u64,
    pub(crate) consumer: u64,
    pub(crate) feed: Feed,
    pub(crate) generation: u64,
    pub(crate) options: StreamOptions,
    pub(crate) views_at_open: u64,
    pub(crate) account: Arc<Account>,
    pub(crate) inbox: Weak<Inbox>,
    pub(crate) counters: Arc<StreamCounters>,
}

impl StreamShared {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let inbox = parts.inbox;
        Arc::new(Self {
            number: parts.number,
            consumer: parts.consumer,
            feed: parts.feed,
            generation: parts.generation,
            options: parts.options,
            views_at_open: parts.views_at_open,
            account: parts.account,
            reader_waker: Waker::from(Arc::new(NewsWaker {
                inbox: Weak::clone(&inbox),
                number: parts.number,
            })),
            backfill_waker: OnceLock::new(),
            inbox,
            counters: parts.counters,
            is_closed: AtomicBool::new(false),
            state: AtomicU8::new(StreamState::Pending.code()),
            figures: Figures::default(),
        })
    }

    /// Returns what wakes its reader.
    pub(crate) fn reader_waker(&self) -> &Waker {
        &self.reader_waker
    }

    /// Returns what wakes its backfill; `make` makes it the first time.
    pub(crate) fn backfill_waker(&self, make: impl FnOnce() -> Waker) -> &Waker {
        self.backfill_waker.get_or_init(make)
    }

    pub(crate) fn vb(&self) -> VbId {
        self.feed.vb()
    }

    pub(crate) fn state(&self) -> StreamState {
        StreamState::from_code(self.state.load(Ordering::Acquire))
    }

    pub(crate) fn set_state(&self, state: StreamState) {
        self.state.store(state.code(), Ordering::Release);
    }

    /// Nothing it reads from now on is wanted.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.set_state(StreamState::Ended);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }
}

impl Drop for StreamShared {
    /// A watch that waits would stay until the next change of the vBucket, and there may be none.
    fn drop(&mut self) {
        self.feed.unwatch(&self.reader_waker);
        if let Some(waker) = self.backfill_waker.get() {
            self.feed.unwatch(waker);
        }
    }
}

/// Adds to a number that one thread at a time writes.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).saturating_add(n),
        Ordering::Relaxed,
    );
}

pub(crate) fn set(counter: &AtomicU64, seqno: Seqno) {
    counter.store(seqno.get(), Ordering::Relaxed);
}
