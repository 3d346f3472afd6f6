//! Looks at the open db snapshots every 10 ms, at RocksDB's count of them too, and at the disk.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use vbstore::{DbSnapshotHolder, Engine, Error, HOLD_BOUNDS_MICROS, LongHold};

use super::findings::Findings;
use crate::follow::FollowControl;
use crate::number::u64_from;
use serde_json::{Value, json};

const INTERVAL: Duration = Duration::from_millis(10);

/// What was seen of db snapshots.
#[derive(Debug, Default)]
pub(super) struct DbSnapshotSamples {
    taken: u64,
    /// Samples in which nothing was opened or closed between two looks, so that both counts speak
    /// of the same.
    settled: u64,
    /// Of these, how many found one counted that RocksDB had not opened yet, or closed already.
    differed: u64,
    most_for_streams: usize,
    most_for_readers: usize,
}

/// Samples until it is over. An error fails the run.
pub(super) fn sample(
    engine: &Engine,
    workers: usize,
    is_over: &AtomicBool,
    signals: &FollowControl,
) -> (DbSnapshotSamples, Findings) {
    let mut samples = DbSnapshotSamples::default();
    let mut findings = Findings::default();
    while !is_over.load(Ordering::Acquire) {
        if let Err(error) = look(engine, workers, &mut samples, &mut findings) {
            signals.fail(error);
            break;
        }
        std::thread::park_timeout(INTERVAL);
    }
    (samples, findings)
}

fn look(
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
    // Some may have been closed since they were counted.
    samples.most_for_readers = samples
        .most_for_readers
        .max(ours.open_now().saturating_sub(for_streams));
    if for_streams > workers {
        findings.violation(format!("{for_streams} db snapshots for {workers} workers"));
    }
    // Taken twice: the counts are of the same moment only if nothing changed in between.
    let before = (ours.opened(), ours.open_now());
    let rocksdbs = engine.rocks_snapshots()?.open;
    let after = (ours.opened(), ours.open_now());
    if before != after {
        return Ok(());
    }
    samples.settled += 1;
    let counted = u64_from(after.1);
    // Ours is raised before RocksDB's and lowered after it. A thread that loses its processor just
    // between the two shows as one too many, and for as long as it waits; at rest they are equal.
    if counted != rocksdbs {
        samples.differed += 1;
    }
    if rocksdbs > counted {
        findings.violation(format!(
            "{counted} db snapshots open, RocksDB says {rocksdbs}"
        ));
    }
    Ok(())
}

impl DbSnapshotSamples {
    /// What was seen, and how long db snapshots were held.
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
        // Time on the run queue is what another program, or another thread, took.
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

/// Returns how long this thread has been runnable without running, as the kernel counts it.
pub(super) fn time_on_run_queue() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanos = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}
