//! The engine's figures against what the driver did.

use super::findings::Findings;
use super::model::Model;
use crate::follow::FollowerReport;
use crate::number::u64_from;
use vbstore::MetricsSnapshot;
use vbstore::metrics::names::{self, Metric};
use vbstore::metrics::number;

/// Everything is at rest and flushed; streams may still be open.
pub(super) fn check(
    snapshot: &MetricsSnapshot,
    models: &[Model],
    followed: &[FollowerReport],
    findings: &mut Findings,
) {
    let mut rows = of_driver(snapshot, models, findings);
    rows.extend(of_themselves(snapshot));
    for (what, figure, expected) in rows {
        if figure != Some(expected) {
            findings.violation(format!(
                "the figures say {figure:?} {what}, expected {expected}"
            ));
        }
    }
    // What was buffered when a consumer was cut was handed on, and not taken.
    let handed_on = snapshot.sum(&names::STREAM_ITEMS);
    let taken: u64 = followed.iter().map(|one| one.changes).sum();
    if handed_on < number(taken) {
        findings.violation(format!("{handed_on} changes handed on, {taken} taken"));
    }
}

/// A figure, what it is, and what it must be.
type CheckRow = (&'static str, Option<f64>, f64);

/// Figures that the driver knows too.
fn of_driver(snapshot: &MetricsSnapshot, models: &[Model], findings: &Findings) -> Vec<CheckRow> {
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

/// Figures that must agree with each other.
fn of_themselves(snapshot: &MetricsSnapshot) -> Vec<CheckRow> {
    let value = |metric: &Metric| snapshot.value(metric);
    let kept = |metric: &Metric| value(metric).unwrap_or(-1.0);
    let sum = |metric: &Metric| snapshot.sum(metric);
    let persisted = kept(&names::WRITTEN_ITEMS) - kept(&names::CHECKPOINT_ITEMS_REPLACED);
    let opened = sum(&names::DB_SNAPSHOTS_OPENED);
    let streams = kept(&names::STREAMS_OPENED) - sum(&names::STREAMS_CLOSED);
    let backfills = kept(&names::BACKFILLS_STARTED) - sum(&names::BACKFILL_TASKS);
    vec![
        ("changes persisted", value(&names::PERSIST_ITEMS), persisted),
        ("unpersisted", value(&names::PERSIST_LAG_ITEMS), 0.0),
        ("unsynced", value(&names::SYNC_LAG_SEQNOS), 0.0),
        (
            "db snapshots closed",
            Some(sum(&names::DB_SNAPSHOTS_CLOSED)),
            opened,
        ),
        ("holds", Some(sum(&names::DB_SNAPSHOT_HOLD)), opened),
        (
            "db snapshots open",
            Some(sum(&names::DB_SNAPSHOTS_OPEN)),
            0.0,
        ),
        ("of RocksDB's", value(&names::ROCKS_SNAPSHOTS_OPEN), 0.0),
        ("streams open", Some(sum(&names::STREAMS_OPEN)), streams),
        ("backfills over", value(&names::BACKFILLS_ENDED), backfills),
    ]
}
