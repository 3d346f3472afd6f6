//! A consumer as a source of events for futures, without any runtime.

use futures_core::Stream;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use vbstore::{
    BackgroundTask, Clock, Consumer, ConsumerConfig, Engine, Event, HealthState, Seqno,
    StreamEvent, StreamRequest, StreamState, Streams, StreamsConfig, SystemClock, Ticket,
    Visibility,
};
use vbstore_engine::Feed;
use vbstore_tests::following::{
    PATIENCE, VB, drain, expect_event, on_disk, open, run_all, short, stepped, take,
};
use vbstore_tests::{TestStore, vb};

/// A waker that unparks a thread and records that it was woken.
struct Unpark(std::thread::Thread, AtomicBool);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.1.store(true, Ordering::SeqCst);
        self.0.unpark();
    }
}

/// Waits for the next event as a runtime would: polls, and parks until it is woken.
fn next(consumer: &mut Consumer) -> Option<StreamEvent> {
    let clock = SystemClock::new();
    loop {
        let unpark = Arc::new(Unpark(std::thread::current(), AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&unpark));
        if let Poll::Ready(event) = poll(consumer, &waker) {
            return event;
        }
        while !unpark.1.load(Ordering::SeqCst) {
            let left = PATIENCE.saturating_sub(clock.monotonic());
            assert!(!left.is_zero(), "no waker called: {:#?}", consumer.stats());
            std::thread::park_timeout(left);
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

/// A waker that panics, and records that it was woken.
#[derive(Default)]
struct Rude(AtomicUsize);

impl Wake for Rude {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("planted: a program's waker");
    }
}

/// A waker that records that it was woken.
#[derive(Default)]
struct Flag(AtomicUsize);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll(consumer: &mut Consumer, waker: &Waker) -> Poll<Option<StreamEvent>> {
    Pin::new(consumer).poll_next(&mut Context::from_waker(waker))
}

#[test]
fn a_waker_that_panics_harms_no_other() {
    let store = TestStore::stepped();
    let engine = store.open();
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    // Wakers are called in the order in which they began to wait.
    for rude_at in [0, 1, 2] {
        let rude: Arc<Rude> = Arc::default();
        let flags = [Arc::<Flag>::default(), Arc::default()];
        let mut wakers: Vec<Waker> = flags.iter().cloned().map(Waker::from).collect();
        wakers.insert(rude_at, Waker::from(Arc::clone(&rude)));
        let mut consumers: Vec<Consumer> = wakers
            .iter()
            .map(|waker| {
                let mut consumer = streams.consumer("c", &ConsumerConfig::default()).unwrap();
                open(&mut consumer, &StreamRequest::from_start(VB));
                drain(&engine, &streams, &mut consumer);
                assert!(poll(&mut consumer, waker).is_pending());
                consumer
            })
            .collect();

        // The flush of this write calls all wakers; the writer is acknowledged, and the engine goes
        // on.
        vb(&engine, 1).set(format!("k{rude_at}"), "v").unwrap();

        assert_eq!(rude.0.load(Ordering::SeqCst), 1);
        assert!(flags.iter().all(|flag| flag.0.load(Ordering::SeqCst) == 1));
        assert!(matches!(engine.health(), HealthState::Open));
        for consumer in &mut consumers {
            let events = drain(&engine, &streams, consumer);
            assert_eq!(events.len(), 2, "{events:?}");
            assert_eq!(consumer.stats()[0].state, StreamState::InMemory);
        }
    }
    assert_eq!(streams.counters().panics.get(), 0);
    drop(streams);
    store.finish(engine);
}

#[test]
fn a_waker_that_panics_in_a_worker_or_in_a_close_harms_no_other() {
    let store = TestStore::stepped();
    let engine = on_disk(&store, ["a".to_owned(), "b".to_owned()]);
    let (streams, mut rude) = stepped(&engine);
    let mut polite = streams
        .consumer("polite", &ConsumerConfig::default())
        .unwrap();
    let (planted, flag): (Arc<Rude>, Arc<Flag>) = Default::default();
    let (rude_waker, waker) = (
        Waker::from(Arc::clone(&planted)),
        Waker::from(Arc::clone(&flag)),
    );
    for (consumer, waker) in [(&mut rude, &rude_waker), (&mut polite, &waker)] {
        open(consumer, &StreamRequest::from_start(VB));
        assert!(poll(consumer, waker).is_pending());
    }

    // Events that a worker delivers.
    run_all(&streams);
    assert_eq!(planted.0.load(Ordering::SeqCst), 1);
    assert_eq!(flag.0.load(Ordering::SeqCst), 1);
    assert_eq!(streams.counters().panics.get(), 0, "not a slice's");
    for (consumer, waker) in [(&mut rude, &rude_waker), (&mut polite, &waker)] {
        let events = drain(&engine, &streams, consumer);
        assert_eq!(short(&events), ["0..2 disk", "a@1", "b@2"]);
        assert!(poll(consumer, waker).is_pending());
    }

    engine.close().unwrap();

    assert_eq!(planted.0.load(Ordering::SeqCst), 2);
    assert_eq!(flag.0.load(Ordering::SeqCst), 2);
    for consumer in [&mut rude, &mut polite] {
        assert_eq!(short(&take(consumer)), ["end shutdown"]);
    }
    drop((rude, polite, streams, engine));
    let engine = store.open();
    store.finish(engine);
}

/// A value that asks for statistics when it is dropped, which takes the locks that guard wakers.
struct Curious(Engine, Streams, Feed);

impl Wake for Curious {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Curious {
    fn drop(&mut self) {
        drop(self.1.stats());
        assert_eq!(self.2.watches(), 1);
        // Takes the flush lead and the queue's lock.
        self.0.step(BackgroundTask::Flusher).unwrap();
    }
}

#[test]
fn a_waker_that_is_replaced_is_dropped_under_no_lock() {
    let (done, is_done) = std::sync::mpsc::sync_channel(1);
    let work = move || {
        let store = TestStore::stepped();
        let engine = store.open();
        let (streams, mut consumer) = stepped(&engine);
        let curious = || {
            let feed = engine.feed(VB).unwrap();
            Waker::from(Arc::new(Curious(engine.clone(), streams.clone(), feed)))
        };
        let noop = Waker::noop();
        open(&mut consumer, &StreamRequest::from_start(VB));
        drain(&engine, &streams, &mut consumer);
        // The consumer's own watch is the one that `Curious` counts.
        assert!(poll(&mut consumer, &curious()).is_pending());
        assert!(poll(&mut consumer, noop).is_pending());
        let mut ticket = vb(&engine, 1).set_nowait("k", "v").unwrap();
        let polled = Pin::new(&mut ticket).poll(&mut Context::from_waker(&curious()));
        assert!(polled.is_pending());
        drop(ticket);
        drop((consumer, streams));
        store.finish(engine);
        done.send(()).unwrap();
    };
    let thread = std::thread::Builder::new().name("polls".to_owned());
    let thread = thread.spawn(work).unwrap();
    let ended = is_done.recv_timeout(PATIENCE);
    assert!(
        ended != Err(std::sync::mpsc::RecvTimeoutError::Timeout),
        "deadlock"
    );
    thread.join().unwrap();
}

#[test]
fn a_ticket_whose_waker_panics_harms_neither_the_flush_nor_the_other_tickets() {
    let store = TestStore::stepped();
    let engine = store.open();
    // One more directly on a vBucket: not even the reader of the streams is called before it.
    let watching: Arc<Rude> = Arc::default();
    let feed = engine.feed(VB).unwrap();
    let watch = Waker::from(Arc::clone(&watching));
    assert!(feed.watch(0, Visibility::Synced, Seqno::ZERO, &watch));
    for rude_at in [0, 1, 2] {
        let rude: Arc<Rude> = Arc::default();
        let flags = [Arc::<Flag>::default(), Arc::default()];
        let mut wakers: Vec<Waker> = flags.iter().cloned().map(Waker::from).collect();
        wakers.insert(rude_at, Waker::from(Arc::clone(&rude)));
        let mut tickets: Vec<Ticket> = wakers
            .iter()
            .map(|waker| {
                let mut ticket = vb(&engine, 1).set_nowait("k", "v").unwrap();
                let polled = Pin::new(&mut ticket).poll(&mut Context::from_waker(waker));
                assert!(polled.is_pending());
                ticket
            })
            .collect();

        engine.step(BackgroundTask::Flusher).unwrap();

        assert_eq!(rude.0.load(Ordering::SeqCst), 1);
        assert!(flags.iter().all(|flag| flag.0.load(Ordering::SeqCst) == 1));
        assert!(matches!(engine.health(), HealthState::Open));
        for (ticket, waker) in tickets.iter_mut().zip(&wakers) {
            let polled = Pin::new(ticket).poll(&mut Context::from_waker(waker));
            assert!(matches!(polled, Poll::Ready(Ok(_))), "{polled:?}");
        }
    }
    assert_eq!(watching.0.load(Ordering::SeqCst), 1);
    assert_eq!(feed.watches(), 0);
    drop(feed);
    store.finish(engine);
}

/// A waker that does a synced write, as in an executor that polls inline.
struct Writes(Engine, &'static str);

impl Wake for Writes {
    fn wake(self: Arc<Self>) {
        vb(&self.0, 1).set(self.1, "written in a waker").unwrap();
    }
}

#[test]
fn a_waker_may_write_and_wait_for_durability() {
    for store in [TestStore::threaded(), TestStore::stepped()] {
        let engine = store.open();
        let (streams, mut consumer) = stepped(&engine);
        open(&mut consumer, &StreamRequest::from_start(VB));
        drain(&engine, &streams, &mut consumer);
        let waker = Waker::from(Arc::new(Writes(engine.clone(), "by-consumer")));
        assert!(poll(&mut consumer, &waker).is_pending());
        let mut ticket = vb(&engine, 1).set_nowait("first", "v").unwrap();
        let of_ticket = Waker::from(Arc::new(Writes(engine.clone(), "by-ticket")));
        drop(Pin::new(&mut ticket).poll(&mut Context::from_waker(&of_ticket)));
        ticket.wait().unwrap();
        // Others write meanwhile, and the wakers' own writes arrive.
        let waker = Waker::noop();
        let mut seen = std::collections::BTreeSet::new();
        let clock = SystemClock::new();
        while !(seen.contains("by-consumer") && seen.contains("by-ticket")) {
            let is_late = clock.monotonic() > PATIENCE;
            assert!(!is_late, "only {seen:?} arrived: {:#?}", consumer.stats());
            vb(&engine, 1).set("other", "v").unwrap();
            while let Poll::Ready(Some(event)) = poll(&mut consumer, waker) {
                let key = event.event.item().map(|item| item.key.clone());
                seen.extend(key.map(|key| String::from_utf8(key.to_vec()).unwrap()));
            }
        }
        assert!(matches!(engine.health(), HealthState::Open));
        drop((ticket, consumer, streams, waker, of_ticket));
        store.finish(engine);
    }
}

/// A waker that reports that it was called, and blocks until it may go on.
struct Blocks {
    woken: SyncSender<()>,
    go_on: Mutex<Receiver<()>>,
}

impl Wake for Blocks {
    fn wake(self: Arc<Self>) {
        self.woken.send(()).unwrap();
        // An error: the sender was dropped.
        self.go_on.lock().unwrap().recv().unwrap_err();
    }
}

#[test]
fn a_waker_that_blocks_holds_up_no_writer_and_no_reader() {
    let store = TestStore::threaded();
    let engine = store.open();
    let (streams, mut blocked) = stepped(&engine);
    let mut other = streams
        .consumer("other", &ConsumerConfig::default())
        .unwrap();
    for consumer in [&mut blocked, &mut other] {
        open(consumer, &StreamRequest::from_start(VB));
        drain(&engine, &streams, consumer);
    }
    let (woken, is_woken) = sync_channel(1);
    let (held, go_on) = sync_channel(1);
    let go_on = Mutex::new(go_on);
    let waker = Waker::from(Arc::new(Blocks { woken, go_on }));
    assert!(poll(&mut blocked, &waker).is_pending());
    vb(&engine, 1).set("first", "v").unwrap();
    is_woken
        .recv_timeout(PATIENCE)
        .expect("a waker that is called");
    for n in 0..100 {
        vb(&engine, 1).set(format!("k{n}"), "v").unwrap();
    }
    engine.flush().unwrap();
    let mut changes = 0;
    while changes < 101 {
        let event = expect_event(&mut other);
        changes += usize::from(event.event.item().is_some());
    }
    // Closing does not wait for wakers.
    drop((blocked, other, streams));
    engine.close().unwrap();
    drop(held);
    drop(engine);
    let engine = store.open();
    store.finish(engine);
}

#[test]
fn thousands_of_followers_are_woken_and_each_has_everything() {
    let mut store = TestStore::threaded();
    store.config.tuning.flush_interval = std::time::Duration::from_secs(3_600);
    store.config.tuning.sync_interval = std::time::Duration::from_secs(3_600);
    let engine = store.open();
    let streams = Streams::start(&engine, &StreamsConfig::default()).unwrap();
    let mut followers: Vec<Consumer> = (0..1_000)
        .map(|_| {
            let mut consumer = streams.consumer("f", &ConsumerConfig::default()).unwrap();
            open(&mut consumer, &StreamRequest::from_start(VB));
            take(&mut consumer);
            consumer
        })
        .collect();
    let feed = engine.feed(VB).unwrap();
    assert_eq!(feed.watches(), 1_000);
    // A change that is not visible yet wakes no consumer.
    let memory = vbstore::Change::set("memory", "v");
    vb(&engine, 1)
        .write(memory, vbstore::Durability::Memory)
        .unwrap();
    assert_eq!(feed.watches(), 1_000);
    vb(&engine, 1).set("synced", "v").unwrap();
    assert_eq!(feed.watches(), 0);
    for follower in &mut followers {
        let mut keys = Vec::new();
        while keys.len() < 2 {
            let event = expect_event(follower).event;
            keys.extend(event.item().map(|item| item.key.clone()));
        }
        assert_eq!(keys, ["memory", "synced"]);
    }
    drop((followers, streams, feed));
    store.finish(engine);
}
