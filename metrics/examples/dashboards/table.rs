//! The panels of the dashboards. In expressions, `$S` stands for the label matchers that select the
//! store, and `$R` for the range of rates.

/// A row of panels.
pub(crate) struct Row {
    pub(crate) title: &'static str,
    pub(crate) panels: &'static [Panel],
}

/// A graph.
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    /// Grafana's name of the unit.
    pub(crate) unit: &'static str,
    /// Expressions and the legends of their lines; `{{label}}` is replaced.
    pub(crate) lines: &'static [(&'static str, &'static str)],
    /// Whether the panel may have no data although everything works.
    pub(crate) may_be_empty: bool,
}

const fn panel(
    title: &'static str,
    unit: &'static str,
    lines: &'static [(&'static str, &'static str)],
) -> Panel {
    Panel {
        title,
        unit,
        lines,
        may_be_empty: false,
    }
}

pub(crate) const ROWS: &[Row] = &[
    Row {
        title: "Db snapshots",
        panels: &[
            panel(
                "Open db snapshots",
                "short",
                &[
                    (
                        "sum by (holder) (vbstore_db_snapshots_open{$S})",
                        "{{holder}}",
                    ),
                    ("sum(vbstore_rocksdb_snapshots_open{$S})", "RocksDB's count"),
                ],
            ),
            panel(
                "Age of the oldest db snapshot",
                "s",
                &[("max(vbstore_db_snapshot_oldest_age_seconds{$S})", "oldest")],
            ),
            panel(
                "Hold time",
                "s",
                &[
                    (
                        "histogram_quantile(0.5, sum by (le) (rate(vbstore_db_snapshot_hold_seconds_bucket{$S}[$R])))",
                        "p50",
                    ),
                    (
                        "histogram_quantile(0.99, sum by (le) (rate(vbstore_db_snapshot_hold_seconds_bucket{$S}[$R])))",
                        "p99",
                    ),
                ],
            ),
            panel(
                "Pinned data files",
                "bytes",
                &[(
                    "sum(vbstore_rocksdb_obsolete_sst_bytes{$S})",
                    "needed only by old snapshots",
                )],
            ),
        ],
    },
    Row {
        title: "Cursors and streams",
        panels: &[
            panel(
                "Largest cursor lag",
                "short",
                &[(
                    "max by (kind) (vbstore_cursor_max_lag_items{$S})",
                    "{{kind}}, items",
                )],
            ),
            panel(
                "Largest cursor lag in seconds",
                "s",
                &[(
                    "max by (kind) (vbstore_cursor_max_lag_seconds{$S})",
                    "{{kind}}",
                )],
            ),
            panel(
                "Largest cursor lag in bytes",
                "bytes",
                &[(
                    "max by (kind) (vbstore_cursor_max_lag_bytes{$S})",
                    "{{kind}}",
                )],
            ),
            panel(
                "Streams",
                "short",
                &[
                    ("sum by (state) (vbstore_streams{$S})", "{{state}}"),
                    ("sum(vbstore_cursors{$S, kind=\"stream\"})", "with a cursor"),
                    ("sum(vbstore_readers{$S})", "in progress"),
                ],
            ),
            panel(
                "Largest backlog of a stream",
                "short",
                &[("max(vbstore_reader_max_lag_seqnos{$S})", "seqnos")],
            ),
            panel(
                "Longest idle time of a consumer",
                "s",
                &[("max(vbstore_reader_max_idle_seconds{$S})", "idle")],
            ),
            panel(
                "Changes read for streams",
                "ops",
                &[(
                    "sum by (source) (rate(vbstore_stream_items_total{$S}[$R]))",
                    "from {{source}}",
                )],
            ),
            panel(
                "Bytes read for streams",
                "Bps",
                &[(
                    "sum by (source) (rate(vbstore_stream_bytes_total{$S}[$R]))",
                    "from {{source}}",
                )],
            ),
            panel(
                "Cursors dropped, streams returned to disk",
                "ops",
                &[
                    (
                        "sum(rate(vbstore_cursors_dropped_total{$S}[$R]))",
                        "cursors dropped",
                    ),
                    (
                        "sum(rate(vbstore_stream_fallbacks_total{$S}[$R]))",
                        "back to disk",
                    ),
                    (
                        "sum(rate(vbstore_rollbacks_required_total{$S}[$R]))",
                        "rollbacks",
                    ),
                ],
            ),
        ],
    },
    Row {
        title: "Backfills",
        panels: &[
            panel(
                "Backfills",
                "short",
                &[
                    ("sum by (state) (vbstore_backfill_tasks{$S})", "{{state}}"),
                    ("sum(vbstore_backfill_tasks_limit{$S})", "limit"),
                ],
            ),
            panel(
                "Slices",
                "ops",
                &[
                    (
                        "sum by (end) (rate(vbstore_backfill_slices_total{$S}[$R]))",
                        "{{end}}",
                    ),
                    (
                        "sum(rate(vbstore_backfill_slices_shared_total{$S}[$R]))",
                        "shared",
                    ),
                ],
            ),
            panel(
                "Duration of a slice",
                "s",
                &[
                    (
                        "histogram_quantile(0.5, sum by (le) (rate(vbstore_backfill_slice_seconds_bucket{$S}[$R])))",
                        "p50",
                    ),
                    (
                        "histogram_quantile(0.99, sum by (le) (rate(vbstore_backfill_slice_seconds_bucket{$S}[$R])))",
                        "p99",
                    ),
                ],
            ),
            panel(
                "Duration of a backfill",
                "s",
                &[
                    (
                        "histogram_quantile(0.99, sum by (le) (rate(vbstore_backfill_first_item_seconds_bucket{$S}[$R])))",
                        "to its first delivery, p99",
                    ),
                    (
                        "histogram_quantile(0.99, sum by (le) (rate(vbstore_backfill_duration_seconds_bucket{$S}[$R])))",
                        "to its end, p99",
                    ),
                    (
                        "histogram_quantile(0.99, sum by (le) (rate(vbstore_backfill_queue_wait_seconds_bucket{$S}[$R])))",
                        "waiting for a worker, p99",
                    ),
                ],
            ),
            panel(
                "Buffers",
                "bytes",
                &[
                    ("sum(vbstore_backfill_buffer_bytes{$S})", "read, not taken"),
                    ("sum(vbstore_backfill_buffer_limit_bytes{$S})", "limit"),
                ],
            ),
        ],
    },
    Row {
        title: "Writing",
        panels: &[
            panel(
                "Operations",
                "ops",
                &[("sum by (op) (rate(vbstore_ops_total{$S}[$R]))", "{{op}}")],
            ),
            panel(
                "Wait for durability, p99",
                "s",
                &[(
                    "histogram_quantile(0.99, sum by (durability, le) (rate(vbstore_durable_wait_seconds_bucket{$S}[$R])))",
                    "{{durability}}",
                )],
            ),
            panel(
                "Duration of reads, p99",
                "s",
                &[(
                    "histogram_quantile(0.99, sum by (op, le) (rate(vbstore_read_seconds_bucket{$S}[$R])))",
                    "{{op}}",
                )],
            ),
            panel(
                "Changes in one group commit",
                "short",
                &[(
                    "sum(rate(vbstore_persist_items_total{$S}[$R])) / sum(rate(vbstore_persist_batches_total{$S}[$R]))",
                    "mean",
                )],
            ),
            panel(
                "Syncs",
                "s",
                &[(
                    "sum(rate(vbstore_persist_sync_seconds_sum{$S}[$R])) / sum(rate(vbstore_persist_sync_seconds_count{$S}[$R]))",
                    "mean",
                )],
            ),
            panel(
                "Age of changes not yet durable",
                "s",
                &[
                    (
                        "max(vbstore_persist_max_lag_seconds{$S})",
                        "oldest unpersisted",
                    ),
                    ("max(vbstore_sync_max_lag_seconds{$S})", "unsynced for"),
                ],
            ),
            panel(
                "Refused writes and failed flushes",
                "ops",
                &[
                    (
                        "sum by (reason) (rate(vbstore_writes_rejected_total{$S}[$R]))",
                        "refused: {{reason}}",
                    ),
                    (
                        "sum(rate(vbstore_persist_failures_total{$S}[$R]))",
                        "flushes failed",
                    ),
                ],
            ),
        ],
    },
    Row {
        title: "Memory and disk",
        panels: &[
            panel(
                "Memory of recent changes",
                "bytes",
                &[
                    ("sum(vbstore_checkpoint_memory_bytes{$S})", "checkpoints"),
                    ("sum(vbstore_checkpoint_memory_limit_bytes{$S})", "quota"),
                ],
            ),
            panel(
                "RocksDB's memory",
                "bytes",
                &[
                    ("sum(vbstore_rocksdb_write_buffer_bytes{$S})", "memtables"),
                    ("sum(vbstore_rocksdb_block_cache_bytes{$S})", "block cache"),
                ],
            ),
            panel(
                "Disk",
                "bytes",
                &[
                    ("sum(vbstore_rocksdb_disk_bytes{$S})", "all"),
                    ("sum(vbstore_rocksdb_live_sst_bytes{$S})", "live data files"),
                    ("sum(vbstore_rocksdb_log_bytes{$S})", "log"),
                ],
            ),
            panel(
                "Data files by level",
                "short",
                &[(
                    "sum by (level) (vbstore_rocksdb_sst_files{$S})",
                    "L{{level}}",
                )],
            ),
            panel(
                "Compactions",
                "bytes",
                &[(
                    "sum(vbstore_rocksdb_pending_compaction_bytes{$S})",
                    "pending",
                )],
            ),
            panel(
                "Bytes written by log, flushes and compactions",
                "Bps",
                &[
                    (
                        "sum(rate(vbstore_rocksdb_log_written_bytes_total{$S}[$R]))",
                        "log",
                    ),
                    (
                        "sum(rate(vbstore_rocksdb_flushed_bytes_total{$S}[$R]))",
                        "flushes",
                    ),
                    (
                        "sum(rate(vbstore_rocksdb_compaction_written_bytes_total{$S}[$R]))",
                        "compactions",
                    ),
                ],
            ),
            panel(
                "Seeks past many versions of a key",
                "ops",
                &[(
                    "sum(rate(vbstore_rocksdb_reseeks_total{$S}[$R]))",
                    "a sign of a held snapshot",
                )],
            ),
            panel(
                "Documents",
                "short",
                &[
                    ("sum(vbstore_items{$S})", "documents"),
                    ("sum(vbstore_tombstones{$S})", "tombstones"),
                ],
            ),
        ],
    },
    Row {
        title: "Metrics collection",
        panels: &[
            panel(
                "Collecting",
                "s",
                &[("max by (part) (vbstore_collector_seconds{$S})", "{{part}}")],
            ),
            panel(
                "Health",
                "short",
                &[("max by (state) (vbstore_health{$S})", "{{state}}")],
            ),
            Panel {
                title: "Age of RocksDB's oldest snapshot",
                unit: "short",
                lines: &[(
                    "max(vbstore_rocksdb_oldest_snapshot_sequence_lag{$S})",
                    "writes",
                )],
                may_be_empty: true,
            },
        ],
    },
];
