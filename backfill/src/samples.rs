//! Samples of stream metrics, for scrapes and `metrics_snapshot`.

use crate::delivery::{Mailbox, SourceKind, StreamSummary};
use crate::stats::{StreamStats, state_of};
use crate::stream::{BackfillId, StreamState, get};
use crate::workers::WorkerContext;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use vbstore_core::{Seqno, u64_from};
use vbstore_metrics::{MetricsSnapshot, SampleSource, names};

/// Totals over all streams.
#[derive(Debug, Default)]
struct StreamSums {
    backfilling: u64,
    in_memory: u64,
    paused: u64,
    diverging: u64,
    stalled: u64,
    /// Seqnos that backfills still have to read.
    remaining: u64,
    /// The largest number of seqnos by which a consumer is behind.
    max_lag: u64,
}

impl WorkerContext {
    /// Returns the statistics of one consumer's streams. Takes its lock for a moment.
    pub(crate) fn stats_of(&self, name: &Arc<str>, mailbox: &Mailbox) -> Vec<StreamStats> {
        let now = self.context.clock.monotonic();
        let summary = mailbox.inspect();
        let queued = self.scheduler.states(summary.iter().map(backfill_of));
        summary
            .iter()
            .zip(queued)
            .map(|(summary, queued)| StreamStats::of(name, summary, queued, now))
            .collect()
    }

    /// Adds up the streams of all consumers. Takes each consumer's lock for a moment.
    fn sums(&self, mailboxes: &[Arc<Mailbox>]) -> StreamSums {
        let mut sums = StreamSums::default();
        let is_set = |flag: &AtomicBool| u64::from(flag.load(Ordering::Acquire));
        for summary in mailboxes.iter().flat_map(|mailbox| mailbox.inspect()) {
            let stream = &summary.stream;
            let metrics = &stream.metrics;
            let synced = self.synced(stream.vb);
            match state_of(summary.source, None) {
                StreamState::InMemory => sums.in_memory += 1,
                StreamState::Paused => sums.paused += 1,
                StreamState::Ended => {}
                _ => {
                    sums.backfilling += 1;
                    // Before its first slice it has announced nothing, so the synced end is used.
                    let end = get(&metrics.announced_seqno).max(synced);
                    // Saturates: if the vBucket was deleted since, its end can be lower.
                    sums.remaining += end.saturating_sub(get(&metrics.read_seqno));
                }
            }
            sums.diverging += is_set(&metrics.is_diverging);
            sums.stalled += is_set(&metrics.is_stalled);
            // Saturates: a stream that accepts unsynced changes may be ahead of the synced end.
            let lag = synced.saturating_sub(stream.reader.taken().get());
            sums.max_lag = sums.max_lag.max(lag);
        }
        sums
    }

    /// Returns the synced seqno of a vBucket.
    fn synced(&self, vb: vbstore_core::VbId) -> u64 {
        let feed = self.context.engine.feed(vb);
        feed.map_or(Seqno::ZERO, |feed| feed.synced()).get()
    }

    /// Writes all metrics of the streams into a snapshot. Takes each consumer's lock for a moment.
    pub(crate) fn put(&self, into: &mut MetricsSnapshot) {
        let lengths = self.scheduler.lengths();
        for (state, length) in [
            (StreamState::Pending, lengths.pending),
            (StreamState::Ready, lengths.ready),
            (StreamState::Running, lengths.running),
            (StreamState::Snoozed, lengths.snoozed),
        ] {
            into.put_by(&names::BACKFILL_TASKS, state.name(), u64_from(length));
        }
        let limits = &self.limits;
        let buffers = self.scheduler.buffers();
        into.put(&names::BACKFILL_TASKS_LIMIT, u64_from(limits.backfills));
        into.put(&names::BACKFILL_WORKERS, u64_from(limits.workers));
        into.put(&names::BACKFILL_BUFFER_BYTES, buffers.used());
        into.put(&names::BACKFILL_BUFFER_LIMIT, buffers.bytes_max());
        let present = self.registry.present().into_iter();
        let mailboxes: Vec<Arc<Mailbox>> = present.map(|present| present.mailbox).collect();
        let sums = self.sums(&mailboxes);
        into.put(&names::CONSUMERS, u64_from(mailboxes.len()));
        into.put_by(&names::STREAMS_OPEN, "backfilling", sums.backfilling);
        for (state, count) in [
            (StreamState::InMemory, sums.in_memory),
            (StreamState::Paused, sums.paused),
        ] {
            into.put_by(&names::STREAMS_OPEN, state.name(), count);
        }
        into.put(&names::STREAMS_DIVERGING, sums.diverging);
        into.put(&names::STREAMS_STALLED, sums.stalled);
        into.put(&names::BACKFILL_REMAINING, sums.remaining);
        into.put(&names::STREAM_MAX_LAG_SEQNOS, sums.max_lag);
        self.context.counters.sample_counted(into);
    }
}

fn backfill_of(summary: &StreamSummary) -> Option<BackfillId> {
    match summary.source {
        SourceKind::Disk(backfill) => Some(backfill),
        SourceKind::Memory | SourceKind::Paused | SourceKind::Ended => None,
    }
}

impl SampleSource for WorkerContext {
    fn sample(&self, into: &mut MetricsSnapshot) -> Result<(), Box<dyn std::error::Error>> {
        self.put(into);
        Ok(())
    }
}
