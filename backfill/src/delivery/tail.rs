//! A stream that reads from memory. The consumer reads with its own thread: what nobody takes is
//! copied nowhere, and a consumer that is frozen costs a cursor, which can be dropped.

use super::batch::{Batch, Changes};
use super::buffers::Buffers;
use crate::stream::{EndReason, Stream, add, set};
use bytes::Bytes;
use std::sync::Arc;
use std::task::Waker;
use vbstore_core::{Item, Progress, ReadLimit, Seqno, Visibility, u64_from};
use vbstore_engine::{CursorGuard, Feed, FeedRead};
use vbstore_metrics::StreamCounters;

/// Memory that a batch takes besides what it keeps of its changes, in bytes.
pub(crate) const BATCH_BYTES: u64 = 512;

/// The part of a stream that reads from memory. Dropping it takes the vBucket's lock, to give up its
/// place there and its watch.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) stream: Arc<Stream>,
    pub(crate) feed: Feed,
    pub(crate) progress: Progress,
    pub(crate) cursor: Arc<CursorGuard>,
    /// How many views of the disk had been begun when the stream was admitted.
    pub(crate) views_at_open: u64,
    /// Wakes the reader. Made once, so that a newer watch replaces the older one.
    watcher: Arc<Watcher>,
}

/// Where a stream is: what its backfill and its tail hand to each other.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) stream: Arc<Stream>,
    pub(crate) feed: Feed,
    pub(crate) progress: Progress,
    pub(crate) views_at_open: u64,
}

/// Watches a vBucket for a stream. Dropping it takes its watch away: one that waits would stay until
/// the next change of the vBucket, and there may be none.
#[derive(Debug)]
pub(crate) struct Watcher {
    feed: Feed,
    generation: u64,
    waker: Waker,
}

impl Watcher {
    pub(crate) fn new(feed: &Feed, generation: u64, waker: Waker) -> Self {
        Self {
            feed: feed.clone(),
            generation,
            waker,
        }
    }

    /// Calls the waker once changes above `above` are visible. Returns false if they are now.
    pub(crate) fn watch(&self, visibility: Visibility, above: Seqno) -> bool {
        self.feed
            .watch(self.generation, visibility, above, &self.waker)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.feed.unwatch(&self.waker);
    }
}

/// What reading from memory came to.
#[derive(Debug)]
pub(crate) enum Pulled {
    /// Something to deliver, after which the stream is over if the flag is set.
    Batch(Batch, bool),
    /// Nothing before what is visible passes this.
    Nothing { above: Seqno },
    /// The cursor was dropped: the disk has to be read.
    Dropped,
    /// The stream is over.
    Ended(EndReason),
}

impl Tail {
    /// `waker` wakes the reader of the stream.
    pub(crate) fn new(reading: Reading, cursor: CursorGuard, waker: Waker) -> Self {
        let Reading {
            stream,
            feed,
            progress,
            views_at_open,
        } = reading;
        Self {
            watcher: Arc::new(Watcher::new(&feed, stream.generation, waker)),
            stream,
            feed,
            progress,
            cursor: Arc::new(cursor),
            views_at_open,
        }
    }

    /// Returns where the stream is, to go on from disk.
    pub(crate) fn reading(&self) -> Reading {
        Reading {
            stream: Arc::clone(&self.stream),
            feed: self.feed.clone(),
            progress: self.progress,
            views_at_open: self.views_at_open,
        }
    }

    /// Returns what watches for more. May be used after the tail is put back, or gone.
    pub(crate) fn watcher(&self) -> Arc<Watcher> {
        Arc::clone(&self.watcher)
    }

    /// Reads what there is, up to the limit and what the consumer's buffer has room for; one change
    /// always passes. Takes the vBucket's lock for a moment.
    pub(crate) fn pull(
        &mut self,
        limit: ReadLimit,
        buffers: &Arc<Buffers>,
        counters: &StreamCounters,
    ) -> Pulled {
        let stream = &self.stream;
        // Looked at first: what was durable before the engine became unhealthy is still delivered.
        let unhealthy = self.feed.unwell();
        // Reserved is what there may be to read, not the whole limit: a reader that finds nothing takes no
        // room from others meanwhile.
        let behind = self.cursor.lag().map_or(0, |lag| lag.bytes);
        let wanted = limit.bytes.min(behind);
        let mut charge = buffers.reserve_for_reader(stream.consumer, wanted);
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
                    return Pulled::Ended(error.into());
                }
                // Readable is what ends above the position and at or above the least end.
                let least = self.progress.end_min().get().checked_sub(1);
                let least = Seqno::new(least.unwrap_or(0));
                return Pulled::Nothing {
                    above: self.progress.position().max(least),
                };
            }
            Ok(FeedRead::Dropped) => {
                add(&stream.metrics.cursor_drops, 1);
                counters.cursor_drops.add(1);
                return Pulled::Dropped;
            }
            Err(error) => return Pulled::Ended(error.into()),
        };
        // A branch that began meanwhile goes on from where this stream is.
        self.progress.follow_branch(vb_uuid);
        let marker = self.progress.take_memory(read.end, read.position);
        let items: Vec<Arc<Item>> = if stream.options.wants_all() {
            read.items
        } else {
            // None is skipped as a first deletion: see `StreamOptions::skips_first_deletions`.
            let wanted =
                |item: &Arc<Item>| stream.options.wants(&item.meta, &item.key, Seqno::ZERO);
            let mut items: Vec<_> = read.items.into_iter().filter(wanted).collect();
            // It has the memory of all that was read.
            items.shrink_to_fit();
            items
        };
        let items = if stream.options.is_keys_only {
            // A batch that is kept would keep the values of its changes in memory, too.
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
        let batch = Batch::new(stream, marker, changes, advance, Some(charge));
        Pulled::Batch(batch, self.progress.is_at_end())
    }
}

fn without_value(item: &Item) -> Item {
    Item {
        meta: item.meta,
        key: item.key.clone(),
        value: Bytes::new(),
    }
}
