//! Random histories: writes, flushes, crashes, purges, freed memory, and consumers that are cut and
//! resume at every possible event, with every filter. After each complete marker the copy must
//! equal the vBucket at that seqno, and every rule of markers and positions must hold on the way.
//!
//! A history is a seed: `VBSTORE_SEED=17` replays one, `VBSTORE_HISTORIES=5000` runs more.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use std::time::Duration;
use vbstore::failpoint::Failpoints;
use vbstore::{
    BackfillOrder, BackgroundTask, Change, Consumer, ConsumerConfig, Durability, EndReason, Engine,
    Event, OpenOutcome, Seqno, StreamOptions, StreamRequest, Streams, StreamsConfig, VBucket, VbId,
    Visibility,
};
use vbstore_engine::raw;
use vbstore_tests::replica::{History, Replica};
use vbstore_tests::{TestStore, assert_at_rest, assert_verified};

const VB: VbId = VbId::new(1);
const KEYS: [&str; 7] = ["xa", "xb", "xc", "ya", "yb", "yc", "yd"];

/// One consumer and its copy. Survives its streams, and crashes of the engine.
struct Client {
    consumer: Option<Consumer>,
    is_open: bool,
    replica: Replica,
    config: ConsumerConfig,
}

#[derive(Default, Debug)]
struct Seen {
    compared: u64,
    rollbacks: u64,
    cuts: u64,
    crashes: u64,
    purged: u64,
    ended_by_rollback: u64,
}

struct World {
    rng: StdRng,
    store: TestStore,
    engine: Option<Engine>,
    streams: Option<Streams>,
    vb: Option<VBucket>,
    history: History,
    clients: Vec<Client>,
    written: u64,
    seen: Seen,
}

fn clients() -> Vec<Client> {
    let plain = StreamOptions::default();
    let options = [
        plain.clone(),
        plain.clone(),
        StreamOptions {
            visibility: Visibility::Memory,
            ..plain.clone()
        },
        StreamOptions {
            visibility: Visibility::Persisted,
            ..plain.clone()
        },
        StreamOptions {
            prefix: "x".into(),
            ..plain.clone()
        },
        StreamOptions {
            is_keys_only: true,
            skips_first_deletions: true,
            ..plain.clone()
        },
        StreamOptions {
            visibility: Visibility::Memory,
            prefix: "y".into(),
            skips_first_deletions: true,
            ..plain
        },
    ];
    let client = |(n, options): (usize, StreamOptions)| Client {
        consumer: None,
        is_open: false,
        replica: Replica::new(options),
        config: ConsumerConfig {
            // Some read an item at a time, others everything there is.
            buffer_bytes_max: if n % 2 == 0 { 300 } else { 1 << 20 },
            order: if n % 3 == 0 {
                BackfillOrder::Sequential
            } else {
                BackfillOrder::RoundRobin
            },
            ..ConsumerConfig::default()
        },
    };
    options.into_iter().enumerate().map(client).collect()
}

impl World {
    fn new(seed: u64) -> Self {
        let mut store = TestStore::stepped();
        store.config.tuning.slice_budget.items_max = 3;
        store.failpoints = Arc::new(Failpoints::default());
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            store,
            engine: None,
            streams: None,
            vb: None,
            history: History::default(),
            clients: clients(),
            written: 0,
            seen: Seen::default(),
        };
        world.start();
        world
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    fn vb(&self) -> &VBucket {
        self.vb.as_ref().unwrap()
    }

    fn start(&mut self) {
        let engine = self.store.open();
        let config = StreamsConfig {
            pending_max: 100,
            backfills_max: 3,
            ..StreamsConfig::default()
        };
        self.streams = Some(Streams::stepped(&engine, &config).unwrap());
        self.vb = Some(engine.vbucket(VB).unwrap());
        self.engine = Some(engine);
    }

    /// Drops every handle except the engine's.
    fn let_go(&mut self) -> Engine {
        for client in &mut self.clients {
            client.consumer = None;
            client.is_open = false;
        }
        self.streams = None;
        self.vb = None;
        self.engine.take().unwrap()
    }

    fn crash(&mut self) {
        self.seen.crashes += 1;
        let engine = self.let_go();
        self.store.crash(engine);
        self.start();
        self.history.cut(self.vb().seqnos().unwrap().high);
    }

    fn write(&mut self) {
        let key = KEYS[self.rng.random_range(0..KEYS.len())];
        self.written += 1;
        let value = format!("v{}", self.written);
        let value = self.rng.random_bool(0.7).then_some(value.as_str());
        let change = match value {
            Some(value) => Change::set(key, value.to_owned()),
            None => Change::delete(key),
        };
        match self.vb().write(change, Durability::Memory) {
            Ok(written) => self.history.note(written, key, value),
            Err(error) => assert!(matches!(error, vbstore::Error::NotFound), "{error}"),
        }
    }

    fn open(&mut self, n: usize) {
        let streams = self.streams.as_ref().unwrap();
        let client = &mut self.clients[n];
        if client.is_open {
            return;
        }
        let consumer = client
            .consumer
            .get_or_insert_with(|| streams.consumer("client", &client.config).unwrap());
        let position = client.replica.position;
        let request = StreamRequest::resume(VB, position).options(client.replica.options.clone());
        match consumer.open(&request).unwrap() {
            OpenOutcome::Continue => {
                client.is_open = true;
                client.replica.begin_stream(consumer.position(VB).unwrap());
                // A stream from 0 delivers everything again.
                if position.seqno == Seqno::ZERO {
                    client.replica.copy.clear();
                    client.replica.saved.clear();
                }
            }
            OpenOutcome::Rollback { to, .. } => {
                self.seen.rollbacks += 1;
                client.replica.roll_back(to);
            }
        }
    }

