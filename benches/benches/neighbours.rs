//! Measures what consumers cost others, as ratios within one run:
//!
//! - the latency of writers while 1,000 catch-ups run, against the same writers without them;
//! - the rate of consumers beside a frozen one, against their rate without it.
//!
//! Both sides are measured in turn, several times, so that other load on the machine affects both.
//! As a control, the writers also run beside threads that only keep the same number of processors
//! busy: the ratio that remains is caused by the machine, not by the engine.
//!
//! VBSTORE_DOCUMENTS (default 160,000), VBSTORE_CATCH_UPS (1,000), VBSTORE_CATCH_UPS_PER_SECOND (0:
//! as fast as they go), VBSTORE_WORKERS (2), VBSTORE_NICE (the default of streams),
//! VBSTORE_UNSYNCED (0; 1 for streams that do not wait for a sync) and VBSTORE_SYNCED (0; 1 for
//! writers that wait for a sync, the default of a store) change the run.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use vbstore::{
    Change, Clock, Config, ConsumerConfig, Durability, Engine, OpenOutcome, StreamOptions,
    StreamRequest, Streams, StreamsConfig, SystemClock, VbId, Visibility,
};
use vbstore_engine::raw;

const VBUCKETS: u16 = 16;
const WRITERS: u64 = 4;
const ROUNDS: u64 = 4;
const PATIENCE: Duration = Duration::from_secs(30);

fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().expect("a number"))
}

fn key(n: u64) -> String {
    format!("key-{n:09}")
}

/// Waits in a loop: parking may end early, by a token left over from an earlier wait.
fn wait(time: Duration) {
    let clock = SystemClock::new();
    while clock.monotonic() < time {
        std::thread::park_timeout(time.saturating_sub(clock.monotonic()));
    }
}

fn nice() -> u64 {
    number(
        "VBSTORE_NICE",
        u64::from(StreamsConfig::default().workers_nice),
    )
}

fn durability() -> Durability {
    if number("VBSTORE_SYNCED", 0) > 0 {
        Durability::Synced
    } else {
        Durability::Logged
    }
}

/// Writes at a steady rate until `is_over`; returns how long each write took, in microseconds.
fn write(engine: &Engine, seed: u64, documents: u64, is_over: &AtomicBool) -> Vec<u64> {
    let (clock, durability) = (SystemClock::new(), durability());
    let (mut noise, mut took) = (seed | 1, Vec::new());
    while !is_over.load(Ordering::Acquire) {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        let key = key(noise % documents);
        let vb = engine.for_key(&key);
        let start = clock.monotonic();
        vb.write(Change::set(key, vec![b'v'; 200]), durability)
            .expect("a write");
        let micros = clock.monotonic().saturating_sub(start).as_micros();
        took.push(u64::try_from(micros).unwrap_or(u64::MAX));
        std::thread::park_timeout(Duration::from_micros(500));
    }
    took
}

/// Reads one vBucket from the beginning to its high seqno at the time the stream was opened.
fn catch_up(streams: &Streams, number: u64) -> anyhow::Result<u64> {
    let vb = VbId::new(u16::try_from(number % u64::from(VBUCKETS))?);
    let high = streams.engine().vbucket(vb)?.seqnos()?.synced;
    let mut consumer = streams.consumer("catch-up", &ConsumerConfig::default())?;
    let options = StreamOptions {
        visibility: if self::number("VBSTORE_UNSYNCED", 0) > 0 {
            Visibility::Persisted
        } else {
            Visibility::Synced
        },
        ..StreamOptions::default()
    };
    let request = StreamRequest::from_start(vb).until(high).options(options);
    let opened = consumer.open(&request)?;
    assert_eq!(opened, OpenOutcome::Continue);
    let mut events = 0;
    while let Ok(batch) = consumer.next_batch(PATIENCE) {
        events += u64::try_from(batch.len())?;
    }
    Ok(events)
}

