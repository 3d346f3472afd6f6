//! A write under way.

use super::committer::Committer;
use super::demand::Demand;
use super::want::Want;
use crate::change::Written;
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

/// A write that has its seqno and waits for its durability. Dropping it changes nothing: the write
/// goes on. It is also a `Future` and needs no runtime.
///
/// The outcome of a ticket that fails with [`crate::Error::DiskFull`] is open: the write stays in
/// memory, and once the disk has space again the same ticket may be waited for again.
#[must_use = "a ticket says when the write is as durable as asked"]
pub struct Ticket {
    committer: Arc<Committer>,
    demand: Arc<Demand>,
    want: Want,
    written: Written,
    /// Under which its waker is registered, if one ever was.
    id: Option<u64>,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("want", &self.want)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

impl Ticket {
    /// Returns the ticket of a write. Asks for a flush, unless memory is all that was asked for: nobody
    /// may be waiting.
    pub(crate) fn new(
        committer: Arc<Committer>,
        demand: Arc<Demand>,
        want: Want,
        written: Written,
    ) -> Self {
        let level = match &want {
            Want::Durable { level, .. } => *level,
            Want::Room { .. } => Durability::Memory,
        };
        if level > Durability::Memory {
            demand.flush();
        }
        Self {
            committer,
            demand,
            want,
            written,
            id: None,
        }
    }

    /// Returns where the change went. It is not as durable as asked for before [`Self::wait`] or
    /// [`Self::poll`] says so.
    #[must_use]
    pub fn written(&self) -> Written {
        self.written
    }

    /// Waits until the change is as durable as was asked. May flush on behalf of everybody.
    ///
    /// # Errors
    /// [`crate::Error::DiskFull`], [`crate::Error::Failed`], [`crate::Error::VbFailed`],
    /// [`crate::Error::Closed`]: the outcome is unknown. [`crate::Error::VbGone`]: the vBucket was deleted.
    pub fn wait(&self) -> Result<Written> {
        self.committer.wait(&self.want, None).map(|()| self.written)
    }

    /// Waits no longer than `timeout`. A flush this call leads itself is finished first, so it can
    /// take longer by the time of one flush.
    ///
    /// # Errors
    /// As [`Self::wait`], and [`crate::Error::NotYetDurable`] when the time is over: the change is made,
    /// and the ticket may be waited for again.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Written> {
        self.committer
            .wait(&self.want, Some(timeout))
            .map(|()| self.written)
    }

    /// Returns the outcome if there is one. Never blocks.
    #[must_use]
    pub fn poll(&self) -> Option<Result<Written>> {
        self.committer
            .poll(&self.want)
            .map(|outcome| outcome.map(|()| self.written))
    }
}

impl Future for Ticket {
    type Output = Result<Written>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        // Before the queue's lock: in a process that was forked, another thread may have left it locked.
        if let Some(outcome) = Ticket::poll(this) {
            return Poll::Ready(outcome);
        }
        let id = *this
            .id
            .get_or_insert_with(|| NEXT_ID.fetch_add(1, Ordering::Relaxed));
        if this.committer.register(id, &this.want, context.waker()) {
            this.demand.flush();
            return Poll::Pending;
        }
        Ticket::poll(this).map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // A waker that is still in the queue belongs to nobody any more.
        if let Some(id) = self.id.filter(|_| !self.committer.is_in_other_process()) {
            self.committer.unregister(id);
        }
    }
}