    fn take(&mut self, n: usize) -> bool {
        let client = &mut self.clients[n];
        let Some(consumer) = client.consumer.as_mut().filter(|_| client.is_open) else {
            return false;
        };
        let Ok(event) = consumer.try_recv() else {
            return false;
        };
        let position = consumer.position(VB).unwrap();
        let seqnos = self.vb.as_ref().unwrap().seqnos().unwrap();
        let visible = match client.replica.options.visibility {
            Visibility::Synced => seqnos.synced,
            Visibility::Persisted => seqnos.persisted,
            Visibility::Memory => seqnos.high,
        };
        assert!(
            position.snap_end <= visible,
            "{position:?} beyond {seqnos:?}"
        );
        client.replica.take(&event, position, &self.history);
        if let Event::End(reason) = event.event {
            client.is_open = false;
            match reason {
                EndReason::Rollback { to, .. } => {
                    self.seen.ended_by_rollback += 1;
                    client.replica.roll_back(to);
                }
                other => panic!("{other:?}"),
            }
        }
        true
    }

    fn cut(&mut self, n: usize) {
        let client = &mut self.clients[n];
        if client.is_open {
            self.seen.cuts += 1;
            // The end is not taken: the client resumes from the position of its copy.
            client.consumer = None;
            client.is_open = false;
        }
    }

    fn step(&mut self) {
        let n = self.rng.random_range(0..self.clients.len());
        match self.rng.random_range(0..1_000) {
            0..260 => self.write(),
            260..330 => {
                // Flushes what is in memory; the sync comes now, later or not at all.
                let clock = self.store.clock.as_ref().unwrap();
                clock.advance(Duration::from_millis(110));
                self.engine().step(BackgroundTask::Flusher).unwrap();
                if self.rng.random_bool(0.5) {
                    self.engine().step(BackgroundTask::Syncer).unwrap();
                }
            }
            330..350 => self.engine().flush().unwrap(),
            350..420 => self.open(n),
            420..640 => {
                for _ in 0..self.rng.random_range(1..4) {
                    let _ = self.streams.as_ref().unwrap().step();
                }
            }
            640..950 => {
                for _ in 0..self.rng.random_range(1..12) {
                    self.take(n);
                }
            }
            950..970 => self.cut(n),
            970..985 => {
                let drops_cursors = self.rng.random_bool(0.7);
                raw::forget_memory(self.engine(), drops_cursors).unwrap();
            }
            985..996 => {
                let high = self.vb().seqnos().unwrap().persisted.get();
                let upto = Seqno::new(self.rng.random_range(0..=high));
                self.seen.purged += raw::purge_tombstones(self.engine(), VB, upto).unwrap();
            }
            _ => self.crash(),
        }
    }

    /// Lets all consumers catch up, and compares their copies.
    fn finish(mut self) -> Seen {
        self.engine().flush().unwrap();
        let high = self.vb().seqnos().unwrap().high;
        for _ in 0..1_000 {
            let mut is_done = true;
            for n in 0..self.clients.len() {
                self.open(n);
                while self.take(n) {}
                is_done &= self.clients[n].replica.position.seqno == high;
            }
            if is_done {
                break;
            }
            for _ in 0..10_000 {
                if !self.streams.as_ref().unwrap().step() {
                    break;
                }
            }
            self.engine().step(BackgroundTask::Flusher).unwrap();
            self.engine().step(BackgroundTask::Syncer).unwrap();
        }
        for client in &self.clients {
            assert_eq!(client.replica.position.seqno, high, "did not catch up");
            let expected = self.history.at(high, &client.replica.options);
            assert_eq!(client.replica.copy, expected);
            self.seen.compared += client.replica.compared;
        }
        let engine = self.let_go();
        assert_at_rest(&engine);
        assert_verified(&engine);
        engine.close().unwrap();
        self.seen
    }
}

fn run(seed: u64) -> Seen {
    let mut world = World::new(seed);
    for _ in 0..600 {
        world.step();
    }
    world.finish()
}

#[test]
fn a_copy_is_right_at_every_complete_marker_whatever_happens() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
    if let Some(seed) = number("VBSTORE_SEED") {
        run(seed);
        return;
    }
    let mut all = Seen::default();
    for seed in 0..number("VBSTORE_HISTORIES").unwrap_or(60) {
        let seen = std::panic::catch_unwind(|| run(seed));
        let seen = seen.unwrap_or_else(|_| panic!("replay with VBSTORE_SEED={seed}"));
        all.compared += seen.compared;
        all.rollbacks += seen.rollbacks;
        all.cuts += seen.cuts;
        all.crashes += seen.crashes;
        all.purged += seen.purged;
        all.ended_by_rollback += seen.ended_by_rollback;
    }
    println!("{all:?}");
    // Guards against histories that never reach the cases they are meant to test.
    assert!(all.compared > 1_000, "{all:?}");
    let rare = [all.rollbacks, all.cuts, all.crashes, all.purged];
    assert!(rare.iter().all(|count| *count > 50), "{all:?}");
    assert!(all.ended_by_rollback > 0, "{all:?}");
}