fn percentile(mut took: Vec<u64>, share: f64) -> u64 {
    took.sort_unstable();
    let at = (took.len() as f64 * share) as usize;
    took.get(at).or(took.last()).copied().unwrap_or(0)
}

/// Runs the writers beside `work`; returns their latencies and how many seconds it took.
fn beside(
    engine: &Engine,
    documents: u64,
    work: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<(Vec<u64>, f64)> {
    let (is_over, clock) = (AtomicBool::new(false), SystemClock::new());
    std::thread::scope(|scope| {
        let mut writers = Vec::new();
        for n in 0..WRITERS {
            let is_over = &is_over;
            let thread = std::thread::Builder::new().name(format!("writer-{n}"));
            let work = move || write(engine, n.wrapping_mul(977) + 5, documents, is_over);
            writers.push(thread.spawn_scoped(scope, work)?);
        }
        let done = work();
        is_over.store(true, Ordering::Release);
        let took = writers
            .into_iter()
            .flat_map(|w| w.join().expect("a writer"));
        let took = took.collect();
        done?;
        Ok((took, clock.monotonic().as_secs_f64()))
    })
}

/// Loads the machine as catch-ups do, without using the engine: one busy thread for each worker,
/// with the workers' nice value, and one for the reader.
fn keep_busy(workers: u64, time: Duration) -> anyhow::Result<()> {
    let is_over = AtomicBool::new(false);
    let spin = |is_over: &AtomicBool| {
        let mut sum: u64 = 0;
        while !is_over.load(Ordering::Relaxed) {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
    };
    std::thread::scope(|scope| -> anyhow::Result<()> {
        for n in 0..workers {
            let is_over = &is_over;
            let thread = std::thread::Builder::new().name(format!("busy-{n}"));
            thread.spawn_scoped(scope, move || {
                let nice = i32::try_from(nice()).expect("a niceness");
                let thread = rustix::thread::gettid();
                rustix::process::setpriority_process(Some(thread), nice).expect("nice");
                spin(is_over);
            })?;
        }
        let reader = std::thread::Builder::new().name("busy-reader".to_owned());
        reader.spawn_scoped(scope, || spin(&is_over))?;
        wait(time);
        is_over.store(true, Ordering::Release);
        Ok(())
    })
}

fn writers(engine: &Engine, streams: &Streams, documents: u64) -> anyhow::Result<()> {
    let catch_ups = number("VBSTORE_CATCH_UPS", 1_000) / ROUNDS;
    let per_second = number("VBSTORE_CATCH_UPS_PER_SECOND", 0);
    let (mut with, mut without, mut busy) = (Vec::new(), Vec::new(), Vec::new());
    let (mut events, mut seconds, mut syncs) = (0, 0.0, 0);
    for _ in 0..ROUNDS {
        let (clock, before) = (SystemClock::new(), engine.metrics().syncs.get());
        let (took, spent) = beside(engine, documents, || {
            for n in 0..catch_ups {
                // The catch-ups must read from disk, so memory is freed first.
                if n % 16 == 0 {
                    raw::forget_memory(engine, true)?;
                }
                events += catch_up(streams, n)?;
                let due = ((n + 1) * 1_000_000).checked_div(per_second);
                let due = Duration::from_micros(due.unwrap_or(0));
                wait(due.saturating_sub(clock.monotonic()));
            }
            Ok(())
        })?;
        with.extend(took);
        seconds += spent;
        syncs += engine.metrics().syncs.get() - before;
        // The two controls run as long as the catch-ups did.
        let (took, _) = beside(engine, documents, || {
            wait(Duration::from_secs_f64(spent));
            Ok(())
        })?;
        without.extend(took);
        let (took, _) = beside(engine, documents, || {
            let workers = number("VBSTORE_WORKERS", 2);
            keep_busy(workers, Duration::from_secs_f64(spent))
        })?;
        busy.extend(took);
    }
    println!(
        "{} catch-ups, {events} events in {seconds:.1} s, {} and {} writes, {:.0} syncs/s beside \
         catch-ups",
        catch_ups * ROUNDS,
        with.len(),
        without.len(),
        syncs as f64 / seconds
    );
    println!(
        "\n| writers' latency | alone | beside catch-ups | ratio | beside busy loops | ratio |\n\
         |---|---|---|---|---|---|"
    );
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        let (a, b) = (
            percentile(without.clone(), share),
            percentile(with.clone(), share),
        );
        let c = percentile(busy.clone(), share);
        println!(
            "| {name} | {a} us | {b} us | {:.2} | {c} us | {:.2} |",
            b as f64 / a as f64,
            c as f64 / a as f64
        );
    }
    Ok(())
}

/// Counts the events that three consumers take in a given time, each reading its vBucket over and
/// over.
fn rate(streams: &Streams) -> anyhow::Result<f64> {
    let (is_over, events) = (AtomicBool::new(false), AtomicU64::new(0));
    let clock = SystemClock::new();
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let mut readers = Vec::new();
        for n in 1..4 {
            let (is_over, events) = (&is_over, &events);
            let thread = std::thread::Builder::new().name(format!("reader-{n}"));
            readers.push(thread.spawn_scoped(scope, move || {
                while !is_over.load(Ordering::Acquire) {
                    events.fetch_add(catch_up(streams, n)?, Ordering::Relaxed);
                }
                anyhow::Ok(())
            })?);
        }
        wait(Duration::from_secs(2));
        is_over.store(true, Ordering::Release);
        for reader in readers {
            reader.join().expect("a reader")?;
        }
        Ok(())
    })?;
    Ok(events.load(Ordering::Relaxed) as f64 / clock.monotonic().as_secs_f64())
}

