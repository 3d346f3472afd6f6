//! Helpers for tests of streams.

use crate::replica::History;
use crate::{TestStore, vb};
use std::collections::BTreeSet;
use std::time::Duration;
use vbstore::{
    BackgroundTask, Change, Clock, Consumer, ConsumerConfig, Durability, Engine, Event,
    OpenOutcome, StreamEvent, StreamRequest, Streams, StreamsConfig, SystemClock, TryRecv, VBucket,
    VbId,
};
use vbstore_engine::raw::forget_memory;

/// The vBucket that most tests use.
pub const VB: VbId = VbId::new(1);

/// Returns streams without threads, which do only what the test steps, and a consumer.
pub fn stepped(engine: &Engine) -> (Streams, Consumer) {
    let streams = Streams::stepped(engine, &StreamsConfig::default()).unwrap();
    let consumer = streams
        .consumer("test", &ConsumerConfig::default())
        .unwrap();
    (streams, consumer)
}

/// Returns a consumer with the default configuration.
pub fn consumer(streams: &Streams, name: &str) -> Consumer {
    streams.consumer(name, &ConsumerConfig::default()).unwrap()
}

/// Returns `count` keys in ascending order.
pub fn keys(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| format!("key-{n:04}"))
}

/// Opens a stream; panics unless it is accepted without a rollback.
pub fn open(consumer: &mut Consumer, request: &StreamRequest) {
    assert_eq!(consumer.open(request).unwrap(), OpenOutcome::Continue);
}

/// Writes with `Durability::Memory` and records the change in the history; returns the seqno.
pub fn write(vb: &VBucket, history: &History, key: &str, value: Option<&str>) -> u64 {
    let change = match value {
        Some(value) => Change::set(key, value.to_owned()),
        None => Change::delete(key),
    };
    let written = vb.write(change, Durability::Memory).unwrap();
    history.note(written, key, value);
    written.seqno.get()
}

/// Returns a store whose vBucket [`VB`] has these keys on disk and nothing in memory.
pub fn on_disk(store: &TestStore, keys: impl IntoIterator<Item = String>) -> Engine {
    let engine = store.open();
    for key in keys {
        vb(&engine, 1)
            .write(Change::set(key, "value"), Durability::Memory)
            .unwrap();
    }
    engine.close().unwrap();
    drop(engine);
    store.open()
}

/// Returns a store with `keys_each` keys on disk in each of the first `vbuckets` vBuckets, and
/// nothing in memory.
pub fn on_disk_in_each(store: &TestStore, vbuckets: u16, keys_each: usize) -> Engine {
    let engine = store.open();
    for number in 0..vbuckets {
        for key in keys(keys_each) {
            let change = Change::set(key, "value");
            vb(&engine, number)
                .write(change, Durability::Memory)
                .unwrap();
        }
    }
    engine.flush().unwrap();
    forget_memory(&engine, true).unwrap();
    engine
}

/// How long a test waits for an event that must arrive. Only a lost wake-up takes this long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Steps of backfills after which a test assumes that they never end.
const STEPS_MAX: usize = 100_000;

/// Streams that have ended, so that no further event of them may arrive. No stream may be opened
/// meanwhile.
#[derive(Default)]
struct Ended(BTreeSet<VbId>);

impl Ended {
    fn note(&mut self, event: &StreamEvent) {
        let is_first = !self.0.contains(&event.vb);
        assert!(is_first, "an event after the end of its stream: {event:?}");
        if matches!(event.event, Event::End(_)) {
            self.0.insert(event.vb);
        }
    }
}

/// Waits for the next event; `None` if no stream is left. Panics if no event arrives. Panics too if
/// one is found only at the timeout: then the reader was not woken for it.
pub fn next(consumer: &mut Consumer) -> Option<StreamEvent> {
    let clock = SystemClock::new();
    let received = consumer.recv_timeout(PATIENCE);
    let what = match &received {
        Ok(_) if clock.monotonic() < PATIENCE => return received.ok(),
        Err(TryRecv::Ended) => return None,
        Ok(event) => format!("its reader was not woken for {event:?}"),
        Err(TryRecv::Empty) => "no event arrived".to_owned(),
    };
    panic!(
        "{what} in {PATIENCE:?}, consumer {:?}, streams {:#?}",
        consumer.name(),
        consumer.stats()
    );
}

/// Waits for an event; panics if no stream is left.
pub fn expect_event(consumer: &mut Consumer) -> StreamEvent {
    let event = next(consumer);
    event.unwrap_or_else(|| panic!("no stream is left, consumer {:?}", consumer.name()))
}

/// Waits until no stream is left; returns all events.
pub fn until_ended(consumer: &mut Consumer) -> Vec<StreamEvent> {
    let mut ended = Ended::default();
    let mut events = Vec::new();
    while let Some(event) = next(consumer) {
        ended.note(&event);
        events.push(event);
    }
    events
}

/// Runs backfills until none can run.
pub fn run_all(streams: &Streams) {
    for _ in 0..STEPS_MAX {
        if !streams.step() {
            return;
        }
    }
    panic!("backfills never end: {:#?}", streams.stats());
}

/// Runs everything that can run and takes events until none is left.
pub fn drain(engine: &Engine, streams: &Streams, consumer: &mut Consumer) -> Vec<StreamEvent> {
    let mut ended = Ended::default();
    let mut events = Vec::new();
    // Two idle rounds: taking may find that a cursor was dropped, which starts a backfill.
    let mut idle_rounds = 0;
    for _ in 0..STEPS_MAX {
        idle_rounds += 1;
        if streams.step() {
            idle_rounds = 0;
        }
        while let Ok(event) = consumer.try_recv() {
            ended.note(&event);
            events.push(event);
            idle_rounds = 0;
        }
        if idle_rounds == 2 {
            return events;
        }
        engine.step(BackgroundTask::Flusher).unwrap();
        engine.step(BackgroundTask::Syncer).unwrap();
    }
    panic!("events never stop: {:?}", consumer.stats());
}

/// Takes all available events without running anything.
pub fn take(consumer: &mut Consumer) -> Vec<StreamEvent> {
    let mut ended = Ended::default();
    std::iter::from_fn(|| consumer.try_recv().ok())
        .inspect(|event| ended.note(event))
        .collect()
}

/// Returns the seqnos of the changes among the events.
pub fn seqnos(events: &[StreamEvent]) -> Vec<u64> {
    let items = events.iter().filter_map(|event| event.event.item());
    items.map(|item| item.meta.seqno.get()).collect()
}

/// Returns events as short strings to compare with.
pub fn short(events: &[StreamEvent]) -> Vec<String> {
    let one = |event: &StreamEvent| match &event.event {
        Event::SnapshotMarker(m) => format!("{}..{} {}", m.start, m.end, m.source.name()),
        Event::SeqnoAdvanced(seqno) => format!("to {seqno}"),
        Event::End(reason) => format!("end {}", reason.name()),
        Event::Mutation(item) | Event::Deletion(item) | Event::Expiration(item) => {
            let key = String::from_utf8_lossy(&item.key).into_owned();
            let sign = if item.meta.kind.is_live() { "" } else { "-" };
            format!("{sign}{key}@{}", item.meta.seqno)
        }
    };
    events.iter().map(one).collect()
}
