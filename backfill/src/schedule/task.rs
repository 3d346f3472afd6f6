//! The trait through which the scheduler uses backfills. A model checker implements it for tasks of
//! its own.

use crate::stream::{BackfillId, ConsumerId};
use std::fmt;
use std::sync::Arc;
use std::task::Waker;
use vbstore_core::{Seqno, Visibility};

/// A unit of scheduling: a backfill, or a model of one.
pub(crate) trait ScheduledTask: fmt::Debug + Send + 'static {
    /// Watches a vBucket for the task. Dropping it removes the watch.
    type Watcher;

    fn id(&self) -> BackfillId;

    fn consumer(&self) -> ConsumerId;

    /// Records that the task waits for a worker or a slot from now on.
    fn set_queued(&mut self);

    /// Returns the task's watcher. On the first call, `make` creates its waker.
    fn watcher(&mut self, make: impl FnOnce() -> Waker) -> Arc<Self::Watcher>;

    /// Requests a call of the waker once changes above `above` are visible. Returns false if they
    /// already are: the task must not wait then.
    fn watch(watcher: &Self::Watcher, visibility: Visibility, above: Seqno) -> bool;
}

/// What a snoozed backfill waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Snooze {
    /// Room in its consumer's buffer, or in the total of all buffers.
    Room,
    /// Changes above a seqno with the given visibility.
    Durable {
        visibility: Visibility,
        above: Seqno,
    },
}

/// The outcome of an invocation.
#[derive(Debug)]
pub(crate) enum InvocationOutcome<T> {
    /// A slice was read, and there is more to read.
    Again(Box<T>),
    /// Nothing was read: the other backfills of its group used up the slice.
    Unread(Box<T>),
    /// The backfill must wait.
    Snooze(Box<T>, Snooze),
    /// The backfill is over: its stream continues from memory, or has ended.
    Done,
}
