//! Measures what the lifetime of a db snapshot costs. Three ways to run the same backfill are
//! compared:
//!
//! - *early*: the db snapshot is opened, and the cursor registered, when the stream is created; the
//!   scan comes later (as in Couchbase's kv_engine before MB-52975);
//! - *held*: both happen when the scan begins, and the db snapshot is held through every pause of
//!   the consumer (as in kv_engine since then);
//! - *slices*: as in this engine: one db snapshot for each slice, and the cursor registered at the
//!   end.
//!
//! All three read with the same code and options, in the same slices and with the same pauses.
//! Meanwhile a writer overwrites documents at a steady rate. The bench prints two tables for
//! docs/measurements.md and, with VBSTORE_PLOT=FILE, draws the age of RocksDB's oldest snapshot.
//!
//! VBSTORE_DOCUMENTS (default 100,000), VBSTORE_WRITES_PER_SECOND (20,000), VBSTORE_FREEZE_SECONDS
//! (15) and VBSTORE_MILLION (0: leave out the second table) change the run.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use vbstore::{
    Change, Clock, Config, Durability, Engine, Seqno, SeqnoRange, SliceBudget, SliceEnd,
    SystemClock, VBucket, VbId,
};
use vbstore_benches::checksum;
use vbstore_engine::raw::{ReadHeld, with_held_view};

const VB: VbId = VbId::new(0);
const VALUE_BYTES: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Early,
    Held,
    Slices,
}

impl Policy {
    const ALL: [Self; 3] = [Self::Early, Self::Held, Self::Slices];

    fn name(self) -> &'static str {
        match self {
            Self::Early => "early",
            Self::Held => "held",
            Self::Slices => "slices",
        }
    }
}

/// The pauses of the consumer.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Between the creation of the stream and its scan.
    wait: Duration,
    /// After each slice.
    pause: Duration,
    /// Once, half way.
    freeze: Duration,
}

#[derive(Debug, Default)]
struct Outcome {
    items: u64,
    slices: u64,
    seconds: f64,
    cursor_dropped: bool,
    peak_live: u64,
    peak_obsolete: u64,
    settled_disk: u64,
    later_scan_nanos: f64,
    writes_per_second: f64,
    oldest_snapshot: Vec<(f64, f64)>,
}

fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().expect("a number"))
}

fn open(path: &Path) -> anyhow::Result<Engine> {
    let mut config = Config {
        vbuckets: Some(1),
        durability: Durability::Memory,
        // Small, so that overwritten documents soon are in files, as in a store larger than memory.
        write_buffer_bytes: Some(8 << 20),
        ..Config::default()
    };
    config.tuning.memory_quota = 16 << 20;
    Ok(Engine::builder(path).config(config).open()?)
}

fn key(n: u64) -> String {
    format!("key-{n:012}")
}

/// A random generator for values that do not compress: the tables are about disk space.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn value(&mut self) -> Vec<u8> {
        let words = (0..VALUE_BYTES / 8).map(|_| self.next().to_be_bytes());
        words.flatten().collect()
    }
}

fn load(vb: &VBucket, documents: u64) -> anyhow::Result<()> {
    let mut noise = Noise(0x0123_4567_89ab_cdef);
    for n in 0..documents {
        vb.write(Change::set(key(n), noise.value()), Durability::Memory)?;
    }
    Ok(())
}

/// Overwrites documents at a steady rate until `is_over`; returns how many.
fn churn(vb: &VBucket, documents: u64, rate: u64, is_over: &AtomicBool) -> anyhow::Result<u64> {
    let clock = SystemClock::new();
    let mut written: u64 = 0;
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    while !is_over.load(Ordering::Acquire) {
        // Paced by the clock, so that a stall is caught up and the rate holds on average.
        let due = clock.monotonic().as_micros() * u128::from(rate) / 1_000_000;
        if u128::from(written) >= due {
            std::thread::park_timeout(Duration::from_millis(1));
            continue;
        }
        let change = Change::set(key(noise.next() % documents), noise.value());
        vb.write(change, Durability::Memory)?;
        written += 1;
    }
    Ok(written)
}

/// Reads everything above a position in slices, with the consumer's pauses between them.
fn scan(
    read: &mut ReadHeld<'_>,
    documents: u64,
    pace: Pace,
    outcome: &mut Outcome,
) -> anyhow::Result<Seqno> {
    let mut range = SeqnoRange::above(Seqno::ZERO);
    let mut has_frozen = false;
    loop {
        let slice = read(VB, range, SliceBudget::default())?;
        outcome.slices += 1;
        for item in slice.items() {
            std::hint::black_box(checksum(item.key) + checksum(item.value));
            outcome.items += 1;
        }
        range.after = slice.position();
        if slice.end() == SliceEnd::Complete {
            return Ok(slice.persisted_seqno());
        }
        if !pace.pause.is_zero() {
            std::thread::park_timeout(pace.pause);
        }
        if !has_frozen && outcome.items >= documents / 2 && !pace.freeze.is_zero() {
            has_frozen = true;
            std::thread::park_timeout(pace.freeze);
        }
    }
}

