//! `stress`: writes, reads slices and follows streams under load, and checks every answer. Then
//! reopens the store and compares it with the acknowledged writes.

mod findings;
mod metrics;
mod model;
mod sampler;
mod slicer;
mod value;
mod writer;

use crate::args;
use crate::exporting::{Listen, RunningExporter};
use crate::follow::{self, FinishOnDrop, FollowControl, FollowerReport, Journal};
use crate::number::u64_from;
use crate::output::{CommandError, CommandResult, DONE, Output, PROBLEM, info, progress};
use crate::stop::StopFlag;
use crate::{store, verify};
use findings::Findings;
use model::{Model, difference};
use sampler::DbSnapshotSamples;
use serde_json::{Value, json};
use slicer::StressSlicer;
use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Builder, Scope, ScopedJoinHandle};
use std::time::Duration;
use vbstore::metrics::names;
use vbstore::{
    Clock, Engine, Error, MetricsSnapshot, Streams, StreamsConfig, SystemClock, VbId, Verification,
};
use writer::StressWriter;

/// How often the progress is shown and the end of the run checked for.
const TICK: Duration = Duration::from_millis(100);

pub(crate) fn run(args: &args::StressArgs, out: &mut Output, stop: &StopFlag) -> CommandResult {
    let file = report_file(args)?;
    let listen = Listen::resolve(&args.serving)?;
    let engine = store::open_or_create(&args.dir, Some(args.vbuckets))?;
    if store::vbuckets(&engine, None)?
        .iter()
        .any(|vb| vb.seqnos().is_ok_and(|s| s.high.get() > 0))
    {
        return Err(CommandError::usage(format!(
            "the store {} is not empty: stress needs an empty one, to know all its contents",
            args.dir.display()
        )));
    }
    let mut tuning = engine.tuning();
    tuning.memory_quota = args.memory_mib << 20;
    engine.set_tuning(tuning)?;
    let metrics = engine.metrics();
    let snapshots = &metrics.db_snapshots;
    snapshots.measure_waiting(sampler::time_on_run_queue);
    let RunOutcome {
        mut findings,
        models,
        seconds,
        followed,
        samples,
        metrics,
    } = churn(&engine, args, listen.as_ref(), stop)?;
    check_rest(&engine, &mut findings);
    check_followed(&engine, &followed, &mut findings)?;
    metrics::check(&metrics, &models, &followed, &mut findings);
    let longest = engine.metrics().db_snapshots.longest_hold();
    let snapshots = samples.to_json(&engine);
    let cursors_dropped = engine.metrics().cursors_dropped.get();
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
        "refused": findings.done.refused,
        "space_bytes": space.total,
        "db_snapshots": snapshots,
        "streams": streams_report(args, &followed, &metrics, cursors_dropped),
        "verify_ok": verification.is_ok(),
        "verify": verify::object(&verification, verification.is_ok()),
        "latencies": findings.latencies(),
    });
    print_report(args, file, out, &report, is_ok)?;
    Ok(if is_ok { DONE } else { PROBLEM })
}

/// The outcome of a run.
struct RunOutcome {
    findings: Findings,
    /// The expected contents of the store, by writer.
    models: Vec<Model>,
    seconds: f64,
    followed: Vec<FollowerReport>,
    samples: DbSnapshotSamples,
    /// The engine's metrics after all threads have ended.
    metrics: MetricsSnapshot,
}

