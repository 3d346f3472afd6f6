//! What tests of streams share.

use crate::replica::History;
use crate::{TestStore, vb};
use vbstore::{
    BackgroundTask, Change, Consumer, ConsumerConfig, Durability, Engine, Event, Opened,
    StreamEvent, StreamRequest, Streams, StreamsConfig, VBucket, VbId,
};

/// The vBucket most tests use.
pub const VB: VbId = VbId::new(1);

/// Streams that do nothing but what the test steps, and a consumer.
pub fn stepped(engine: &Engine) -> (Streams, Consumer) {
    let streams = Streams::stepped(engine, &StreamsConfig::default()).unwrap();
    let consumer = streams
        .consumer("test", &ConsumerConfig::default())
        .unwrap();
    (streams, consumer)
}

/// A consumer with the default configuration.
pub fn consumer(streams: &Streams, name: &str) -> Consumer {
    streams.consumer(name, &ConsumerConfig::default()).unwrap()
}

/// So many keys, in their order.
pub fn keys(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| format!("key-{n:04}"))
}

/// Opens a stream that must be accepted.
pub fn open(consumer: &mut Consumer, request: &StreamRequest) {
    assert_eq!(consumer.open(request).unwrap(), Opened::Continue);
}

/// Writes in memory only; returns the seqno.
pub fn write(vb: &VBucket, history: &History, key: &str, value: Option<&str>) -> u64 {
    let change = match value {
        Some(value) => Change::set(key, value.to_owned()),
        None => Change::delete(key),
    };
    let written = vb.write(change, Durability::Memory).unwrap();
    history.note(written, key, value);
    written.seqno.get()
}

/// A store of which vBucket [`VB`] has these keys on disk and nothing in memory.
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

/// Runs everything that can run, and takes everything there is.
pub fn drain(engine: &Engine, streams: &Streams, consumer: &mut Consumer) -> Vec<StreamEvent> {
    let mut events = Vec::new();
    // Taking may find that a cursor was dropped, and make a backfill of it.
    let mut idle_rounds = 0;
    for _ in 0..100_000 {
        idle_rounds += 1;
        if streams.step() {
            idle_rounds = 0;
        }
        while let Ok(event) = consumer.try_recv() {
            events.push(event);
            idle_rounds = 0;
        }
        if idle_rounds == 2 {
            return events;
        }
        engine.step(BackgroundTask::Flusher).unwrap();
        engine.step(BackgroundTask::Syncer).unwrap();
    }
    panic!("never comes to rest: {:?}", consumer.stats());
}

/// Takes everything there is without running anything.
pub fn take(consumer: &mut Consumer) -> Vec<StreamEvent> {
    std::iter::from_fn(|| consumer.try_recv().ok()).collect()
}

/// The seqnos of the changes among events.
pub fn seqnos(events: &[StreamEvent]) -> Vec<u64> {
    let items = events.iter().filter_map(|event| event.event.item());
    items.map(|item| item.meta.seqno.get()).collect()
}

/// Events as short words.
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
