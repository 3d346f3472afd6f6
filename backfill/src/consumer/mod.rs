//! Who pulls: a consumer with any number of streams.

#[cfg(feature = "async")]
mod asynchronous;
mod open;
mod recv;

pub use recv::TryRecv;

use crate::config::ConsumerConfig;
use crate::delivery::Mailbox;
use crate::schedule::Limits;
use crate::stats::StreamStats;
use crate::stream::{ConsumerId, EndReason, Positions};
use crate::workers::{Handle, Work};
use std::fmt;
use std::sync::Arc;
use vbstore_core::{Position, SystemClock, Taker, VbId};

/// A named consumer: any number of streams, at most one a vBucket, with one place to read, one byte
/// budget and one set of positions. May be moved to another thread; has one reader at a time.
///
/// Dropping it ends all its streams and releases everything at once: buffers, cursors, places in
/// queues. Dropped in a fork of the process it does nothing.
pub struct Consumer {
    handle: Arc<Handle>,
    id: ConsumerId,
    name: Arc<str>,
    pub(crate) mailbox: Arc<Mailbox>,
    positions: Positions,
    buffer_bytes_max: u64,
    real: SystemClock,
}

impl fmt::Debug for Consumer {
    /// Short, and without keys or values, which are the program's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("name", &self.name)
            .field("mailbox", &self.mailbox)
            .field("buffered_bytes", &self.buffered_bytes())
            .finish_non_exhaustive()
    }
}

impl Consumer {
    pub(crate) fn new(handle: &Arc<Handle>, name: &str, config: &ConsumerConfig) -> Self {
        let work = &handle.work;
        let id = work.ids.consumer();
        let all_but_one = (work.limits.workers - 1).max(1);
        let limits = Limits {
            order: config.order,
            backfills_max: config.backfills_max,
            slices_max: config.slices_max.unwrap_or(all_but_one),
        };
        let buffers = work.scheduler.buffers();
        let (bytes_max, drain) = (config.buffer_bytes_max, config.drain_percent);
        buffers.add_consumer(id, bytes_max, drain, limits.slices_max);
        work.scheduler.add_consumer(id, limits);
        let counters = Arc::clone(&work.context.counters);
        let wakers = work.context.engine.wakers();
        let taker = Taker::new(work.context.clock.monotonic());
        let mailbox = Arc::new(Mailbox::new(config.order, taker, counters, wakers));
        let name: Arc<str> = name.into();
        work.registry.add(id, Arc::clone(&name), &mailbox);
        Self {
            handle: Arc::clone(handle),
            id,
            name,
            mailbox,
            positions: Positions::default(),
            buffer_bytes_max: config.buffer_bytes_max,
            real: SystemClock::new(),
        }
    }

    fn work(&self) -> &Work {
        &self.handle.work
    }

    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ends the stream of a vBucket: what waits of it is dropped, also the rest of a batch of which
    /// [`Self::recv`] has returned a part, and its `End {closed}` follows. Returns whether there was
    /// one. Another stream of the vBucket can be opened once that end is taken.
    pub fn close(&mut self, vb: VbId) -> bool {
        let Some((stream, false)) = self.mailbox.of_vb(vb) else {
            return false;
        };
        if let Some(backfill) = self.mailbox.end(stream, EndReason::Closed) {
            self.work().scheduler.remove(backfill, self.id);
        }
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

    /// Returns how its streams are doing. Takes the lock of its mailbox, and for each stream that
    /// reads from memory the vBucket's, for a moment.
    #[must_use]
    pub fn stats(&self) -> Vec<StreamStats> {
        self.work().stats_of(&self.name, &self.mailbox)
    }

    /// Returns the bytes it has in its buffer.
    #[must_use]
    pub fn buffered_bytes(&self) -> u64 {
        self.work().scheduler.buffers().used_by(self.id)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let work = &self.handle.work;
        if work.context.engine.check_process().is_err() {
            // Its streams go on in the parent; here their locks may stay locked.
            Box::leak(Box::new(Arc::clone(&self.mailbox)));
            return;
        }
        work.registry.remove(self.id);
        self.mailbox.abandon();
        work.scheduler.remove_consumer(self.id);
        work.scheduler.buffers().remove_consumer(self.id);
    }
}
