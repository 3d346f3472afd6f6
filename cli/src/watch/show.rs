//! The main figures, for people and for programs.

use super::figures::Figures;
use super::layout::Cell;
use serde_json::{Map, Value, json};
use vbstore::metrics::names::{self, Metric};

/// How a figure is found and written.
#[derive(Clone, Copy)]
enum Find {
    Sum,
    Max,
    Min,
    Of(&'static str),
    Rate,
    RateOf(&'static str),
}

#[derive(Clone, Copy)]
enum Unit {
    Count,
    Bytes,
    Seconds,
    PerSecond,
    Share,
}

/// A figure: its name in JSON, what it says to people, and where it comes from.
type Row = (&'static str, &'static str, &'static Metric, Find, Unit);

/// What is shown, by group.
const GROUPS: &[(&str, &[Row])] = &[
    (
        "db snapshots",
        &[
            (
                "snapshots_backfill",
                "backfills",
                &names::DB_SNAPSHOTS_OPEN,
                Find::Of("backfill"),
                Unit::Count,
            ),
            (
                "snapshots_open",
                "all",
                &names::DB_SNAPSHOTS_OPEN,
                Find::Sum,
                Unit::Count,
            ),
            (
                "rocksdb_snapshots_open",
                "in RocksDB",
                &names::ROCKS_SNAPSHOTS_OPEN,
                Find::Sum,
                Unit::Count,
            ),
            (
                "snapshot_oldest_age_seconds",
                "oldest",
                &names::DB_SNAPSHOT_OLDEST_AGE,
                Find::Max,
                Unit::Seconds,
            ),
            (
                "snapshots_per_second",
                "opened",
                &names::DB_SNAPSHOTS_OPENED,
                Find::Rate,
                Unit::PerSecond,
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
                Find::Of("stream"),
                Unit::Count,
            ),
            (
                "cursor_max_lag_items",
                "worst lag",
                &names::CURSOR_MAX_LAG_ITEMS,
                Find::Of("stream"),
                Unit::Count,
            ),
            (
                "cursor_max_lag_bytes",
                "in memory",
                &names::CURSOR_MAX_LAG_BYTES,
                Find::Of("stream"),
                Unit::Bytes,
            ),
            (
                "cursor_max_lag_seconds",
                "in time",
                &names::CURSOR_MAX_LAG_SECONDS,
                Find::Of("stream"),
                Unit::Seconds,
            ),
            (
                "cursors_dropped",
                "dropped",
                &names::CURSORS_DROPPED,
                Find::Sum,
                Unit::Count,
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
                Find::Of("backfilling"),
                Unit::Count,
            ),
            (
                "streams_in_memory",
                "in memory",
                &names::STREAMS_OPEN,
                Find::Of("in_memory"),
                Unit::Count,
            ),
            (
                "stream_max_lag_seqnos",
                "worst lag",
                &names::STREAM_MAX_LAG_SEQNOS,
                Find::Max,
                Unit::Count,
            ),
            (
                "disk_items_per_second",
                "disk",
                &names::STREAM_ITEMS,
                Find::RateOf("disk"),
                Unit::PerSecond,
            ),
            (
                "memory_items_per_second",
                "memory",
                &names::STREAM_ITEMS,
                Find::RateOf("memory"),
                Unit::PerSecond,
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
                Find::Sum,
                Unit::Count,
            ),
            (
                "reader_max_lag_seqnos",
                "not taken",
                &names::READER_MAX_LAG_SEQNOS,
                Find::Max,
                Unit::Count,
            ),
            (
                "reader_max_idle_seconds",
                "idle for",
                &names::READER_MAX_IDLE_SECONDS,
                Find::Max,
                Unit::Seconds,
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
                Find::Of("running"),
                Unit::Count,
            ),
            (
                "backfills_ready",
                "ready",
                &names::BACKFILL_TASKS,
                Find::Of("ready"),
                Unit::Count,
            ),
            (
                "backfills_snoozed",
                "snoozed",
                &names::BACKFILL_TASKS,
                Find::Of("snoozed"),
                Unit::Count,
            ),
            (
                "backfills_pending",
                "pending",
                &names::BACKFILL_TASKS,
                Find::Of("pending"),
                Unit::Count,
            ),
            (
                "backfill_buffer_bytes",
                "buffered",
                &names::BACKFILL_BUFFER_BYTES,
                Find::Sum,
                Unit::Bytes,
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
                Find::RateOf("write"),
                Unit::PerSecond,
            ),
            (
                "gets_per_second",
                "reads",
                &names::OPS,
                Find::RateOf("get"),
                Unit::PerSecond,
            ),
            (
                "batches_per_second",
                "commits",
                &names::PERSIST_BATCHES,
                Find::Rate,
                Unit::PerSecond,
            ),
            (
                "persist_lag_items",
                "unpersisted",
                &names::PERSIST_LAG_ITEMS,
                Find::Sum,
                Unit::Count,
            ),
            (
                "sync_max_lag_seconds",
                "unsynced",
                &names::SYNC_MAX_LAG_SECONDS,
                Find::Max,
                Unit::Seconds,
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
                Find::Sum,
                Unit::Bytes,
            ),
            (
                "checkpoint_memory_limit_bytes",
                "of",
                &names::CHECKPOINT_MEMORY_LIMIT,
                Find::Sum,
                Unit::Bytes,
            ),
            (
                "rocksdb_write_buffer_bytes",
                "memtables",
                &names::ROCKS_BUFFER_BYTES,
                Find::Sum,
                Unit::Bytes,
            ),
            (
                "rocksdb_block_cache_bytes",
                "block cache",
                &names::ROCKS_CACHE_BYTES,
                Find::Sum,
                Unit::Bytes,
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
                Find::Sum,
                Unit::Bytes,
            ),
            (
                "rocksdb_live_sst_bytes",
                "live",
                &names::ROCKS_LIVE_SST,
                Find::Sum,
                Unit::Bytes,
            ),
            (
                "rocksdb_obsolete_sst_bytes",
                "pinned",
                &names::ROCKS_OBSOLETE_SST,
                Find::Sum,
                Unit::Bytes,
            ),
            (
                "rocksdb_log_bytes",
                "log",
                &names::ROCKS_LOG_BYTES,
                Find::Sum,
                Unit::Bytes,
            ),
            (
                "disk_free_ratio",
                "free",
                &names::DISK_FREE_RATIO,
                Find::Min,
                Unit::Share,
            ),
        ],
    ),
];

fn find(row: &Row, figures: &Figures, before: Option<&Figures>) -> Option<f64> {
    let (_, _, metric, find, _) = *row;
    match find {
        Find::Sum => figures.sum(metric),
        Find::Max => figures.max(metric),
        Find::Min => figures.min(metric),
        Find::Of(value) => figures.of(metric, value),
        Find::Rate => figures.rate(before?, metric, None),
        Find::RateOf(value) => figures.rate(before?, metric, Some(value)),
    }
}

/// Returns the health that the page tells.
pub(super) fn state(figures: &Figures) -> &'static str {
    let is = |state| figures.of(&names::HEALTH_STATE, state).unwrap_or(0.0) > 0.0;
    let states = ["failed", "degraded", "read_only", "open"];
    states
        .into_iter()
        .find(|state| is(state))
        .unwrap_or("unknown")
}

/// As one JSON object; what is not known is not there.
pub(super) fn object(figures: &Figures, before: Option<&Figures>) -> Value {
    let mut object = Map::new();
    object.insert("health".to_owned(), json!(state(figures)));
    for row in GROUPS.iter().flat_map(|(_, rows)| rows.iter()) {
        if let Some(value) = find(row, figures, before) {
            object.insert(row.0.to_owned(), json!(value));
        }
    }
    Value::Object(object)
}

/// For people, by group; a dash for what is not known.
pub(super) fn groups(
    figures: &Figures,
    before: Option<&Figures>,
) -> Vec<(&'static str, Vec<Cell>)> {
    let cell = |row: &Row| {
        let value = find(row, figures, before);
        let value = value.map_or_else(|| "-".to_owned(), |value| written(value, row.4));
        (row.1, value)
    };
    let groups = GROUPS.iter();
    groups
        .map(|(name, rows)| (*name, rows.iter().map(cell).collect()))
        .collect()
}

fn written(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Count => scaled(value, 1_000.0, &["", "k", "M", "G"]),
        Unit::Bytes => scaled(value, 1_024.0, &["B", "KiB", "MiB", "GiB", "TiB"]),
        Unit::PerSecond => format!("{}/s", scaled(value, 1_000.0, &["", "k", "M", "G"])),
        Unit::Seconds if value < 1_000.0 => format!("{value:.3}s"),
        Unit::Seconds => format!("{value:.0}s"),
        Unit::Share => format!("{:.0}%", value * 100.0),
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
            (0.0, Unit::Count, "0"),
            (9_999.0, Unit::Count, "9999"),
            (123_456.0, Unit::Count, "123.5k"),
            (3_000_000.0, Unit::PerSecond, "3.0M/s"),
            (134_217_728.0, Unit::Bytes, "128.0MiB"),
            (0.0125, Unit::Seconds, "0.013s"),
            (0.5, Unit::Share, "50%"),
        ] {
            assert_eq!(written(value, unit), wanted);
        }
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let text = "# TYPE vbstore_health gauge\n\
                    vbstore_health{state=\"open\",store=\"a\"} 1\n\
                    # TYPE vbstore_cursors_dropped_total counter\n\
                    vbstore_cursors_dropped_total{store=\"a\"} 3\n";
        let figures = Figures::parse(text, Duration::ZERO).unwrap();
        let object = object(&figures, None);
        assert_eq!(object, json!({"health": "open", "cursors_dropped": 3.0}));
        let groups = groups(&figures, None);
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
