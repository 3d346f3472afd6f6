//! `stress`: writers that check what they read, slices all the while, then open again and compare.

mod findings;
mod slicer;
mod value;
mod writer;

use crate::args;
use crate::output::{DONE, Failure, Out, PROBLEM, Run, progress};
use crate::stop::Stop;
use crate::{store, verify};
use findings::Findings;
use serde_json::{Value, json};
use slicer::Slicer;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Builder, ScopedJoinHandle};
use std::time::Duration;
use vbstore::{Clock, Engine, Error, SystemClock, Verification};
use writer::{Model, Writer, difference};

/// How often the progress is shown and the clock looked at.
const TICK: Duration = Duration::from_millis(100);

pub(crate) fn run(args: &args::Stress, out: &mut Out, stop: &Stop) -> Run {
    let engine = store::open_or_create(&args.dir, Some(args.vbuckets))?;
    if store::vbuckets(&engine, None)?
        .iter()
        .any(|vb| vb.seqnos().is_ok_and(|s| s.high.get() > 0))
    {
        return Err(Failure::usage(
            "the store is not empty: stress must know all that is in it",
        ));
    }
    let (mut findings, models, seconds) = churn(&engine, args, stop)?;
    check_rest(&engine, &mut findings);
    let longest = engine.metrics().db_snapshots.longest_hold();
    engine.close()?;
    drop(engine);

    let engine = store::open(&args.dir)?;
    let lost = compare(&engine, &models, &mut findings)?;
    let verification = verify::all(&engine)?;
    check_counts(&verification, &models, &mut findings);
    check_rest(&engine, &mut findings);
    let space = engine.disk_usage()?;
    engine.close()?;

    let is_ok = lost == 0 && findings.violations == 0 && verification.is_ok();
    let report = json!({
        "ok": is_ok,
        "version": env!("CARGO_PKG_VERSION"),
        "seed": args.seed,
        "seconds": seconds,
        "writers": args.writers,
        "slicers": args.slicers,
        "vbuckets": args.vbuckets,
        "operations": findings.operation_count(),
        "lost": lost,
        "violations": findings.violations,
        "violation_examples": findings.examples,
        "worst_db_snapshot_age_ms": longest.as_secs_f64() * 1_000.0,
        "slices": findings.slices,
        "slice_items": findings.slice_items,
        "items": verification.items,
        "tombstones": verification.tombstones,
        "space_bytes": space.total,
        "verify_ok": verification.is_ok(),
        "verify": verify::object(&verification, verification.is_ok()),
        "latencies": findings.latencies(),
    });
    tell(args, out, &report, is_ok)?;
    Ok(if is_ok { DONE } else { PROBLEM })
}

/// Writes and reads until the time is over; returns what was found, what must be there, and how
/// long it took.
fn churn(
    engine: &Engine,
    args: &args::Stress,
    stop: &Stop,
) -> Result<(Findings, Vec<Model>, f64), Failure> {
    let is_over = AtomicBool::new(false);
    let steps = AtomicU64::new(0);
    let clock = SystemClock::new();
    let mut findings = Findings::default();
    let mut models = Vec::new();
    std::thread::scope(|scope| -> Result<(), Failure> {
        let (is_over, steps) = (&is_over, &steps);
        let mut writers: Vec<ScopedJoinHandle<'_, (Writer<'_>, Option<Error>)>> = Vec::new();
        for number in 0..args.writers {
            let mut writer = Writer::new(engine, args, number);
            let work = move || {
                let error = until(is_over, steps, || writer.step());
                (writer, error)
            };
            writers.push(
                Builder::new()
                    .name(format!("writer-{number}"))
                    .spawn_scoped(scope, work)?,
            );
        }
        let mut slicers: Vec<ScopedJoinHandle<'_, (Slicer<'_>, Option<Error>)>> = Vec::new();
        for number in 0..args.slicers {
            let mut slicer = Slicer::new(engine, number);
            let work = move || {
                let error = until(is_over, &AtomicU64::new(0), || slicer.step());
                (slicer, error)
            };
            slicers.push(
                Builder::new()
                    .name(format!("slicer-{number}"))
                    .spawn_scoped(scope, work)?,
            );
        }
        show_progress(engine, args, stop, steps, &clock);
        is_over.store(true, Ordering::Release);
        for writer in writers {
            let (writer, error) = writer
                .join()
                .map_err(|_| Failure::new(PROBLEM, "panic", "a writer panicked"))?;
            findings.add(writer.findings);
            models.push(writer.model);
            note_error(&mut findings, error);
        }
        for slicer in slicers {
            let (slicer, error) = slicer
                .join()
                .map_err(|_| Failure::new(PROBLEM, "panic", "a slicer panicked"))?;
            findings.add(slicer.findings);
            note_error(&mut findings, error);
        }
        Ok(())
    })?;
    Ok((findings, models, clock.monotonic().as_secs_f64()))
}

