//! Samples the number of open db snapshots every 10 ms, by our count and by RocksDB's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use vbstore::{DbSnapshotHolder, Engine, Error, HOLD_BOUNDS_MICROS, LongHold};

use super::findings::Findings;
use crate::follow::FollowControl;
use crate::number::u64_from;
use serde_json::{Value, json};

const INTERVAL: Duration = Duration::from_millis(10);

/// The results of the samples.
#[derive(Debug, Default)]
pub(super) struct DbSnapshotSamples {
    taken: u64,
    /// Samples during which no db snapshot was opened or closed, so that the two counts are of the
    /// same moment.
    settled: u64,
    /// Settled samples in which we counted a db snapshot that RocksDB had not opened yet, or had
    /// closed already.
    differed: u64,
    most_for_streams: usize,
    most_for_readers: usize,
}

/// Takes samples until `is_over` is set. An error fails the run.
pub(super) fn sample(
    engine: &Engine,
    workers: usize,
    is_over: &AtomicBool,
    control: &FollowControl,
) -> (DbSnapshotSamples, Findings) {
    let mut samples = DbSnapshotSamples::default();
    let mut findings = Findings::default();
    while !is_over.load(Ordering::Acquire) {
        if let Err(error) = take_sample(engine, workers, &mut samples, &mut findings) {
            control.fail(error);
            break;
        }
        std::thread::park_timeout(INTERVAL);
    }
    (samples, findings)
}

fn take_sample(
    engine: &Engine,
    workers: usize,
    samples: &mut DbSnapshotSamples,
    findings: &mut Findings,
) -> Result<(), Error> {
    let metrics = engine.metrics();
    let ours = &metrics.db_snapshots;
    let for_streams = ours.open_by(DbSnapshotHolder::Backfill);
    samples.taken += 1;
    samples.most_for_streams = samples.most_for_streams.max(for_streams);
    // Saturating: some may have been closed between the two reads.
    samples.most_for_readers = samples
        .most_for_readers
        .max(ours.open_now().saturating_sub(for_streams));
    if for_streams > workers {
        findings.violation(format!(
            "{for_streams} db snapshots open for backfills, but there are only {workers} workers"
        ));
    }
    // Our counts are read twice: they are of the same moment as RocksDB's only if none changed.
    let before = (ours.opened(), ours.open_now());
    let rocksdbs = engine.rocks_snapshots()?.open;
    let after = (ours.opened(), ours.open_now());
    if before != after {
        return Ok(());
    }
    samples.settled += 1;
    let counted = u64_from(after.1);
    // Our count rises before RocksDB's and falls after it. So a thread that is preempted between
    // the two shows as one too many until it runs again. At rest, both are equal.
    if counted != rocksdbs {
        samples.differed += 1;
    }
    if rocksdbs > counted {
        findings.violation(format!(
            "{counted} db snapshots counted as open, but {rocksdbs} in RocksDB"
        ));
    }
    Ok(())
}

impl DbSnapshotSamples {
    /// Returns the results of the samples, and how long db snapshots were held.
    pub(super) fn to_json(&self, engine: &Engine) -> Value {
        let metrics = engine.metrics();
        let snapshots = &metrics.db_snapshots;
        let holds = snapshots.holds();
        let all: u64 = holds.iter().sum();
        let above = |micros: u64| -> u64 {
            let first = HOLD_BOUNDS_MICROS.partition_point(|bound| *bound <= micros);
            holds.iter().skip(first).sum()
        };
        let long = snapshots.long_holds();
        // Time on the run queue is not our own: another thread or program had the processor.
        let unexplained = |limit: u128| {
            let is_own = |hold: &&LongHold| {
                let waited = hold.waited.unwrap_or_default();
                hold.held.saturating_sub(waited).as_millis() > limit
            };
            long.iter().filter(is_own).count()
        };
        json!({
            "samples": self.taken,
            "settled_samples": self.settled,
            "settled_samples_that_differ": self.differed,
            "most_open_for_streams": self.most_for_streams,
            "most_open_for_readers": self.most_for_readers,
            "opened": snapshots.opened(),
            "held": all,
            "held_above_20_ms": above(20_000),
            "held_above_100_ms": above(100_000),
            "above_20_ms_not_on_run_queue": unexplained(20),
            "above_100_ms_not_on_run_queue": unexplained(100),
            "long_holds_ms": long.iter().map(|hold| json!({
                "holder": hold.holder.name(),
                "held": hold.held.as_secs_f64() * 1_000.0,
                "on_run_queue": hold.waited.map(|waited| waited.as_secs_f64() * 1_000.0),
            })).collect::<Vec<_>>(),
            "longest_ms": snapshots.longest_hold().as_secs_f64() * 1_000.0,
        })
    }
}

/// Returns how long this thread has been runnable without running, as counted by the kernel; `None`
/// if the kernel does not report it.
pub(super) fn time_on_run_queue() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanos = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}