fn frozen(engine: &Engine, streams: &Streams) -> anyhow::Result<()> {
    raw::forget_memory(engine, true)?;
    let (mut alone, mut beside) = (0.0, 0.0);
    for _ in 0..ROUNDS {
        alone += rate(streams)?;
        // This consumer never takes anything; all its vBuckets are backfilled until its buffer is
        // full.
        let config = ConsumerConfig {
            buffer_bytes_max: 1 << 20,
            ..ConsumerConfig::default()
        };
        let mut frozen = streams.consumer("frozen", &config)?;
        for vb in 0..VBUCKETS {
            let opened = frozen.open(&StreamRequest::from_start(VbId::new(vb)))?;
            assert_eq!(opened, OpenOutcome::Continue);
        }
        beside += rate(streams)?;
        drop(frozen);
    }
    let rounds = ROUNDS as f64;
    println!(
        "\nthree consumers: {:.0} events/s alone, {:.0} beside a frozen one, ratio {:.3}",
        alone / rounds,
        beside / rounds,
        beside / alone
    );
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let documents = number("VBSTORE_DOCUMENTS", 160_000);
    let dir = tempfile::tempdir()?;
    let config = Config {
        vbuckets: Some(VBUCKETS),
        durability: Durability::Logged,
        ..Config::default()
    };
    let engine = Engine::builder(dir.path().join("store"))
        .config(config)
        .open()?;
    for n in 0..documents {
        let key = key(n);
        let vb = engine.for_key(&key);
        vb.write(Change::set(key, vec![b'v'; 200]), Durability::Memory)?;
    }
    engine.flush()?;
    raw::forget_memory(&engine, true)?;
    let config = StreamsConfig {
        workers: usize::try_from(number("VBSTORE_WORKERS", 2))?,
        workers_nice: u8::try_from(nice())?,
        ..StreamsConfig::default()
    };
    let streams = Streams::start(&engine, &config)?;
    writers(&engine, &streams, documents)?;
    frozen(&engine, &streams)?;
    drop(streams);
    engine.close()?;
    Ok(())
}