/// Writes, reads and follows until the time is over, then waits until the followers have caught up.
/// The first error of any thread ends the run.
fn churn(
    engine: &Engine,
    args: &args::StressArgs,
    listen: Option<&Listen>,
    stop: &StopFlag,
) -> Result<RunOutcome, CommandError> {
    let is_over = AtomicBool::new(false);
    let is_sampled = AtomicBool::new(false);
    let control = FollowControl::default();
    let journal = (args.follow.streams > 0).then(|| Journal::new(engine.vbuckets()));
    let default = StreamsConfig::default();
    let config = StreamsConfig {
        workers: usize::from(args.workers),
        workers_nice: args.workers_nice.unwrap_or(default.workers_nice),
        ..default
    };
    let streams = Streams::start(engine, &config)?;
    // Started after the streams, so that their metrics are served from the first scrape on, and
    // dropped before them.
    let exporter = RunningExporter::start(listen, &args.serving, engine)?;
    let (steps, slicer_steps) = (AtomicU64::new(0), AtomicU64::new(0));
    let clock = SystemClock::new();
    let mut findings = Findings::default();
    let mut models = Vec::new();
    let (followed, samples) = std::thread::scope(|scope| {
        let (is_over, steps, is_sampled, control) = (&is_over, &steps, &is_sampled, &control);
        let ending = FinishOnDrop::new(control, is_over);
        let sampler_ending = FinishOnDrop::new(control, is_sampled);
        let workers = config.workers;
        let sample = move || sampler::sample(engine, workers, is_sampled, control);
        let thread = Builder::new().name("sampler".to_owned());
        let sampling = thread.spawn_scoped(scope, sample)?;
        let vbuckets = engine.vbuckets();
        let vb_of = |number: u16| vec![VbId::new(number % vbuckets)];
        let (follow, journal) = (&args.follow, journal.as_ref());
        let followers = follow::start(scope, &streams, follow, args.seed, control, journal, vb_of)?;
        let pace = RunControl { is_over, control };
        let mut writers = Vec::new();
        for number in 0..args.writers {
            let writer = StressWriter::new(engine, args, number, journal);
            let name = format!("writer-{number}");
            writers.push(spawn(scope, name, writer, StressWriter::step, pace, steps)?);
        }
        let mut slicers = Vec::new();
        for number in 0..args.slicers {
            let slicer = StressSlicer::new(engine, number);
            let name = format!("slicer-{number}");
            let slice = StressSlicer::step;
            slicers.push(spawn(scope, name, slicer, slice, pace, &slicer_steps)?);
        }
        show_progress(engine, args, stop, steps, &clock, control);
        is_over.store(true, Ordering::Release);
        for thread in writers {
            let writer = join(thread)?;
            findings.add(writer.findings);
            models.push(writer.model);
        }
        for thread in slicers {
            findings.add(join(thread)?.findings);
        }
        // Streams deliver only synced changes: without this flush the followers would never finish.
        if let Err(error) = engine.flush() {
            control.fail(error);
        }
        drop(ending);
        let followed = followers.join();
        // Not earlier: backfills open db snapshots until the followers have caught up.
        drop(sampler_ending);
        let (samples, found) = join(sampling)?;
        findings.add(found);
        Ok::<_, CommandError>((followed?, samples))
    })?;
    check_failure(&control, &findings)?;
    let metrics = settled(&streams)?;
    drop((exporter, streams));
    Ok(RunOutcome {
        findings,
        models,
        seconds: clock.monotonic().as_secs_f64(),
        followed,
        samples,
        metrics,
    })
}

/// Returns the metrics when no backfill is running, or after 10 s. A worker may have delivered the
/// last batch but not yet ended its backfill.
fn settled(streams: &Streams) -> Result<MetricsSnapshot, CommandError> {
    let clock = SystemClock::new();
    loop {
        let metrics = streams.metrics_snapshot()?;
        let is_over = clock.monotonic() > Duration::from_secs(10);
        if metrics.sum(&names::BACKFILL_TASKS) == 0.0 || is_over {
            // Sampled again: in this snapshot, the engine's metrics are older than those of the
            // queues.
            return Ok(streams.metrics_snapshot()?);
        }
        std::thread::park_timeout(TICK);
    }
}

/// Checks that every follower has the contents of the store and found no violation.
fn check_followed(
    engine: &Engine,
    followed: &[FollowerReport],
    findings: &mut Findings,
) -> Result<(), CommandError> {
    for one in followed {
        for wrong in &one.wrong {
            findings.violation(wrong.clone());
        }
        // Those that the follower counted but did not describe.
        findings.violations += one.wrong_count - u64_from(one.wrong.len());
    }
    for wrong in follow::compare(engine, followed)? {
        findings.violation(wrong);
    }
    Ok(())
}

fn streams_report(
    args: &args::StressArgs,
    followed: &[FollowerReport],
    metrics: &MetricsSnapshot,
    cursors_dropped: u64,
) -> Value {
    let items = |source| metrics.value_by(&names::STREAM_ITEMS, &[("source", source)]);
    let sum = |of: fn(&FollowerReport) -> u64| {
        let sum: u64 = followed.iter().map(of).sum();
        sum
    };
    json!({
        "streams": args.follow.streams,
        "frozen": args.follow.frozen,
        "slow": args.follow.slow,
        "events": sum(|one| one.events),
        "complete_markers_compared": sum(|one| one.compared),
        "reconnects": sum(|one| one.reconnects),
        "stayed_away": sum(|one| one.stayed_away),
        "forgot": sum(|one| one.forgot),
        "items_from_disk": items("disk"),
        "items_from_memory": items("memory"),
        "backfills": metrics.value(&names::BACKFILLS_STARTED),
        "slices": metrics.sum(&names::BACKFILL_SLICES),
        "slices_shared": metrics.value(&names::BACKFILL_SLICES_SHARED),
        "cursors_dropped": cursors_dropped,
    })
}