/// Runs one backfill under a policy; records whether its cursor was dropped before the end.
fn backfill(
    engine: &Engine,
    policy: Policy,
    documents: u64,
    pace: Pace,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let feed = engine.feed(VB)?;
    match policy {
        Policy::Early | Policy::Held => {
            if policy == Policy::Held {
                std::thread::park_timeout(pace.wait);
            }
            let cursor = feed.hold_memory(0)?;
            with_held_view(engine, |read| {
                if policy == Policy::Early {
                    std::thread::park_timeout(pace.wait);
                }
                scan(read, documents, pace, outcome)
            })??;
            outcome.cursor_dropped = cursor.lag().is_none();
        }
        Policy::Slices => {
            std::thread::park_timeout(pace.wait);
            let vb = engine.vbucket(VB)?;
            let mut read = |_, range, budget| vb.scan_slice(range, budget);
            let end = scan(&mut read, documents, pace, outcome)?;
            outcome.cursor_dropped = feed.join(0, end)?.is_none();
        }
    }
    Ok(())
}

/// Samples disk usage and RocksDB's oldest snapshot until `is_over`.
fn sample(engine: &Engine, is_over: &AtomicBool) -> anyhow::Result<Outcome> {
    let clock = SystemClock::new();
    let mut seen = Outcome::default();
    while !is_over.load(Ordering::Acquire) {
        let usage = engine.disk_usage()?;
        seen.peak_live = seen.peak_live.max(usage.live_sst);
        seen.peak_obsolete = seen.peak_obsolete.max(usage.obsolete_sst);
        let oldest = engine.rocks_snapshots()?.oldest_time;
        let age = if oldest == 0 {
            0
        } else {
            (clock.wall_micros() / 1_000_000).saturating_sub(oldest)
        };
        seen.oldest_snapshot
            .push((clock.monotonic().as_secs_f64(), age as f64));
        std::thread::park_timeout(Duration::from_millis(100));
    }
    Ok(seen)
}

fn under_churn(policy: Policy, documents: u64, rate: u64, pace: Pace) -> anyhow::Result<Outcome> {
    let dir = tempfile::tempdir()?;
    let engine = open(&dir.path().join("store"))?;
    let vb = engine.vbucket(VB)?;
    load(&vb, documents)?;
    engine.flush()?;
    engine.compact(VB)?;

    let (is_over, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut outcome = Outcome::default();
    let clock = SystemClock::new();
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let writer = std::thread::Builder::new().name("writer".to_owned());
        let writer = writer.spawn_scoped(scope, || {
            let count = churn(&vb, documents, rate, &is_over)?;
            written.store(count, Ordering::Release);
            anyhow::Ok(())
        })?;
        let sampler = std::thread::Builder::new().name("sampler".to_owned());
        let sampler = sampler.spawn_scoped(scope, || sample(&engine, &is_over))?;
        let ran = backfill(&engine, policy, documents, pace, &mut outcome);
        outcome.seconds = clock.monotonic().as_secs_f64();
        is_over.store(true, Ordering::Release);
        writer.join().expect("the writer")?;
        let seen = sampler.join().expect("the sampler")?;
        ran?;
        outcome.peak_live = seen.peak_live;
        outcome.peak_obsolete = seen.peak_obsolete;
        outcome.oldest_snapshot = seen.oldest_snapshot;
        Ok(())
    })?;
    outcome.writes_per_second = written.load(Ordering::Acquire) as f64 / outcome.seconds;

    // Measures what the run leaves behind, so before the compaction below.
    engine.flush()?;
    let start = clock.monotonic();
    let mut later = Outcome::default();
    let still = Pace {
        wait: Duration::ZERO,
        pause: Duration::ZERO,
        freeze: Duration::ZERO,
    };
    let mut read = |_, range, budget| vb.scan_slice(range, budget);
    scan(&mut read, documents, still, &mut later)?;
    let took = clock.monotonic().saturating_sub(start);
    outcome.later_scan_nanos = took.as_nanos() as f64 / later.items as f64;
    let usage = engine.disk_usage()?;
    outcome.settled_disk = usage.live_sst + usage.obsolete_sst;
    drop(vb);
    engine.close()?;
    Ok(outcome)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Draws the age of the oldest snapshot over time, one line for each policy.
