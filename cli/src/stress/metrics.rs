//! Checks the engine's metrics against the operations of the writers.

use super::findings::Findings;
use super::model::Model;
use crate::follow::FollowerReport;
use crate::number::u64_from;
use vbstore::MetricsSnapshot;
use vbstore::metrics::names::{self, Metric};
use vbstore::metrics::number;

/// Checks metrics that were taken after all threads ended and everything was flushed. Streams may
/// still be open.
pub(super) fn check(
    snapshot: &MetricsSnapshot,
    models: &[Model],
    followed: &[FollowerReport],
    findings: &mut Findings,
) {
    let mut rows = driver_rows(snapshot, models, findings);
    rows.extend(consistency_rows(snapshot));
    for (what, value, expected) in rows {
        if value != Some(expected) {
            findings.violation(format!("metrics: {what}: {value:?}, expected {expected}"));
        }
    }
    // At least, not exactly: a disconnected consumer does not take the changes in its buffer.
    let delivered = snapshot.sum(&names::STREAM_ITEMS);
    let taken: u64 = followed.iter().map(|one| one.changes).sum();
    if delivered < number(taken) {
        findings.violation(format!(
            "metrics: streams delivered {delivered} changes, but followers took {taken}"
        ));
    }
}

/// The name of a value, the value, and the expected value.
type CheckRow = (&'static str, Option<f64>, f64);

/// Returns the values that the writers know too.
fn driver_rows(snapshot: &MetricsSnapshot, models: &[Model], findings: &Findings) -> Vec<CheckRow> {
    let done = findings.done;
    let of = |op| snapshot.value_by(&names::OPS, &[("op", op)]);
    let value = |metric: &Metric| snapshot.value(metric);
    let count = |is_live: bool| {
        let keys = models.iter().flat_map(|model| model.values());
        let keys = keys.filter(|expected| expected.version.is_some() == is_live);
        number(u64_from(keys.count()))
    };
    vec![
        ("writes", of("write"), number(done.writes)),
        ("gets", of("get"), number(done.gets)),
        ("pages", of("page"), number(done.pages)),
        ("slices", of("slice"), number(findings.slices)),
        (
            "changes",
            value(&names::WRITTEN_ITEMS),
            number(done.changes),
        ),
        ("documents", value(&names::ITEMS), count(true)),
        ("tombstones", value(&names::TOMBSTONES), count(false)),
    ]
}

/// Returns the values that must agree with other metrics.
fn consistency_rows(snapshot: &MetricsSnapshot) -> Vec<CheckRow> {
    let value = |metric: &Metric| snapshot.value(metric);
    let kept = |metric: &Metric| value(metric).unwrap_or(-1.0);
    let sum = |metric: &Metric| snapshot.sum(metric);
    let persisted = kept(&names::WRITTEN_ITEMS) - kept(&names::CHECKPOINT_ITEMS_REPLACED);
    let opened = sum(&names::DB_SNAPSHOTS_OPENED);
    let streams = kept(&names::STREAMS_OPENED) - sum(&names::STREAMS_CLOSED);
    let backfills = kept(&names::BACKFILLS_STARTED) - sum(&names::BACKFILL_TASKS);
    vec![
        ("changes persisted", value(&names::PERSIST_ITEMS), persisted),
        (
            "changes not persisted",
            value(&names::PERSIST_LAG_ITEMS),
            0.0,
        ),
        ("changes not synced", value(&names::SYNC_LAG_SEQNOS), 0.0),
        (
            "db snapshots closed",
            Some(sum(&names::DB_SNAPSHOTS_CLOSED)),
            opened,
        ),
        (
            "holds of db snapshots",
            Some(sum(&names::DB_SNAPSHOT_HOLD)),
            opened,
        ),
        (
            "db snapshots open",
            Some(sum(&names::DB_SNAPSHOTS_OPEN)),
            0.0,
        ),
        (
            "db snapshots open in RocksDB",
            value(&names::ROCKS_SNAPSHOTS_OPEN),
            0.0,
        ),
        ("streams open", Some(sum(&names::STREAMS_OPEN)), streams),
        ("backfills ended", value(&names::BACKFILLS_ENDED), backfills),
    ]
}
