//! A stream that reads from memory. The consumer reads with its own thread: what nobody takes is
//! not copied anywhere, and a consumer that is frozen costs a cursor, which can be dropped.

use crate::batch::{Batch, Changes};
use crate::event::EndReason;
use crate::stream::{StreamShared, add, set};
use std::sync::Arc;
use vbstore_core::{Item, Progress, ReadLimit, Seqno};
use vbstore_engine::{CursorGuard, FeedRead};

/// The part of a stream that reads from memory.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) stream: Arc<StreamShared>,
    pub(crate) progress: Progress,
    pub(crate) cursor: Arc<CursorGuard>,
}

/// What reading from memory came to.
#[derive(Debug)]
pub(crate) enum Pulled {
    /// Something to deliver; if it has an end the stream is over.
    Batch(Batch),
    /// Nothing before what is visible passes this.
    Nothing { above: Seqno },
    /// The cursor was dropped: the disk has to be read.
    Dropped,
}

impl Tail {
    /// Reads what there is, up to the limit. Takes the vBucket's lock for a moment.
    pub(crate) fn pull(&mut self, limit: ReadLimit) -> Pulled {
        let stream = &self.stream;
        // Looked at first: what was durable before the engine became unwell is still delivered.
        let unwell = stream.feed.unwell();
        let read = stream.feed.read(
            stream.generation,
            &self.cursor,
            &self.progress,
            stream.options.visibility,
            limit,
        );
        let read = match read {
            Ok(FeedRead::Changes(read)) => read,
            Ok(FeedRead::CaughtUp) => {
                let Some(error) = unwell else {
                    // Readable is what ends above the position and at or above the least end.
                    let least = self.progress.end_min().get().saturating_sub(1);
                    return Pulled::Nothing {
                        above: self.progress.position().max(Seqno::new(least)),
                    };
                };
                return Pulled::Batch(Batch::ended(Arc::clone(stream), error.into()));
            }
            Ok(FeedRead::Dropped) => {
                add(&stream.figures.cursor_drops, 1);
                return Pulled::Dropped;
            }
            Err(error) => return Pulled::Batch(Batch::ended(Arc::clone(stream), error.into())),
        };
        let marker = self.progress.take_memory(read.end, read.position);
        let wants_all = stream.options.wants_all();
        let items: Vec<Arc<Item>> = if wants_all {
            read.items
        } else {
            let wanted =
                |item: &Arc<Item>| stream.options.wants(&item.meta, &item.key, Seqno::ZERO);
            read.items.into_iter().filter(wanted).collect()
        };
        let values = !stream.options.is_keys_only;
        let size = |item: &Arc<Item>| item.key.len() + if values { item.value.len() } else { 0 };
        let bytes = items.iter().map(size).sum::<usize>();
        let changes = Changes::Items(items);
        let last = changes.last_seqno();
        let count = u64::try_from(changes.len()).unwrap_or(0);
        add(&stream.figures.items_from_memory, count);
        stream.counters.items_from_memory.add(count);
        let bytes = u64::try_from(bytes).unwrap_or(0);
        stream.counters.bytes_from_memory.add(bytes);
        set(&stream.figures.read_seqno, read.position);
        set(&stream.figures.announced_seqno, read.end);
        Pulled::Batch(Batch {
            stream: Arc::clone(stream),
            marker,
            advance: (last != Some(read.position)).then_some(read.position),
            changes,
            end: self.progress.is_at_end().then_some(EndReason::ReachedEnd),
            charge: None,
        })
    }
}
