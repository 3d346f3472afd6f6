//! Tickets: writes that have their seqno and wait to become durable.

use super::committer::Committer;
use super::demand::Demand;
use super::wait_condition::WaitCondition;
use crate::change::WriteReceipt;
use crate::durability::Durability;
use crate::error::Result;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A write that has its seqno and waits to become durable. Dropping the ticket does not cancel the
/// write. A ticket is also a `Future`, which works in any async runtime.
///
/// A ticket that fails with [`crate::Error::DiskFull`] has no final outcome: the write stays in
/// memory. Once the disk has space again the same ticket may be waited for again.
#[must_use = "wait for the ticket to learn when the write is durable"]
pub struct Ticket {
    committer: Arc<Committer>,
    demand: Arc<Demand>,
    condition: WaitCondition,
    written: WriteReceipt,
    /// The number under which its waker is registered, if it ever was.
    id: Option<u64>,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("condition", &self.condition)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

impl Ticket {
    /// Returns the ticket of a write. Asks for a flush unless the level is `Memory`, because the
    /// holder of the ticket may never wait for it.
    pub(crate) fn new(
        committer: Arc<Committer>,
        demand: Arc<Demand>,
        condition: WaitCondition,
        written: WriteReceipt,
    ) -> Self {
        let level = match &condition {
            WaitCondition::Durable { level, .. } => *level,
            WaitCondition::Room { .. } => Durability::Memory,
        };
        if level > Durability::Memory {
            demand.flush();
        }
        Self {
            committer,
            demand,
            condition,
            written,
            id: None,
        }
    }

    /// Returns the seqno, CAS and branch of the change. The change may not be durable before
    /// [`Self::wait`] or [`Self::poll`] returns success.
    #[must_use]
    pub fn written(&self) -> WriteReceipt {
        self.written
    }

    /// Blocks until the change is as durable as requested. May flush on this thread, for all
    /// writers.
    ///
    /// # Errors
    /// [`crate::Error::DiskFull`], [`crate::Error::Failed`], [`crate::Error::VbFailed`],
    /// [`crate::Error::Closed`]: the outcome is unknown. [`crate::Error::VbGone`]: the vBucket was
    /// deleted.
    pub fn wait(&self) -> Result<WriteReceipt> {
        self.committer
            .wait(&self.condition, None)
            .map(|()| self.written)
    }

    /// Like [`Self::wait`], for at most `timeout`. If this call leads a flush, it finishes that
    /// flush first, so it can take longer by the time of one flush.
    ///
    /// # Errors
    /// As [`Self::wait`], and [`crate::Error::NotYetDurable`] after the time-out: the change has
    /// been made, and the ticket may be waited for again.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<WriteReceipt> {
        self.committer
            .wait(&self.condition, Some(timeout))
            .map(|()| self.written)
    }

    /// Returns the outcome if there is one. Never blocks.
    #[must_use]
    pub fn poll(&self) -> Option<Result<WriteReceipt>> {
        self.committer
            .poll(&self.condition)
            .map(|outcome| outcome.map(|()| self.written))
    }
}

impl Future for Ticket {
    type Output = Result<WriteReceipt>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        // Polled before the queue is locked: in a forked process another thread may have left it
        // locked.
        if let Some(outcome) = Ticket::poll(this) {
            return Poll::Ready(outcome);
        }
        let id = *this
            .id
            .get_or_insert_with(|| NEXT_ID.fetch_add(1, Ordering::Relaxed));
        if this
            .committer
            .register(id, &this.condition, context.waker())
        {
            this.demand.flush();
            return Poll::Pending;
        }
        Ticket::poll(this).map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Removes the ticket's waker from the queue, because its future no longer exists. Not in a
        // forked process, where the queue may be locked forever.
        if let Some(id) = self.id.filter(|_| !self.committer.is_in_other_process()) {
            self.committer.unregister(id);
        }
    }
}
