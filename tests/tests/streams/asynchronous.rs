//! A consumer as a future's source of events, without any runtime.

use futures_core::Stream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use vbstore::{
    Consumer, ConsumerConfig, Event, HealthState, StreamEvent, StreamRequest, Streams,
    StreamsConfig,
};
use vbstore_tests::following::{VB, drain, open, short, stepped};
use vbstore_tests::{TestStore, vb};

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for the next event as a runtime would: polls, and sleeps until it is woken.
fn next(consumer: &mut Consumer) -> Option<StreamEvent> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match Pin::new(&mut *consumer).poll_next(&mut Context::from_waker(&waker)) {
            Poll::Ready(event) => return event,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn a_consumer_is_a_stream_of_events() {
    let store = TestStore::threaded();
    let engine = store.open();
    let streams = Streams::start(&engine, &StreamsConfig::default()).unwrap();
    let mut consumer = streams
        .consumer("async", &ConsumerConfig::default())
        .unwrap();
    assert!(next(&mut consumer).is_none(), "no stream, no event");
    open(&mut consumer, &StreamRequest::from_start(VB));
    std::thread::scope(|scope| {
        let writer = std::thread::Builder::new().name("writer".to_owned());
        let writer = writer.spawn_scoped(scope, || {
            for n in 0..200 {
                vb(&engine, 1).set(format!("k{n}"), "v").unwrap();
            }
        });
        let mut changes = 0;
        while changes < 200 {
            let event = next(&mut consumer).unwrap();
            changes += usize::from(event.event.item().is_some());
        }
        writer.unwrap().join().unwrap();
    });
    assert!(consumer.close(VB));
    assert!(matches!(next(&mut consumer).unwrap().event, Event::End(_)));
    assert!(next(&mut consumer).is_none());
    drop((consumer, streams));
    store.finish(engine);
}

/// Panics when it is woken.
struct Rude;

impl Wake for Rude {
    fn wake(self: Arc<Self>) {
        panic!("planted: a program's waker");
    }
}

/// Notes that it was woken.
#[derive(Default)]
struct Flag(std::sync::atomic::AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

#[test]
fn a_waker_that_panics_harms_nobody_else() {
    let store = TestStore::stepped();
    let engine = store.open();
    let (streams, mut rude) = stepped(&engine);
    let mut polite = streams
        .consumer("polite", &ConsumerConfig::default())
        .unwrap();
    let flag: Arc<Flag> = Arc::default();
    let poll = |consumer: &mut Consumer, waker: &Waker| {
        Pin::new(consumer).poll_next(&mut Context::from_waker(waker))
    };
    for consumer in [&mut rude, &mut polite] {
        open(consumer, &StreamRequest::from_start(VB));
    }
    drain(&engine, &streams, &mut rude);
    drain(&engine, &streams, &mut polite);
    let (planted, noted) = (Waker::from(Arc::new(Rude)), Waker::from(Arc::clone(&flag)));
    assert!(poll(&mut rude, &planted).is_pending());
    assert!(poll(&mut polite, &noted).is_pending());

    // The leader of this flush wakes both; the writer is acknowledged, and the engine goes on.
    vb(&engine, 1).set("k", "v").unwrap();

    assert!(matches!(engine.health(), HealthState::Open));
    let was_woken = flag.0.load(std::sync::atomic::Ordering::SeqCst);
    assert!(was_woken, "the other consumer is woken all the same");
    for consumer in [&mut polite, &mut rude] {
        let events = drain(&engine, &streams, consumer);
        assert_eq!(short(&events), ["0..1 memory", "k@1"]);
    }
    drop((rude, polite, streams));
    store.finish(engine);
}