fn plot(outcomes: &[(Policy, Outcome)]) -> String {
    let points = || outcomes.iter().flat_map(|(_, o)| o.oldest_snapshot.iter());
    let last = points().map(|(at, _)| *at).fold(1.0, f64::max);
    let oldest = points().map(|(_, age)| *age).fold(1.0, f64::max);
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 640 260\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"640\" height=\"260\" fill=\"white\"/>\n\
         <path d=\"M50 10V220H630\" fill=\"none\" stroke=\"black\"/>\n",
    );
    for (n, (policy, outcome)) in outcomes.iter().enumerate() {
        let color = ["#c0392b", "#e08e0b", "#1e6fba"][n % 3];
        let mut line = String::new();
        for (at, age) in &outcome.oldest_snapshot {
            let (x, y) = (50.0 + at / last * 580.0, 220.0 - age / oldest * 200.0);
            let _ = write!(line, "{x:.1},{y:.1} ");
        }
        let name = policy.name();
        let y = 24 + n * 16;
        let _ = writeln!(
            svg,
            "<polyline points=\"{line}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>\
             <text x=\"70\" y=\"{y}\" fill=\"{color}\">{name}</text>"
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"44\" y=\"20\" text-anchor=\"end\">{oldest:.0} s</text>\
         <text x=\"44\" y=\"224\" text-anchor=\"end\">0</text>\
         <text x=\"630\" y=\"238\" text-anchor=\"end\">{last:.0} s</text>\
         <text x=\"340\" y=\"254\" text-anchor=\"middle\">age of RocksDB's oldest snapshot during the backfill</text>\n</svg>"
    );
    svg
}

fn million(documents: u64) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let engine = open(&dir.path().join("store"))?;
    let vb = engine.vbucket(VB)?;
    load(&vb, documents)?;
    engine.flush()?;
    engine.compact(VB)?;
    drop(vb);
    let still = Pace {
        wait: Duration::ZERO,
        pause: Duration::ZERO,
        freeze: Duration::ZERO,
    };
    println!("\n| policy | documents | slices | seconds (3 runs) |\n|---|---|---|---|");
    let mut seconds: [Vec<String>; 3] = Default::default();
    let mut last: [Outcome; 3] = Default::default();
    // Measured in turn, so that other load on the machine affects all of them.
    for _ in 0..3 {
        for (n, policy) in Policy::ALL.into_iter().enumerate() {
            let clock = SystemClock::new();
            let mut outcome = Outcome::default();
            backfill(&engine, policy, documents, still, &mut outcome)?;
            seconds[n].push(format!("{:.2}", clock.monotonic().as_secs_f64()));
            last[n] = outcome;
        }
    }
    for (n, policy) in Policy::ALL.into_iter().enumerate() {
        println!(
            "| {} | {} | {} | {} |",
            policy.name(),
            last[n].items,
            last[n].slices,
            seconds[n].join(", ")
        );
    }
    engine.close()?;
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let documents = number("VBSTORE_DOCUMENTS", 100_000);
    let rate = number("VBSTORE_WRITES_PER_SECOND", 20_000);
    let pace = Pace {
        wait: Duration::from_secs(3),
        pause: Duration::from_millis(100),
        freeze: Duration::from_secs(number("VBSTORE_FREEZE_SECONDS", 15)),
    };
    println!(
        "{documents} documents of {VALUE_BYTES} bytes, {rate} overwrites a second as the target, a \
         consumer that pauses 100 ms after each slice and {} s half way\n",
        pace.freeze.as_secs()
    );
    println!(
        "| policy | seconds | overwrites/s | peak live SST MiB | peak obsolete | left behind MiB | later \
         scan ns/document | oldest snapshot s | cursor dropped |\n|---|---|---|---|---|---|---|---|---|"
    );
    let mut outcomes = Vec::new();
    for policy in Policy::ALL {
        let outcome = under_churn(policy, documents, rate, pace)?;
        let oldest = outcome.oldest_snapshot.iter().map(|(_, age)| *age);
        println!(
            "| {} | {:.1} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {} |",
            policy.name(),
            outcome.seconds,
            outcome.writes_per_second,
            mib(outcome.peak_live),
            mib(outcome.peak_obsolete),
            mib(outcome.settled_disk),
            outcome.later_scan_nanos,
            oldest.fold(0.0, f64::max),
            if outcome.cursor_dropped { "yes" } else { "no" },
        );
        outcomes.push((policy, outcome));
    }
    if let Ok(file) = std::env::var("VBSTORE_PLOT") {
        std::fs::write(file, plot(&outcomes))?;
    }
    match number("VBSTORE_MILLION", 0) {
        0 => Ok(()),
        documents => million(documents),
    }
}
