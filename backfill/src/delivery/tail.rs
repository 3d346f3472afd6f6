//! Streams that read from memory.
//!
//! The consumer reads with its own thread. So nothing is copied that the consumer does not take,
//! and a frozen consumer costs only a cursor, which can be dropped.

use super::batch::{Changes, EventBatch};
use super::buffers::{Buffers, Charge};
use crate::stream::{EndReason, Stream, add, set};
use bytes::Bytes;
use std::sync::Arc;
use std::task::Waker;
use vbstore_core::checkpoint::MemoryRead;
use vbstore_core::{Item, ReadLimit, Seqno, StreamProgress, VbUuid, Visibility, u64_from};
use vbstore_engine::{CursorGuard, Feed, FeedRead};
use vbstore_metrics::StreamCounters;

/// Bytes of memory that a batch needs in addition to its changes.
pub(crate) const BATCH_BYTES: u64 = 512;

/// The part of a stream that reads from memory. Dropping it takes the vBucket's lock, to release
/// its cursor and its watch.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) stream: Arc<Stream>,
    pub(crate) feed: Feed,
    pub(crate) progress: StreamProgress,
    pub(crate) cursor: Arc<CursorGuard>,
    /// The number of views of the disk begun before the stream was admitted. Only slices of later
    /// views may be shared with it.
    pub(crate) views_at_open: u64,
    /// Wakes the reader. Created once, so that a new watch replaces the old one.
    watcher: Arc<WatchGuard>,
}

/// The position of a stream, which its backfill and its tail pass to each other.
#[derive(Debug)]
pub(crate) struct ReadState {
    pub(crate) stream: Arc<Stream>,
    pub(crate) feed: Feed,
    pub(crate) progress: StreamProgress,
    pub(crate) views_at_open: u64,
}

/// Watches a vBucket for a stream. Dropping it removes the watch: a pending one would otherwise
/// stay until the next change of the vBucket, and there may be none.
#[derive(Debug)]
pub(crate) struct WatchGuard {
    feed: Feed,
    generation: u64,
    waker: Waker,
}

impl WatchGuard {
    pub(crate) fn new(feed: &Feed, generation: u64, waker: Waker) -> Self {
        Self {
            feed: feed.clone(),
            generation,
            waker,
        }
    }

    /// Requests a call of the waker once changes above `above` are visible. Returns false if they
    /// already are.
    pub(crate) fn watch(&self, visibility: Visibility, above: Seqno) -> bool {
        self.feed
            .watch(self.generation, visibility, above, &self.waker)
    }
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.feed.unwatch(&self.waker);
    }
}

/// The result of a read from memory.
#[derive(Debug)]
pub(crate) enum PullOutcome {
    /// A batch to deliver. The stream is over after it if the flag is true.
    Batch(EventBatch, bool),
    /// Caught up: wake when something above `above` is visible.
    Nothing {
        above: Seqno,
    },
    /// The cursor was dropped: the stream must read from disk.
    Dropped,
    Ended(EndReason),
}

impl Tail {
    /// Creates the tail of a stream. `waker` wakes the stream's reader.
    pub(crate) fn new(reading: ReadState, cursor: CursorGuard, waker: Waker) -> Self {
        let ReadState {
            stream,
            feed,
            progress,
            views_at_open,
        } = reading;
        Self {
            watcher: Arc::new(WatchGuard::new(&feed, stream.generation, waker)),
            stream,
            feed,
            progress,
            cursor: Arc::new(cursor),
            views_at_open,
        }
    }

    /// Returns the stream's position, to continue from disk.
    pub(crate) fn reading(&self) -> ReadState {
        ReadState {
            stream: Arc::clone(&self.stream),
            feed: self.feed.clone(),
            progress: self.progress,
            views_at_open: self.views_at_open,
        }
    }

    /// Returns the watcher for further changes. It may be used after the tail is put back or
    /// dropped.
    pub(crate) fn watcher(&self) -> Arc<WatchGuard> {
        Arc::clone(&self.watcher)
    }

