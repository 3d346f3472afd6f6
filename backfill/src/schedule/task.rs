//! What is scheduled: a backfill, as far as the scheduler knows it. A model checker schedules others.

use crate::stream::{BackfillId, ConsumerId};
use std::fmt;
use std::sync::Arc;
use std::task::Waker;
use vbstore_core::{Seqno, Visibility};

/// What the scheduler asks of a backfill.
pub(crate) trait Task: fmt::Debug + Send + 'static {
    /// Watches a vBucket for it. Takes its watch away when it is dropped.
    type Watcher;

    fn id(&self) -> BackfillId;

    fn consumer(&self) -> ConsumerId;

    /// Notes that it waits for a worker, or for a place, from now on.
    fn set_queued(&mut self);

    /// Returns what watches for the durability it waits for. `make` makes its waker the first time.
    fn watcher(&mut self, make: impl FnOnce() -> Waker) -> Arc<Self::Watcher>;

    /// Has the waker called once changes above `above` are visible. Returns false if they are now.
    fn watch(watcher: &Self::Watcher, visibility: Visibility, above: Seqno) -> bool;
}

/// What a backfill waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Snooze {
    /// Room in its consumer's buffer, or in the total.
    Room,
    /// That changes above this are as durable as that.
    Durable {
        visibility: Visibility,
        above: Seqno,
    },
}

/// What an invocation came to.
#[derive(Debug)]
pub(crate) enum Outcome<T> {
    /// It has more to do.
    Again(Box<T>),
    /// Its turn to be read did not come.
    Unread(Box<T>),
    /// It must wait.
    Snooze(Box<T>, Snooze),
    /// It is over: the stream goes on from memory, or has ended.
    Done,
}