/// Returns the error of a failed run. Before that, prints the violations so far on standard error,
/// because a failed run has no report.
fn check_failure(control: &FollowControl, findings: &Findings) -> Result<(), CommandError> {
    let checked = control.check();
    if checked.is_err() {
        for example in &findings.examples {
            info(format_args!("violation: {example}"));
        }
    }
    checked
}

/// Ends the threads of a run, and collects their errors.
#[derive(Clone, Copy)]
struct RunControl<'a> {
    is_over: &'a AtomicBool,
    control: &'a FollowControl,
}

/// Starts a thread that calls `step` until the run is over. A step that fails, fails the run.
fn spawn<'scope, W: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: String,
    mut worker: W,
    step: impl Fn(&mut W) -> Result<(), Error> + Send + 'scope,
    pace: RunControl<'scope>,
    steps: &'scope AtomicU64,
) -> std::io::Result<ScopedJoinHandle<'scope, W>> {
    Builder::new().name(name).spawn_scoped(scope, move || {
        while !pace.is_over.load(Ordering::Acquire) {
            if let Err(error) = step(&mut worker) {
                pace.control.fail(error);
                break;
            }
            steps.fetch_add(1, Ordering::Relaxed);
        }
        worker
    })
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> Result<T, CommandError> {
    let name = thread.thread().name().unwrap_or("a thread").to_owned();
    let panicked = |_| CommandError::new(PROBLEM, "panic", format!("{name} panicked"));
    thread.join().map_err(panicked)
}

/// Waits until the time is over, a signal has come or the run has failed.
fn show_progress(
    engine: &Engine,
    args: &args::StressArgs,
    stop: &StopFlag,
    steps: &AtomicU64,
    clock: &SystemClock,
    control: &FollowControl,
) {
    let bar = progress();
    let end = Duration::from_secs(args.seconds);
    loop {
        let now = clock.monotonic();
        if now >= end || stop.is_asked() || control.has_failed() {
            break;
        }
        std::thread::park_timeout(TICK.min(end.saturating_sub(now)));
        if now >= end / 2 {
            control.freeze();
        }
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

/// Checks that no db snapshot is open after all threads ended, by our count and by RocksDB's.
fn check_rest(engine: &Engine, findings: &mut Findings) {
    let ours = engine.metrics().db_snapshots.open_now();
    let rocksdbs = engine.rocks_snapshots().map(|snapshots| snapshots.open);
    if ours != 0 || !matches!(rocksdbs, Ok(0)) {
        findings.violation(format!(
            "db snapshots open at rest: {ours} by our count, {rocksdbs:?} in RocksDB"
        ));
    }
}

/// Compares every key with its acknowledged contents. Returns the number of differences.
fn compare(
    engine: &Engine,
    models: &[Model],
    findings: &mut Findings,
) -> Result<u64, CommandError> {
    let mut lost: u64 = 0;
    for (key, expected) in models.iter().flatten() {
        let found = engine.for_key(key).get(key)?;
        if let Some(wrong) = difference(key, Some(expected), found.as_ref()) {
            lost += 1;
            findings.violation(format!("after reopening: {wrong}"));
        }
    }
    Ok(lost)
}

/// Checks that the store has exactly as many documents and tombstones as the writers expect.
fn check_counts(found: &Verification, models: &[Model], findings: &mut Findings) {
    let of = |is_live: bool| {
        let keys = models.iter().flat_map(|model| model.values());
        u64_from(
            keys.filter(|expected| expected.version.is_some() == is_live)
                .count(),
        )
    };
    if (found.items, found.tombstones) != (of(true), of(false)) {
        findings.violation(format!(
            "the store has {} items and {} tombstones, expected {} and {}",
            found.items,
            found.tombstones,
            of(true),
            of(false)
        ));
    }
}

/// Opens the file for the report, if one is given. Opened before the run, so that a wrong path
/// fails at once; the old contents stay until the report is written.
fn report_file(args: &args::StressArgs) -> Result<Option<File>, CommandError> {
    let Some(Some(path)) = &args.json else {
        return Ok(None);
    };
    let mut options = File::options();
    let opened = options.write(true).create(true).truncate(false).open(path);
    let opened = opened.map_err(|error| CommandError::file("write", path, &error))?;
    Ok(Some(opened))
}

/// Writes the report to its file, if there is one, and prints it or a summary.
fn print_report(
    args: &args::StressArgs,
    file: Option<File>,
    out: &mut Output,
    report: &Value,
    is_ok: bool,
) -> Result<(), CommandError> {
    if let (Some(Some(path)), Some(file)) = (&args.json, file) {
        let written = file.set_len(0);
        let written = written.and_then(|()| writeln!(&file, "{report:#}"));
        written.map_err(|error| CommandError::file("write", path, &error))?;
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
