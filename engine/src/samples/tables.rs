//! Metrics from the engine's own tables.

use crate::error::Result;
use crate::health::HealthState;
use crate::services::Services;
use std::sync::Arc;
use std::time::Duration;
use vbstore_core::{CheckpointStats, Lag, ReaderStats, Seqno};
use vbstore_metrics::{MetricsSnapshot, SampleSource, names};

/// The version of RocksDB that this crate is built with.
const ROCKSDB: &str = "11.8.1";

const _: () = assert!(
    names::HEALTH_STATE.is_by(&HealthState::NAMES),
    "the metric's label must have the states of `HealthState`"
);

pub(super) struct TablesSource {
    services: Arc<Services>,
    opened: Duration,
}

/// Sums and maxima over all vBuckets.
#[derive(Debug, Default)]
struct VbSums {
    items: u64,
    tombstones: u64,
    bytes: u64,
    unsynced: u64,
    open: u64,
    sealed: u64,
    checkpoint_items: u64,
    cursors: u64,
    persistence_worst: Lag,
    persistence_all: Lag,
    stream_worst: Lag,
    stream_all: Lag,
    readers: u64,
    reader_lag: u64,
    reader_idle_since: Option<Duration>,
}

impl VbSums {
    fn add(&mut self, checkpoints: &CheckpointStats) {
        self.open += u64::from(checkpoints.has_open);
        self.sealed += checkpoints.sealed;
        self.checkpoint_items += checkpoints.items;
        self.cursors += checkpoints.cursors;
        self.persistence_worst = self.persistence_worst.worse(checkpoints.unpersisted);
        self.persistence_all = self.persistence_all.plus(checkpoints.unpersisted);
        self.stream_worst = self.stream_worst.worse(checkpoints.worst);
        self.stream_all = self.stream_all.plus(checkpoints.backlog);
    }

    /// Adds the readers of a vBucket. `high` was its high seqno just before.
    fn add_readers(&mut self, readers: &ReaderStats, high: Seqno) {
        self.readers += readers.count;
        let lag = readers.lowest_taken.map_or(0, |lowest| high.since(lowest));
        self.reader_lag = self.reader_lag.max(lag);
        let earlier = self.reader_idle_since.into_iter();
        self.reader_idle_since = earlier.chain(readers.idle_since).min();
    }
}

impl TablesSource {
    pub(super) fn new(services: Arc<Services>) -> Self {
        let opened = services.clock.monotonic();
        Self { services, opened }
    }

    /// Returns the sums over all vBuckets. Takes each vBucket's lock briefly.
    fn sums(&self) -> VbSums {
        let mut sums = VbSums::default();
        for vb in &*self.services.vbs {
            let cell = &vb.cell;
            let inner = cell.lock();
            let (counts, checkpoints) = (inner.state.counts, inner.checkpoints.stats());
            let (high, readers) = (inner.checkpoints.high_seqno(), Arc::clone(&inner.readers));
            drop(inner);
            sums.add_readers(&readers.stats(), high);
            // ORDER: read synced first: it never exceeds persisted.
            let synced: Seqno = cell.synced();
            let unsynced = cell.persisted().since(synced);
            sums.items += counts.items;
            sums.tombstones += counts.tombstones;
            sums.bytes += counts.bytes;
            sums.unsynced += unsynced;
            sums.add(&checkpoints);
        }
        sums
    }

    pub(super) fn put(&self, into: &mut MetricsSnapshot) -> Result<()> {
        let services = &self.services;
        let now = services.clock.monotonic();
        let labels = [
            ("version", env!("CARGO_PKG_VERSION").into()),
            ("rocksdb", ROCKSDB.into()),
        ];
        into.put_with(&names::BUILD_INFO, &labels, 1.0);
        let state = services.health.state().name();
        for name in HealthState::NAMES {
            into.put_by(&names::HEALTH_STATE, name, u64::from(name == state));
        }
        let open = now.saturating_sub(self.opened);
        into.put_float(&names::UPTIME, open.as_secs_f64());
        let vbuckets = u64::from(services.vbs.count());
        into.put(&names::VBUCKETS, vbuckets);
        services.metrics.sample(now, into);

        // Saturating: something may have been appended after `now` was read.
        let age = |since: Option<Duration>| {
            let age = since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
            age.as_secs_f64()
        };
        let sums = self.sums();
        into.put(&names::ITEMS, sums.items);
        into.put(&names::TOMBSTONES, sums.tombstones);
        into.put(&names::ITEM_BYTES, sums.bytes);
        into.put_by(&names::CHECKPOINTS, "open", sums.open);
        into.put_by(&names::CHECKPOINTS, "sealed", sums.sealed);
        into.put(&names::CHECKPOINT_ITEMS, sums.checkpoint_items);
        into.put(&names::CHECKPOINT_MEMORY, services.memory.used());
        let quota = services.tuning.get().memory_quota;
        into.put(&names::CHECKPOINT_MEMORY_LIMIT, quota);
        let kinds = [
            (
                "persistence",
                vbuckets,
                sums.persistence_worst,
                sums.persistence_all,
            ),
            ("stream", sums.cursors, sums.stream_worst, sums.stream_all),
        ];
        for (kind, cursors, worst, all) in kinds {
            into.put_by(&names::CURSORS, kind, cursors);
            into.put_by(&names::CURSOR_MAX_LAG_ITEMS, kind, worst.items);
            into.put_by(&names::CURSOR_MAX_LAG_BYTES, kind, worst.bytes);
            let label = [("kind", kind.into())];
            into.put_with(&names::CURSOR_MAX_LAG_SECONDS, &label, age(worst.since));
            into.put_by(&names::CURSOR_BACKLOG_ITEMS, kind, all.items);
            into.put_by(&names::CURSOR_BACKLOG_BYTES, kind, all.bytes);
        }
        into.put(&names::READERS, sums.readers);
        into.put(&names::READER_MAX_LAG_SEQNOS, sums.reader_lag);
        let idle = age(sums.reader_idle_since);
        into.put_float(&names::READER_MAX_IDLE_SECONDS, idle);
        into.put(&names::PERSIST_LAG_ITEMS, sums.persistence_all.items);
        let oldest = age(sums.persistence_worst.since);
        into.put_float(&names::PERSIST_MAX_LAG_SECONDS, oldest);
        into.put(&names::SYNC_LAG_SEQNOS, sums.unsynced);
        let unsynced_since = services.ledger.unsynced_since();
        into.put_float(&names::SYNC_MAX_LAG_SECONDS, age(unsynced_since));
        if let Some(free) = services.store_dir.disk_free_ratio()? {
            into.put_float(&names::DISK_FREE_RATIO, free);
        }
        Ok(())
    }
}

impl SampleSource for TablesSource {
    fn sample(
        &self,
        into: &mut MetricsSnapshot,
    ) -> std::result::Result<(), Box<dyn std::error::Error>> {
        Ok(self.put(into)?)
    }
}
