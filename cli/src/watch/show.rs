//! The metrics that `watch` shows, as text and as JSON.

use super::layout::Cell;
use super::scraped::ScrapedMetrics;
use serde_json::{Map, Value, json};
use vbstore::metrics::names::{self, Metric};

/// How a value is computed from the samples of a metric.
#[derive(Clone, Copy)]
enum MetricQuery {
    Sum,
    Max,
    Min,
    /// The sum of the samples with this value of the metric's label.
    Of(&'static str),
    /// The rise per second of all samples.
    Rate,
    /// The rise per second of the samples with this value of the metric's label.
    RateOf(&'static str),
}

#[derive(Clone, Copy)]
enum DisplayUnit {
    Count,
    Bytes,
    Seconds,
    PerSecond,
    Share,
}

/// A value: its name in JSON, its label on the terminal, its metric, and how it is computed and
/// shown.
type MetricRow = (
    &'static str,
    &'static str,
    &'static Metric,
    MetricQuery,
    DisplayUnit,
);

/// The values that are shown, by group.
const GROUPS: &[(&str, &[MetricRow])] = &[
    (
        "db snapshots",
        &[
            (
                "snapshots_backfill",
                "backfills",
                &names::DB_SNAPSHOTS_OPEN,
                MetricQuery::Of("backfill"),
                DisplayUnit::Count,
            ),
            (
                "snapshots_open",
                "all",
                &names::DB_SNAPSHOTS_OPEN,
                MetricQuery::Sum,
                DisplayUnit::Count,
            ),
            (
                "rocksdb_snapshots_open",
                "in RocksDB",
                &names::ROCKS_SNAPSHOTS_OPEN,
                MetricQuery::Sum,
                DisplayUnit::Count,
            ),
            (
                "snapshot_oldest_age_seconds",
                "oldest",
                &names::DB_SNAPSHOT_OLDEST_AGE,
                MetricQuery::Max,
                DisplayUnit::Seconds,
            ),
            (
                "snapshots_per_second",
                "opened",
                &names::DB_SNAPSHOTS_OPENED,
                MetricQuery::Rate,
                DisplayUnit::PerSecond,
            ),
        ],
    ),
    (
        "cursors",
        &[
            (
                "cursors",
                "of streams",
                &names::CURSORS,
                MetricQuery::Of("stream"),
                DisplayUnit::Count,
            ),
            (
                "cursor_max_lag_items",
                "worst lag",
                &names::CURSOR_MAX_LAG_ITEMS,
                MetricQuery::Of("stream"),
                DisplayUnit::Count,
            ),
            (
                "cursor_max_lag_bytes",
                "in memory",
                &names::CURSOR_MAX_LAG_BYTES,
                MetricQuery::Of("stream"),
                DisplayUnit::Bytes,
            ),
            (
                "cursor_max_lag_seconds",
                "in time",
                &names::CURSOR_MAX_LAG_SECONDS,
                MetricQuery::Of("stream"),
                DisplayUnit::Seconds,
            ),
            (
                "cursors_dropped",
                "dropped",
                &names::CURSORS_DROPPED,
                MetricQuery::Sum,
                DisplayUnit::Count,
            ),
        ],
    ),
    (
        "streams",
        &[
            (
                "streams_backfilling",
                "from disk",
                &names::STREAMS_OPEN,
                MetricQuery::Of("backfilling"),
                DisplayUnit::Count,
            ),
            (
                "streams_in_memory",
                "in memory",
                &names::STREAMS_OPEN,
                MetricQuery::Of("in_memory"),
                DisplayUnit::Count,
            ),
            (
                "stream_max_lag_seqnos",
                "worst lag",
                &names::STREAM_MAX_LAG_SEQNOS,
                MetricQuery::Max,
                DisplayUnit::Count,
            ),
            (
                "disk_items_per_second",
                "disk",
                &names::STREAM_ITEMS,
                MetricQuery::RateOf("disk"),
                DisplayUnit::PerSecond,
            ),
            (
                "memory_items_per_second",
                "memory",
                &names::STREAM_ITEMS,
                MetricQuery::RateOf("memory"),
                DisplayUnit::PerSecond,
            ),
        ],
    ),
    (
        "readers",
        &[
            (
                "readers",
                "in progress",
                &names::READERS,
                MetricQuery::Sum,
                DisplayUnit::Count,
            ),
            (
                "reader_max_lag_seqnos",
                "not taken",
                &names::READER_MAX_LAG_SEQNOS,
                MetricQuery::Max,
                DisplayUnit::Count,
            ),
            (
                "reader_max_idle_seconds",
                "idle for",
                &names::READER_MAX_IDLE_SECONDS,
                MetricQuery::Max,
                DisplayUnit::Seconds,
            ),
        ],
    ),
    (
        "backfills",
        &[
            (
                "backfills_running",
                "running",
                &names::BACKFILL_TASKS,
                MetricQuery::Of("running"),
                DisplayUnit::Count,
            ),
            (
                "backfills_ready",
                "ready",
                &names::BACKFILL_TASKS,
                MetricQuery::Of("ready"),
                DisplayUnit::Count,
            ),
            (
                "backfills_snoozed",
                "snoozed",
                &names::BACKFILL_TASKS,
                MetricQuery::Of("snoozed"),
                DisplayUnit::Count,
            ),
            (
                "backfills_pending",
                "pending",
                &names::BACKFILL_TASKS,
                MetricQuery::Of("pending"),
                DisplayUnit::Count,
            ),
            (
                "backfill_buffer_bytes",
                "buffered",
                &names::BACKFILL_BUFFER_BYTES,
                MetricQuery::Sum,
                DisplayUnit::Bytes,
            ),
        ],
    ),
    (
        "rates",
        &[
            (
                "writes_per_second",
                "writes",
                &names::OPS,
                MetricQuery::RateOf("write"),
                DisplayUnit::PerSecond,
            ),
            (
                "gets_per_second",
                "reads",
                &names::OPS,
                MetricQuery::RateOf("get"),
                DisplayUnit::PerSecond,
            ),
            (
                "batches_per_second",
                "commits",
                &names::PERSIST_BATCHES,
                MetricQuery::Rate,
                DisplayUnit::PerSecond,
            ),
            (
                "persist_lag_items",
                "unpersisted",
                &names::PERSIST_LAG_ITEMS,
                MetricQuery::Sum,
                DisplayUnit::Count,
            ),
            (
                "sync_max_lag_seconds",
                "unsynced",
                &names::SYNC_MAX_LAG_SECONDS,
                MetricQuery::Max,
                DisplayUnit::Seconds,
            ),
        ],
    ),
    (
        "memory",
        &[
            (
                "checkpoint_memory_bytes",
                "checkpoints",
                &names::CHECKPOINT_MEMORY,
                MetricQuery::Sum,
                DisplayUnit::Bytes,
            ),
            (
                "checkpoint_memory_limit_bytes",
                "of",
                &names::CHECKPOINT_MEMORY_LIMIT,
                MetricQuery::Sum,
                DisplayUnit::Bytes,
            ),
            (
                "rocksdb_write_buffer_bytes",
                "memtables",
                &names::ROCKS_BUFFER_BYTES,
                MetricQuery::Sum,
                DisplayUnit::Bytes,
            ),
            (
                "rocksdb_block_cache_bytes",
                "block cache",
                &names::ROCKS_CACHE_BYTES,
                MetricQuery::Sum,
                DisplayUnit::Bytes,
            ),
        ],
    ),
    (
        "disk",
        &[
            (
                "rocksdb_disk_bytes",
                "all files",
                &names::ROCKS_DISK_BYTES,
                MetricQuery::Sum,
                DisplayUnit::Bytes,
            ),
            (
                "rocksdb_live_sst_bytes",
                "live",
                &names::ROCKS_LIVE_SST,
                MetricQuery::Sum,
                DisplayUnit::Bytes,
            ),
            (
                "rocksdb_obsolete_sst_bytes",
                "pinned",
                &names::ROCKS_OBSOLETE_SST,
                MetricQuery::Sum,
                DisplayUnit::Bytes,
            ),
            (
                "rocksdb_log_bytes",
                "log",
                &names::ROCKS_LOG_BYTES,
                MetricQuery::Sum,
                DisplayUnit::Bytes,
            ),
            (
                "disk_free_ratio",
                "free",
                &names::DISK_FREE_RATIO,
                MetricQuery::Min,
                DisplayUnit::Share,
            ),
        ],
    ),
];

fn value_of(
    row: &MetricRow,
    scraped: &ScrapedMetrics,
    previous: Option<&ScrapedMetrics>,
) -> Option<f64> {
    let (_, _, metric, query, _) = *row;
    match query {
        MetricQuery::Sum => scraped.sum(metric),
        MetricQuery::Max => scraped.max(metric),
        MetricQuery::Min => scraped.min(metric),
        MetricQuery::Of(value) => scraped.sum_of(metric, value),
        MetricQuery::Rate => scraped.rate(previous?, metric, None),
        MetricQuery::RateOf(value) => scraped.rate(previous?, metric, Some(value)),
    }
}

/// Returns the worst health of the stores on the page.
pub(super) fn state(scraped: &ScrapedMetrics) -> &'static str {
    let is = |state| scraped.sum_of(&names::HEALTH_STATE, state).unwrap_or(0.0) > 0.0;
    let states = ["failed", "degraded", "read_only", "open"];
    states
        .into_iter()
        .find(|state| is(state))
        .unwrap_or("unknown")
}

/// Returns the values as one JSON object. Unknown values are left out.
pub(super) fn object(scraped: &ScrapedMetrics, previous: Option<&ScrapedMetrics>) -> Value {
    let mut object = Map::new();
    object.insert("health".to_owned(), json!(state(scraped)));
    for row in GROUPS.iter().flat_map(|(_, rows)| rows.iter()) {
        if let Some(value) = value_of(row, scraped, previous) {
            object.insert(row.0.to_owned(), json!(value));
        }
    }
    Value::Object(object)
}

/// Returns the values as text, by group, with a dash for unknown values.
pub(super) fn groups(
    scraped: &ScrapedMetrics,
    previous: Option<&ScrapedMetrics>,
) -> Vec<(&'static str, Vec<Cell>)> {
    let cell = |row: &MetricRow| {
        let value = value_of(row, scraped, previous);
        let value = value.map_or_else(|| "-".to_owned(), |value| formatted(value, row.4));
        (row.1, value)
    };
    let groups = GROUPS.iter();
    groups
        .map(|(name, rows)| (*name, rows.iter().map(cell).collect()))
        .collect()
}

fn formatted(value: f64, unit: DisplayUnit) -> String {
    match unit {
        DisplayUnit::Count => scaled(value, 1_000.0, &["", "k", "M", "G"]),
        DisplayUnit::Bytes => scaled(value, 1_024.0, &["B", "KiB", "MiB", "GiB", "TiB"]),
        DisplayUnit::PerSecond => format!("{}/s", scaled(value, 1_000.0, &["", "k", "M", "G"])),
        DisplayUnit::Seconds if value < 1_000.0 => format!("{value:.3}s"),
        DisplayUnit::Seconds => format!("{value:.0}s"),
        DisplayUnit::Share => format!("{:.0}%", value * 100.0),
    }
}

fn scaled(value: f64, step: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    let is_first = value < step * 10.0;
    if is_first {
        return format!("{value:.0}{unit}");
    }
    for next in units {
        if value < step {
            break;
        }
        value /= step;
        unit = next;
    }
    format!("{value:.1}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn sizes_are_short() {
        for (value, unit, wanted) in [
            (0.0, DisplayUnit::Count, "0"),
            (9_999.0, DisplayUnit::Count, "9999"),
            (123_456.0, DisplayUnit::Count, "123.5k"),
            (3_000_000.0, DisplayUnit::PerSecond, "3.0M/s"),
            (134_217_728.0, DisplayUnit::Bytes, "128.0MiB"),
            (0.0125, DisplayUnit::Seconds, "0.013s"),
            (0.5, DisplayUnit::Share, "50%"),
        ] {
            assert_eq!(formatted(value, unit), wanted);
        }
    }

    #[test]
    fn unknown_values_are_left_out() {
        let text = "# TYPE vbstore_health gauge\n\
                    vbstore_health{state=\"open\",store=\"a\"} 1\n\
                    # TYPE vbstore_cursors_dropped_total counter\n\
                    vbstore_cursors_dropped_total{store=\"a\"} 3\n";
        let scraped = ScrapedMetrics::parse(text, Duration::ZERO).unwrap();
        let object = object(&scraped, None);
        assert_eq!(object, json!({"health": "open", "cursors_dropped": 3.0}));
        let groups = groups(&scraped, None);
        let all = groups.iter().flat_map(|(_, cells)| cells);
        let known = all.filter(|(_, value)| value != "-");
        assert_eq!(known.collect::<Vec<_>>(), [&("dropped", "3".to_owned())]);
        let names: std::collections::BTreeSet<_> = GROUPS
            .iter()
            .flat_map(|(_, rows)| rows.iter().map(|row| row.0))
            .collect();
        let rows: usize = GROUPS.iter().map(|(_, rows)| rows.len()).sum();
        assert_eq!(names.len(), rows);
    }
}
