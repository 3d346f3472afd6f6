//! A consumer as a future's source of events, without any runtime.

use futures_core::Stream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use vbstore::{
    Consumer, ConsumerConfig, Event, StreamEvent, StreamRequest, Streams, StreamsConfig,
};
use vbstore_tests::following::{VB, open};
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