fn until(
    is_over: &AtomicBool,
    steps: &AtomicU64,
    mut step: impl FnMut() -> Result<(), Error>,
) -> Option<Error> {
    while !is_over.load(Ordering::Acquire) {
        if let Err(error) = step() {
            return Some(error);
        }
        steps.fetch_add(1, Ordering::Relaxed);
    }
    None
}

fn note_error(findings: &mut Findings, error: Option<Error>) {
    if let Some(error) = error {
        findings.violation(format!("a thread ended with: {error}"));
    }
}

/// Waits until the time is over or a signal has come.
fn show_progress(
    engine: &Engine,
    args: &args::Stress,
    stop: &Stop,
    steps: &AtomicU64,
    clock: &SystemClock,
) {
    let bar = progress();
    let end = Duration::from_secs(args.seconds);
    loop {
        let now = clock.monotonic();
        if now >= end || stop.is_asked() {
            break;
        }
        std::thread::park_timeout(TICK.min(end.saturating_sub(now)));
        bar.set_message(format!(
            "{} s of {}, {} operations, {} MB in memory, {} db snapshots open",
            now.as_secs(),
            args.seconds,
            steps.load(Ordering::Relaxed),
            engine.checkpoint_memory() >> 20,
            engine.metrics().db_snapshots.open_now(),
        ));
        bar.tick();
    }
    bar.finish_and_clear();
}

/// With every thread gone no db snapshot is open, by our count and by RocksDB's.
fn check_rest(engine: &Engine, findings: &mut Findings) {
    let ours = engine.metrics().db_snapshots.open_now();
    let rocksdbs = engine.rocks_snapshots().map(|snapshots| snapshots.open);
    if ours != 0 || !matches!(rocksdbs, Ok(0)) {
        findings.violation(format!(
            "db snapshots open at rest: {ours}, RocksDB says {rocksdbs:?}"
        ));
    }
}

/// Returns how many keys do not hold what was acknowledged.
fn compare(engine: &Engine, models: &[Model], findings: &mut Findings) -> Result<u64, Failure> {
    let mut lost: u64 = 0;
    for (key, expected) in models.iter().flatten() {
        let found = engine.for_key(key).get(key)?;
        if let Some(wrong) = difference(key, Some(expected), found.as_ref()) {
            lost = lost.saturating_add(1);
            findings.violation(format!("after opening again: {wrong}"));
        }
    }
    Ok(lost)
}

/// There are as many keys and tombstones as the writers know of, and no other.
fn check_counts(found: &Verification, models: &[Model], findings: &mut Findings) {
    let of = |is_live: bool| {
        let keys = models.iter().flat_map(|model| model.values());
        let count = keys
            .filter(|expected| expected.version.is_some() == is_live)
            .count();
        u64::try_from(count).unwrap_or(u64::MAX)
    };
    if (found.items, found.tombstones) != (of(true), of(false)) {
        findings.violation(format!(
            "{} items and {} tombstones, expected {} and {}",
            found.items,
            found.tombstones,
            of(true),
            of(false)
        ));
    }
}

fn tell(args: &args::Stress, out: &mut Out, report: &Value, is_ok: bool) -> Result<(), Failure> {
    if let Some(Some(file)) = &args.json {
        std::fs::write(file, format!("{report:#}\n"))?;
    }
    if out.is_json {
        return out.line(report);
    }
    let number = |name: &str| report.get(name).cloned().unwrap_or_default();
    for example in report
        .get("violation_examples")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        out.line(format_args!(
            "violation: {}",
            example.as_str().unwrap_or_default()
        ))?;
    }
    out.line(format_args!(
        "{}: {} operations in {:.1} s, {} lost, {} violations, {} slices, worst db snapshot age {:.1} ms",
        if is_ok { "ok" } else { "NOT OK" },
        number("operations"),
        number("seconds").as_f64().unwrap_or_default(),
        number("lost"),
        number("violations"),
        number("slices"),
        number("worst_db_snapshot_age_ms").as_f64().unwrap_or_default(),
    ))
}