    /// Reads the available changes, up to `limit` and the room in the consumer's buffer; one change
    /// is always allowed. Takes the vBucket's lock for a moment.
    pub(crate) fn pull(
        &mut self,
        limit: ReadLimit,
        buffers: &Arc<Buffers>,
        counters: &StreamCounters,
    ) -> PullOutcome {
        let stream = &self.stream;
        // ORDER: check the health first, read second. What was durable before the engine became
        // unhealthy is still delivered.
        let unhealthy = self.feed.health_error();
        // Reserve only what there may be to read, not the whole limit. A reader that finds nothing
        // then takes no room from other consumers.
        let behind = self.cursor.lag().map_or(0, |lag| lag.bytes);
        let wanted = limit.bytes.min(behind);
        let charge = buffers.reserve_for_reader(stream.consumer, wanted);
        let read = self.feed.read(
            stream.generation,
            &self.cursor,
            &self.progress,
            stream.options.visibility,
            ReadLimit {
                bytes: charge.bytes(),
                ..limit
            },
        );
        let (read, vb_uuid) = match read {
            Ok(FeedRead::Changes(read, vb_uuid)) => (read, vb_uuid),
            Ok(FeedRead::CaughtUp) => {
                if let Some(error) = unhealthy {
                    return PullOutcome::Ended(error.into());
                }
                // A checkpoint is readable if it ends above the position, and not below the lowest
                // end that the stream may announce.
                let least = self.progress.end_min().get().checked_sub(1);
                let least = Seqno::new(least.unwrap_or(0));
                return PullOutcome::Nothing {
                    above: self.progress.position().max(least),
                };
            }
            Ok(FeedRead::Dropped) => {
                add(&stream.metrics.cursor_drops, 1);
                counters.cursor_drops.add(1);
                return PullOutcome::Dropped;
            }
            Err(error) => return PullOutcome::Ended(error.into()),
        };
        self.take_read(read, vb_uuid, charge, counters)
    }

    /// Makes a batch of a read, charges it, and advances the progress of the stream.
    fn take_read(
        &mut self,
        read: MemoryRead,
        vb_uuid: VbUuid,
        mut charge: Charge,
        counters: &StreamCounters,
    ) -> PullOutcome {
        let stream = &self.stream;
        // A branch that began meanwhile continues the history from where this stream is.
        self.progress.follow_branch(vb_uuid);
        let marker = self.progress.take_memory(read.end, read.position);
        let items: Vec<Arc<Item>> = if stream.options.wants_all() {
            read.items
        } else {
            // No first deletions are omitted here; see `StreamOptions::skips_first_deletions`.
            let wanted =
                |item: &Arc<Item>| stream.options.wants(&item.meta, &item.key, Seqno::ZERO);
            let mut items: Vec<_> = read.items.into_iter().filter(wanted).collect();
            // Its capacity is that of everything that was read.
            items.shrink_to_fit();
            items
        };
        let items = if stream.options.is_keys_only {
            // Without the copy, a batch that the program keeps would also keep the values in
            // memory.
            items
                .iter()
                .map(|item| Arc::new(without_value(item)))
                .collect()
        } else {
            items
        };
        let size = |item: &Arc<Item>| item.key.len() + item.value.len();
        let data_bytes = u64_from(items.iter().map(size).sum());
        let pointers = u64_from(items.len() * size_of::<Arc<Item>>());
        charge.settle(BATCH_BYTES + pointers + items.iter().map(|i| i.memory()).sum::<u64>());
        let changes = Changes::Items(items);
        let last = changes.last_seqno();
        let count = u64_from(changes.len());
        add(&stream.metrics.items_from_memory, count);
        counters.items.memory.add(count);
        counters.bytes.memory.add(data_bytes);
        set(&stream.metrics.read_seqno, read.position);
        set(&stream.metrics.announced_seqno, read.end);
        let advance = (last != Some(read.position)).then_some(read.position);
        let stream = Arc::clone(stream);
        let batch = EventBatch::new(stream, marker, changes, advance, Some(charge));
        PullOutcome::Batch(batch, self.progress.is_at_end())
    }
}

fn without_value(item: &Item) -> Item {
    Item {
        meta: item.meta,
        key: item.key.clone(),
        value: Bytes::new(),
    }
}
