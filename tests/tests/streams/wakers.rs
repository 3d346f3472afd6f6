//! The threads on which wakers are called, and what a waker may drop there.

use futures_core::Stream;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;
use vbstore::failpoint::{Action, Latch, place};
use vbstore::{Consumer, Seqno, StreamRequest, Streams, StreamsConfig, Visibility};
use vbstore_tests::following::{VB, consumer, keys, on_disk, open};
use vbstore_tests::{TestStore, put, vb};

/// Far longer than anything here takes; only a failure waits this long.
const LONG: Duration = Duration::from_secs(60);

fn this_thread() -> String {
    std::thread::current().name().unwrap().to_owned()
}

/// A waker that reports the thread on which it is called.
struct Tells(SyncSender<String>);

impl Wake for Tells {
    fn wake(self: Arc<Self>) {
        self.0.send(this_thread()).unwrap();
    }
}

/// Lets one write fire `watches` wakers of streams. Returns the threads they are called on.
fn woken_by_a_write(watches: usize) -> Receiver<String> {
    let store = TestStore::threaded();
    let engine = store.open();
    let feed = engine.feed(VB).unwrap();
    let (called, on_thread) = sync_channel(watches);
    for _ in 0..watches {
        let waker = Waker::from(Arc::new(Tells(called.clone())));
        assert!(feed.watch(0, Visibility::Memory, Seqno::ZERO, &waker));
    }
    drop(called);
    put(&vb(&engine, 1), "k", "v");
    drop(feed);
    store.finish(engine);
    on_thread
}

#[test]
fn a_writer_calls_a_few_wakers_itself_and_leaves_more_to_a_thread_of_their_own() {
    for (watches, thread) in [
        (1, this_thread()),
        (16, this_thread()),
        (17, "vbstore-notify".to_owned()),
        (1_000, "vbstore-notify".to_owned()),
    ] {
        let on_thread = woken_by_a_write(watches);
        for number in 0..watches {
            let called = on_thread.recv_timeout(LONG).unwrap();
            assert_eq!(called, thread, "waker {number} of {watches}");
        }
        // Each is called once.
        assert!(on_thread.recv_timeout(LONG).is_err());
    }
}

/// A waker that drops the last handle of the streams, and reports its thread.
struct DropsStreams {
    held: Mutex<Option<(Consumer, Streams)>>,
    done: SyncSender<String>,
}

impl Wake for DropsStreams {
    fn wake(self: Arc<Self>) {
        if let Some((consumer, streams)) = self.held.lock().unwrap().take() {
            drop(consumer);
            drop(streams);
            self.done.send(this_thread()).unwrap();
        }
    }
}

#[test]
fn streams_that_are_dropped_on_a_worker_of_theirs_end() {
    // An engine without threads calls wakers where they are fired: here on a worker.
    let store = TestStore::stepped();
    let engine = on_disk(&store, keys(3));
    let streams = Streams::start(&engine, &StreamsConfig::default()).unwrap();
    let gate = Arc::new(Latch::default());
    store
        .failpoints
        .once(place::SLICE_HAND_ON, Action::Wait(Arc::clone(&gate)));
    let mut consumer = consumer(&streams, "c");
    let (done, on_thread) = sync_channel(1);
    let held = Arc::new(DropsStreams {
        held: Mutex::new(None),
        done,
    });
    let waker = Waker::from(Arc::clone(&held));
    open(&mut consumer, &StreamRequest::from_start(VB));
    let arrival = gate.wait_for_arrival();
    let polled = Pin::new(&mut consumer).poll_next(&mut Context::from_waker(&waker));
    assert!(polled.is_pending(), "{polled:?}");
    *held.held.lock().unwrap() = Some((consumer, streams));
    drop(arrival);

    let thread = on_thread.recv_timeout(LONG).unwrap();

    assert!(thread.starts_with("vbstore-slice-"), "{thread}");
    assert!(held.held.lock().unwrap().is_none());
    store.finish(engine);
}
