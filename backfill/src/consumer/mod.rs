//! Consumers: named readers of any number of streams.

#[cfg(feature = "async")]
mod asynchronous;
mod open;
mod recv;

pub use recv::TryRecv;

use crate::config::ConsumerConfig;
use crate::delivery::Mailbox;
use crate::schedule::ConsumerLimits;
use crate::stats::StreamStats;
use crate::stream::{ConsumerId, EndReason, Positions};
use crate::workers::{StreamsHandle, WorkerContext};
use std::fmt;
use std::sync::Arc;
use vbstore_core::{ConsumerActivity, Position, SystemClock, VbId};

/// A named consumer of any number of streams, at most one per vBucket. All its streams share one
/// reader, one byte budget and one set of positions. Can be moved to another thread.
///
/// Dropping a consumer ends all its streams, and releases their buffers, cursors and backfills at
/// once. In a forked child process, dropping it does nothing: its memory is leaked.
pub struct Consumer {
    handle: Arc<StreamsHandle>,
    id: ConsumerId,
    name: Arc<str>,
    pub(crate) mailbox: Arc<Mailbox>,
    positions: Positions,
    buffer_bytes_max: u64,
    /// Measures timeouts, which are in real time even if the engine has a manual clock.
    real: SystemClock,
}

impl fmt::Debug for Consumer {
    /// Short, and without keys or values: those belong to the program.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("name", &self.name)
            .field("mailbox", &self.mailbox)
            .field("buffered_bytes", &self.buffered_bytes())
            .finish_non_exhaustive()
    }
}

impl Consumer {
    pub(crate) fn new(handle: &Arc<StreamsHandle>, name: &str, config: &ConsumerConfig) -> Self {
        let work = &handle.work;
        let id = work.ids.consumer();
        // If there is more than one worker, one stays free for other consumers.
        let all_but_one = (work.limits.workers - 1).max(1);
        let limits = ConsumerLimits {
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
        let activity = ConsumerActivity::new(work.context.clock.monotonic());
        let mailbox = Arc::new(Mailbox::new(config.order, activity, counters, wakers));
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

    fn work(&self) -> &WorkerContext {
        &self.handle.work
    }

    /// Returns the name given at creation.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Closes the stream of a vBucket. Everything buffered for it is dropped, including the rest of
    /// a batch that [`Self::recv`] has partly returned. Its last event, `End` with the reason
    /// `Closed`, follows.
    ///
    /// Returns false if no stream of the vBucket is open. Another one can be opened once that `End`
    /// is taken.
    pub fn close(&mut self, vb: VbId) -> bool {
        let Some((stream, false)) = self.mailbox.stream_of(vb) else {
            return false;
        };
        if let Some(backfill) = self.mailbox.end(stream, EndReason::Closed) {
            self.work().scheduler.remove(backfill, self.id);
        }
        true
    }

    /// Returns the consumer's position in a vBucket: where a new stream can resume. Counts only
    /// what the consumer has taken, not what is buffered.
    #[must_use]
    pub fn position(&self, vb: VbId) -> Option<Position> {
        self.positions.0.get(&vb).copied()
    }

    /// Returns the positions in all vBuckets for which this consumer has opened a stream.
    #[must_use]
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// Returns the state of its streams. Takes the lock of its mailbox for a moment. For each
    /// stream that reads from memory it also takes the vBucket's lock, to compute the lag.
    #[must_use]
    pub fn stats(&self) -> Vec<StreamStats> {
        self.work().stats_of(&self.name, &self.mailbox)
    }

    /// Returns the number of bytes buffered for this consumer.
    #[must_use]
    pub fn buffered_bytes(&self) -> u64 {
        self.work().scheduler.buffers().used_by(self.id)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let work = &self.handle.work;
        if work.context.engine.check_process().is_err() {
            // The streams continue in the parent process. In the child, a thread that no longer
            // exists may hold their locks, so the mailbox must not be dropped.
            Box::leak(Box::new(Arc::clone(&self.mailbox)));
            return;
        }
        work.registry.remove(self.id);
        self.mailbox.abandon();
        work.scheduler.remove_consumer(self.id);
        work.scheduler.buffers().remove_consumer(self.id);
    }
}
