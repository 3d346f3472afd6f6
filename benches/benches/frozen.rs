//! Measures what frozen consumers (which take nothing) cost a healthy consumer and a writer.
//!
//! Beside 0, 1, 20, 200 and 1,000 frozen consumers, one healthy consumer catches up with a vBucket
//! of documents again and again, and one writer writes to another vBucket at full speed. Every
//! frozen consumer follows both vBuckets: the first from disk, of which it takes one event or none,
//! the second from memory. Each round measures all counts in turn and compares each with the
//! measurement without frozen consumers of the same round. Zero is measured twice: the second one
//! is the control.
//!
//! VBSTORE_DOCUMENTS (default 60,000, of 1,000 bytes), VBSTORE_ROUNDS (5) and VBSTORE_SECONDS (2,
//! for each measurement) change the run.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use vbstore::{
    Change, Clock, Config, Consumer, ConsumerConfig, Durability, Engine, OpenOutcome, Seqno,
    StreamRequest, Streams, StreamsConfig, SystemClock, TryRecv, VbId,
};
use vbstore_engine::raw;

const DATA: VbId = VbId::new(0);
const LIVE: VbId = VbId::new(1);
/// Frozen consumers in each measurement. The first zero is the baseline, the last the control.
const FROZEN: [usize; 6] = [0, 1, 20, 200, 1_000, 0];
/// Longer than the time after which the buffers of a consumer that takes nothing may be dropped.
const SETTLE: Duration = Duration::from_millis(1_500);

/// The rates of one measurement, in changes a second.
#[derive(Clone, Copy)]
struct Rates {
    taken: f64,
    written: f64,
}

fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().expect("a number"))
}

fn wait(time: Duration) {
    let clock = SystemClock::new();
    while clock.monotonic() < time {
        std::thread::park_timeout(time.saturating_sub(clock.monotonic()));
    }
}

fn open(consumer: &mut Consumer, request: &StreamRequest) {
    let opened = consumer.open(request).expect("a stream");
    assert_eq!(opened, OpenOutcome::Continue);
}

fn freeze(streams: &Streams, number: usize) -> Consumer {
    let mut consumer = streams
        .consumer("frozen", &ConsumerConfig::default())
        .expect("a consumer");
    open(&mut consumer, &StreamRequest::from_start(LIVE));
    while consumer.try_recv().is_ok() {}
    open(&mut consumer, &StreamRequest::from_start(DATA));
    if number.is_multiple_of(2) {
        // Half of the consumers take one event and then stop in the middle of a batch.
        drop(consumer.recv_timeout(Duration::from_millis(20)));
    }
    consumer
}

/// Catches up with the documents again and again; counts the changes it takes.
fn catch_up(streams: &Streams, documents: u64, taken: &AtomicU64, is_over: &AtomicBool) {
    let mut consumer = streams
        .consumer("healthy", &ConsumerConfig::default())
        .expect("a consumer");
    let request = StreamRequest::from_start(DATA).until(Seqno::new(documents));
    while !is_over.load(Ordering::Acquire) {
        open(&mut consumer, &request);
        loop {
            match consumer.next_batch(Duration::from_secs(30)) {
                Ok(batch) => {
                    let count = u64::try_from(batch.len()).expect("a length");
                    taken.fetch_add(count, Ordering::Relaxed);
                }
                Err(TryRecv::Ended) => break,
                Err(TryRecv::Empty) => panic!("a healthy consumer got nothing for 30 s"),
            }
        }
    }
}

fn write(engine: &Engine, written: &AtomicU64, is_over: &AtomicBool) {
    let vb = engine.vbucket(LIVE).expect("a vBucket");
    let mut number: u64 = 0;
    while !is_over.load(Ordering::Acquire) {
        number += 1;
        let key = format!("key-{:06}", number % 5_000);
        vb.write(Change::set(key, vec![b'v'; 200]), Durability::Logged)
            .expect("a write");
        written.fetch_add(1, Ordering::Relaxed);
    }
}

#[expect(clippy::cast_precision_loss, clippy::as_conversions, reason = "a rate")]
fn measure(engine: &Engine, streams: &Streams, documents: u64, time: Duration) -> Rates {
    let (taken, written) = (AtomicU64::new(0), AtomicU64::new(0));
    let is_over = AtomicBool::new(false);
    let clock = SystemClock::new();
    std::thread::scope(|scope| {
        let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let healthy = || catch_up(streams, documents, &taken, &is_over);
        named("healthy")
            .spawn_scoped(scope, healthy)
            .expect("a thread");
        let writes = || write(engine, &written, &is_over);
        named("writer")
            .spawn_scoped(scope, writes)
            .expect("a thread");
        // The first moments are not measured: both threads are still starting.
        wait(time / 4);
        let before = [&taken, &written].map(|count| count.load(Ordering::Relaxed));
        let begun = clock.monotonic();
        wait(time);
        let seconds = clock.monotonic().saturating_sub(begun).as_secs_f64();
        let after = [&taken, &written].map(|count| count.load(Ordering::Relaxed));
        is_over.store(true, Ordering::Release);
        let rate = |at: usize| (after[at] - before[at]) as f64 / seconds;
        Rates {
            taken: rate(0),
            written: rate(1),
        }
    })
}

fn median(values: &mut [f64]) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (
        values[0],
        values[values.len() / 2],
        values[values.len() - 1],
    )
}

fn main() -> anyhow::Result<()> {
    let documents = number("VBSTORE_DOCUMENTS", 60_000);
    let rounds = number("VBSTORE_ROUNDS", 5);
    let time = Duration::from_secs(number("VBSTORE_SECONDS", 2));
    let dir = tempfile::tempdir()?;
    let config = Config {
        vbuckets: Some(2),
        durability: Durability::Logged,
        ..Config::default()
    };
    let engine = Engine::builder(dir.path().join("store"))
        .config(config)
        .open()?;
    let vb = engine.vbucket(DATA)?;
    for n in 0..documents {
        let change = Change::set(format!("key-{n:08}"), vec![7_u8; 1_000]);
        vb.write(change, Durability::Memory)?;
    }
    engine.flush()?;
    engine.compact(DATA)?;
    raw::forget_memory(&engine, true)?;
    let streams = Streams::start(&engine, &StreamsConfig::default())?;
    let mut by_count: Vec<Vec<Rates>> = vec![Vec::new(); FROZEN.len()];
    for _ in 0..rounds {
        for (of_count, count) in by_count.iter_mut().zip(FROZEN) {
            let frozen: Vec<Consumer> = (0..count).map(|n| freeze(&streams, n)).collect();
            wait(SETTLE);
            of_count.push(measure(&engine, &streams, documents, time));
            drop(frozen);
        }
    }
    println!("frozen consumers | healthy consumer: changes/s, ratio (min, median, max) | writer");
    for (of_count, count) in by_count.iter().zip(FROZEN) {
        let base = &by_count[0];
        let mut line = format!("{count:5}");
        for rate in [|r: &Rates| r.taken, |r: &Rates| r.written] {
            let mut rates: Vec<f64> = of_count.iter().map(rate).collect();
            let mut ratios: Vec<f64> = of_count
                .iter()
                .zip(base)
                .map(|(with, without)| rate(with) / rate(without))
                .collect();
            let (_, middle, _) = median(&mut rates);
            let (least, ratio, most) = median(&mut ratios);
            line += &format!(" | {middle:9.0}/s, {least:.2} {ratio:.2} {most:.2}");
        }
        println!("{line}");
    }
    engine.close()?;
    Ok(())
}
