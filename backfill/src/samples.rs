//! What the tables of the streams say, for whoever scrapes or asks.

use crate::inbox::Inbox;
use crate::stats::StreamCounters;
use crate::stream::StreamState;
use crate::streams::Work;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vbstore_metrics::{MetricsSnapshot, SampleSource, names};

/// Streams by what they do.
#[derive(Debug, Default)]
struct Sums {
    backfilling: u64,
    in_memory: u64,
    diverging: u64,
    stalled: u64,
    remaining: u64,
    max_lag: u64,
}

impl Work {
    /// Takes each consumer's lock for a moment.
    fn sums(&self, inboxes: &[Arc<Inbox>]) -> Sums {
        let mut sums = Sums::default();
        let add = |sum: &mut u64, n: u64| *sum = sum.saturating_add(n);
        let now = self.around.clock.monotonic();
        for seen in inboxes.iter().flat_map(|inbox| inbox.look(now, false)) {
            let stream = &seen.stream;
            let figures = &stream.figures;
            let number = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
            match stream.state() {
                StreamState::InMemory => add(&mut sums.in_memory, 1),
                StreamState::Ended => {}
                _ => {
                    add(&mut sums.backfilling, 1);
                    // Before its first slice it has announced nothing.
                    let end = number(&figures.announced_seqno).max(stream.feed.synced().get());
                    let left = end.saturating_sub(number(&figures.read_seqno));
                    add(&mut sums.remaining, left);
                }
            }
            let is_set = |flag: &std::sync::atomic::AtomicBool| flag.load(Ordering::Acquire);
            add(
                &mut sums.diverging,
                u64::from(is_set(&figures.is_diverging)),
            );
            add(&mut sums.stalled, u64::from(is_set(&figures.is_stalled)));
            let synced = stream.feed.synced().get();
            let lag = synced.saturating_sub(number(&figures.taken_seqno));
            sums.max_lag = sums.max_lag.max(lag);
        }
        sums
    }

    pub(crate) fn put(&self, into: &mut MetricsSnapshot) {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let lengths = self.scheduler.lengths();
        for (state, length) in [
            ("pending", lengths.pending),
            ("ready", lengths.ready),
            ("running", lengths.running),
            ("snoozed", lengths.snoozed),
        ] {
            into.put_by(&names::BACKFILL_TASKS, state, count(length));
        }
        let limits = &self.limits;
        into.put(&names::BACKFILL_TASKS_LIMIT, count(limits.backfills));
        into.put(&names::BACKFILL_WORKERS, count(limits.workers));
        into.put(&names::BACKFILL_BUFFER_BYTES, self.total.used());
        into.put(&names::BACKFILL_BUFFER_LIMIT, self.total.bytes_max());
        let inboxes: Vec<Arc<Inbox>> = self.inboxes();
        let sums = self.sums(&inboxes);
        into.put(&names::CONSUMERS, count(inboxes.len()));
        into.put_by(&names::STREAMS_OPEN, "backfilling", sums.backfilling);
        into.put_by(&names::STREAMS_OPEN, "in_memory", sums.in_memory);
        into.put(&names::STREAMS_DIVERGING, sums.diverging);
        into.put(&names::STREAMS_STALLED, sums.stalled);
        into.put(&names::BACKFILL_REMAINING, sums.remaining);
        into.put(&names::STREAM_MAX_LAG_SEQNOS, sums.max_lag);
        put_counters(&self.around.counters, into);
    }
}

fn put_counters(counters: &StreamCounters, into: &mut MetricsSnapshot) {
    // ORDER: what ends first, what begins second: never more ended than begun.
    for (reason, counter) in counters.closed.all() {
        into.put_by(&names::STREAMS_CLOSED, reason, counter.get());
    }
    into.put_counter(&names::STREAMS_OPENED, &counters.opened);
    into.put_counter(&names::BACKFILLS_ENDED, &counters.backfills_ended);
    into.put_counter(&names::BACKFILLS_STARTED, &counters.backfills_started);
    into.put_counter(&names::BACKFILL_PANICS, &counters.panics);
    let slices = &counters.slices;
    into.put_by(&names::BACKFILL_SLICES, "complete", slices.complete.get());
    into.put_by(&names::BACKFILL_SLICES, "budget", slices.budget.get());
    into.put_counter(&names::BACKFILL_SLICES_SHARED, &slices.shared);
    let (micros, items) = (&counters.slice_micros, &counters.slice_items);
    into.put_histogram(&names::BACKFILL_SLICE_SECONDS, &[], micros, 1e-6);
    into.put_histogram(&names::BACKFILL_SLICE_ITEMS, &[], items, 1.0);
    let waits = &counters.queue_wait_micros;
    into.put_histogram(&names::BACKFILL_QUEUE_WAIT, &[], waits, 1e-6);
    let first = &counters.first_item_micros;
    into.put_histogram(&names::BACKFILL_FIRST_ITEM, &[], first, 1e-6);
    let durations = &counters.duration_micros;
    into.put_histogram(&names::BACKFILL_DURATION, &[], durations, 1e-6);
    let waits = &counters.sync_wait_micros;
    into.put_histogram(&names::BACKFILL_SYNC_WAIT, &[], waits, 1e-6);
    for (source, items, bytes) in [
        ("disk", &counters.items_from_disk, &counters.bytes_from_disk),
        (
            "memory",
            &counters.items_from_memory,
            &counters.bytes_from_memory,
        ),
    ] {
        into.put_by(&names::STREAM_ITEMS, source, items.get());
        into.put_by(&names::STREAM_BYTES, source, bytes.get());
    }
    into.put_counter(&names::STREAM_FALLBACKS, &counters.cursor_drops);
    for (reason, counter) in counters.rollbacks.all() {
        into.put_by(&names::ROLLBACKS, reason.name(), counter.get());
    }
}

impl SampleSource for Work {
    fn sample(&self, into: &mut MetricsSnapshot) -> Result<(), Box<dyn std::error::Error>> {
        self.put(into);
        Ok(())
    }
}
