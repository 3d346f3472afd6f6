//! Measures what metrics cost:
//!
//! - how long a scrape takes in a store of 1,024 vBuckets, part by part;
//! - how much slower writers are during ten scrapes a second. Each round measures three times, in
//!   turn: with scrapes, without, and without again. The ratio of the last two shows the noise.
//!
//! VBSTORE_VBUCKETS (1,024), VBSTORE_ROUNDS (40), VBSTORE_SECONDS (1, for each third of a round)
//! and VBSTORE_SCRAPES (10 a second) change the run.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use vbstore::metrics::render;
use vbstore::{
    Change, Clock, Config, Durability, Engine, Registry, Streams, StreamsConfig, SystemClock,
};

const WRITERS: u64 = 4;
const KEYS: u64 = 51_200;

fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().expect("a number"))
}

/// Waits in a loop: parking may end early, by a token left over from an earlier wait.
fn wait(time: Duration) {
    let clock = SystemClock::new();
    while clock.monotonic() < time {
        std::thread::park_timeout(time.saturating_sub(clock.monotonic()));
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Formats the median of some values, and the quartiles on both sides of it.
fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let at = |share: usize| {
        values
            .get(values.len() * share / 4)
            .copied()
            .unwrap_or(f64::NAN)
    };
    format!("{:.3} ({:.3} to {:.3})", at(2), at(1), at(3))
}

/// Formats the median of the ratios (one for each round) and its confidence interval of 95 %. The
/// interval is between the values whose ranks are 0.98 times the square root of their number below
/// and above the middle: the normal approximation of the binomial, which holds for any
/// distribution.
fn median_within(mut ratios: Vec<f64>) -> String {
    ratios.sort_by(f64::total_cmp);
    let (middle, aside) = (
        ratios.len() as f64 / 2.0,
        0.98 * (ratios.len() as f64).sqrt(),
    );
    let at = |rank: f64| {
        let rank = rank.clamp(0.0, ratios.len().saturating_sub(1) as f64) as usize;
        ratios.get(rank).copied().unwrap_or(f64::NAN)
    };
    let (low, high) = (at(middle - aside), at(middle + aside));
    format!("{:.3} (95 %: {low:.3} to {high:.3})", at(middle))
}

/// Returns the median and the largest duration of several runs, in milliseconds.
fn time(runs: u64, mut run: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<(f64, f64)> {
    let mut took = Vec::new();
    for _ in 0..runs {
        let clock = SystemClock::new();
        run()?;
        took.push(clock.monotonic().as_secs_f64() * 1_000.0);
    }
    let largest = took.iter().copied().fold(0.0, f64::max);
    Ok((median(took), largest))
}

/// Returns how long each part of a scrape took in milliseconds, as the collectors report it.
fn parts(registry: &Registry) -> anyhow::Result<Vec<(String, f64)>> {
    let text = render(registry)?;
    let lines = text.lines();
    let of = lines.filter(|line| line.starts_with("vbstore_collector_seconds{"));
    of.map(|line| {
        let (series, value) = line.rsplit_once(' ').expect("a sample");
        let part = series.split('"').nth(1).unwrap_or(series).to_owned();
        Ok((part, value.parse::<f64>()? * 1_000.0))
    })
    .collect()
}

fn write(engine: &Engine, seed: u64, is_over: &AtomicBool, written: &AtomicU64) {
    let mut noise = seed | 1;
    while !is_over.load(Ordering::Acquire) {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        let key = format!("key-{:09}", noise % KEYS);
        let change = Change::set(&key, vec![b'v'; 200]);
        let vb = engine.for_key(&key);
        vb.write(change, Durability::Logged).expect("a write");
        written.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns writes a second with `scrapes` scrapes a second beside them; appends the duration of
/// each scrape to `took`, in milliseconds.
fn rate(engine: &Engine, seconds: u64, scrapes: u64, took: &mut Vec<f64>) -> anyhow::Result<f64> {
    let (is_over, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let clock = SystemClock::new();
    std::thread::scope(|scope| -> anyhow::Result<()> {
        for n in 0..WRITERS {
            let (is_over, written) = (&is_over, &written);
            let thread = std::thread::Builder::new().name(format!("writer-{n}"));
            thread.spawn_scoped(scope, move || {
                write(engine, n.wrapping_mul(977) + 5, is_over, written);
            })?;
        }
        let scraper = std::thread::Builder::new().name("scraper".to_owned());
        let scraper = scraper.spawn_scoped(scope, || {
            let (clock, mut due) = (SystemClock::new(), Duration::ZERO);
            while scrapes > 0 && !is_over.load(Ordering::Acquire) {
                let start = clock.monotonic();
                render(engine.telemetry().registry())?;
                took.push((clock.monotonic() - start).as_secs_f64() * 1_000.0);
                due += Duration::from_secs(1) / u32::try_from(scrapes)?;
                wait(due.saturating_sub(clock.monotonic()));
            }
            anyhow::Ok(())
        })?;
        wait(Duration::from_secs(seconds));
        is_over.store(true, Ordering::Release);
        scraper.join().expect("the scraper")
    })?;
    Ok(written.load(Ordering::Relaxed) as f64 / clock.monotonic().as_secs_f64())
}

fn main() -> anyhow::Result<()> {
    let vbuckets = u16::try_from(number("VBSTORE_VBUCKETS", 1_024))?;
    let dir = tempfile::tempdir()?;
    let config = Config {
        vbuckets: Some(vbuckets),
        ..Config::default()
    };
    let engine = Engine::builder(dir.path().join("store"))
        .config(config)
        .open()?;
    let streams = Streams::start(&engine, &StreamsConfig::default())?;
    for n in 0..KEYS {
        let key = format!("key-{n:09}");
        let change = Change::set(&key, vec![b'v'; 200]);
        engine.for_key(&key).write(change, Durability::Memory)?;
    }
    engine.flush()?;

    let registry = engine.telemetry().registry().clone();
    let by_vbucket = Registry::new();
    let registration = engine.register_vbuckets(&by_vbucket)?;
    println!("{vbuckets} vBuckets, {KEYS} documents; ms, of 50 scrapes one after the other\n");
    println!("| what | median | largest |\n|---|---|---|");
    let first = parts(&registry)?;
    let mut all: Vec<Vec<(String, f64)>> = Vec::new();
    let (whole, slowest) = time(50, || {
        all.push(parts(&registry)?);
        Ok(())
    })?;
    for (index, (part, asked)) in first.iter().enumerate() {
        let of: Vec<f64> = all.iter().filter_map(|p| Some(p.get(index)?.1)).collect();
        let largest = of.iter().copied().fold(0.0, f64::max);
        println!("| part {part} | {:.2} | {largest:.2} |", median(of));
        if part == "rocksdb" {
            println!("| part rocksdb, when it reads all families | {asked:.2} | |");
        }
    }
    println!("| a whole scrape, written as text | {whole:.2} | {slowest:.2} |");
    let (each, slowest) = time(20, || {
        render(&by_vbucket)?;
        Ok(())
    })?;
    println!("| metrics of each vBucket | {each:.2} | {slowest:.2} |");
    let text = render(&registry)?;
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    println!("\n{series} series, {} bytes", text.len());

    let (rounds, seconds) = (number("VBSTORE_ROUNDS", 40), number("VBSTORE_SECONDS", 1));
    let scrapes = number("VBSTORE_SCRAPES", 10);
    let (mut with, mut control, mut took) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        // With scrapes, without, and without again; each comes first, second and third in turn.
        let mut rates = [0.0; 3];
        for place in 0..3 {
            let which = usize::try_from((round + place) % 3)?;
            let asked = if which == 0 { scrapes } else { 0 };
            if let Some(of) = rates.get_mut(which) {
                *of = rate(&engine, seconds, asked, &mut took)?;
            }
        }
        let [scraped, not, nor] = rates;
        // One ratio a round, against the two measurements without scrapes in turn. Two ratios of
        // one round would share a numerator and not be independent, and the mean of two skewed
        // rates is not at their median.
        let against = if round % 2 == 0 { not } else { nor };
        with.push(scraped / against);
        control.push(not / nor);
    }
    println!(
        "\nwriters, {rounds} rounds of {seconds} s: with {scrapes} scrapes a second against \
         without {}; without against without {}",
        median_within(with),
        median_within(control)
    );
    println!("a scrape beside writers takes {} ms", spread(took));
    drop((registration, streams));
    engine.close()?;
    Ok(())
}
