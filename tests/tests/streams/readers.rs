//! Streams as their vBucket counts them: how many are in progress, and the seqno up to which they
//! were taken.

use futures_core::Stream;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use vbstore::{
    Consumer, ConsumerConfig, Engine, Error, Event, Seqno, StreamOptions, StreamRequest,
    StreamState, Streams, StreamsConfig, TryRecv, VbId, VbReaders, Visibility,
};
use vbstore_engine::raw;
use vbstore_tests::following::{VB, drain, on_disk, open, short, stepped, take};
use vbstore_tests::{TestStore, vb};

fn keys(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| format!("key-{n:04}"))
}

fn readers(engine: &Engine) -> VbReaders {
    vb(engine, 1).readers().unwrap()
}

/// Returns the number of readers, and the lowest seqno that one of them has taken.
fn taken(engine: &Engine) -> (u64, Option<u64>) {
    let readers = readers(engine);
    (readers.count, readers.lowest_taken.map(Seqno::get))
}

fn run(streams: &Streams) {
    while streams.step() {}
}

/// Returns a store that reads slices of four items.
fn slices_of_four() -> TestStore {
    let mut store = TestStore::stepped();
    store.config.tuning.slice_budget.items_max = 4;
    store
}

#[test]
fn what_is_taken_from_disk_counts_and_what_is_buffered_does_not() {
    let store = slices_of_four();
    let engine = on_disk(&store, keys(12));
    let (streams, mut consumer) = stepped(&engine);
    assert_eq!(taken(&engine), (0, None));
    open(&mut consumer, &StreamRequest::from_start(VB));
    assert_eq!(taken(&engine), (1, Some(0)), "from its admission on");
    run(&streams);
    assert_eq!(consumer.stats()[0].read_seqno, Seqno::new(12));
    assert_eq!(taken(&engine), (1, Some(0)), "read, and nothing taken");
    // Event by event: a marker does not raise the taken seqno, a change does.
    assert_eq!(
        short(&[consumer.recv().unwrap(), consumer.recv().unwrap()]),
        ["0..12 disk", "key-0000@1"]
    );
    assert_eq!(taken(&engine), (1, Some(1)));
    consumer.try_recv().unwrap();
    assert_eq!(taken(&engine), (1, Some(2)));
    // The rest of that batch, then a whole one: all of it counts as taken.
    let rest = consumer.next_batch(Duration::ZERO).unwrap();
    assert_eq!((rest.len(), taken(&engine)), (2, (1, Some(4))));
    let whole = consumer.next_batch(Duration::ZERO).unwrap();
    assert_eq!((whole.len(), taken(&engine)), (4, (1, Some(8))));
    assert_eq!(consumer.stats()[0].taken_seqno, Seqno::new(8));
    // A poll of a task.
    let mut context = Context::from_waker(Waker::noop());
    let polled = Pin::new(&mut consumer).poll_next(&mut context);
    assert!(matches!(polled, Poll::Ready(Some(_))));
    assert_eq!(taken(&engine), (1, Some(9)));
    drain(&engine, &streams, &mut consumer);
    assert_eq!(taken(&engine), (1, Some(12)));
    drop((rest, whole, consumer, streams));
    store.finish(engine);
}

#[test]
fn what_is_taken_from_memory_counts_and_what_is_buffered_does_not() {
    let store = TestStore::stepped();
    let engine = store.open();
    let (streams, mut consumer) = stepped(&engine);
    let options = StreamOptions {
        visibility: Visibility::Memory,
        ..StreamOptions::default()
    };
    let request = StreamRequest::from_start(VB).options(options);
    open(&mut consumer, &request);
    for key in keys(6) {
        vb(&engine, 1).set(key, "v").unwrap();
    }
    consumer.recv().unwrap();
    assert_eq!(taken(&engine), (1, Some(0)), "a marker");
    consumer.recv().unwrap();
    assert_eq!(consumer.stats()[0].read_seqno, Seqno::new(6));
    assert_eq!(taken(&engine), (1, Some(1)), "all read, one taken");
    consumer.next_batch(Duration::ZERO).unwrap();
    assert_eq!(taken(&engine), (1, Some(6)));
    for key in keys(2) {
        vb(&engine, 1).set(key, "w").unwrap();
    }
    consumer.next_batch(Duration::ZERO).unwrap();
    assert_eq!(taken(&engine), (1, Some(8)));
    assert_eq!(consumer.stats()[0].state, StreamState::InMemory);
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn an_advance_moves_what_is_taken_and_the_slowest_reader_counts() {
    let store = slices_of_four();
    let engine = on_disk(&store, keys(12));
    let (streams, mut filtered) = stepped(&engine);
    let options = StreamOptions {
        prefix: "other".into(),
        ..StreamOptions::default()
    };
    let request = StreamRequest::from_start(VB).options(options);
    open(&mut filtered, &request);
    let mut slow = streams
        .consumer("slow", &ConsumerConfig::default())
        .unwrap();
    open(&mut slow, &StreamRequest::from_start(VB));
    run(&streams);
    assert_eq!(short(&[filtered.recv().unwrap()]), ["0..12 disk"]);
    assert_eq!(short(&[filtered.recv().unwrap()]), ["to 4"]);
    assert_eq!(taken(&engine), (2, Some(0)));
    for _ in 0..6 {
        slow.recv().unwrap();
    }
    assert_eq!(taken(&engine), (2, Some(4)), "the filtered one is behind");
    take(&mut filtered);
    assert_eq!(taken(&engine), (2, Some(5)));
    drop(slow);
    assert_eq!(taken(&engine), (1, Some(12)));
    drop((filtered, streams));
    store.finish(engine);
}

#[test]
fn a_stream_is_a_reader_until_its_end_is_taken_or_it_is_closed() {
    let store = slices_of_four();
    let engine = on_disk(&store, keys(8));
    let (streams, mut consumer) = stepped(&engine);
    let until = StreamRequest::from_start(VB).until(Seqno::new(8));
    open(&mut consumer, &until);
    run(&streams);
    let mut kept = Vec::new();
    for end in [4, 8] {
        kept.push(consumer.next_batch(Duration::ZERO).unwrap());
        assert_eq!(taken(&engine), (1, Some(end)));
    }
    assert_eq!(consumer.stats()[0].state, StreamState::Ended);
    assert_eq!(taken(&engine), (1, Some(8)), "its end is not taken");
    assert_eq!(short(&[consumer.recv().unwrap()]), ["end reached_end"]);
    assert_eq!(taken(&engine), (0, None));

    // One that has only its end to deliver.
    open(
        &mut consumer,
        &StreamRequest::from_start(VB).until(Seqno::ZERO),
    );
    assert_eq!(taken(&engine), (1, Some(0)));
    let end = consumer.next_batch(Duration::ZERO).unwrap();
    assert_eq!((end.len(), taken(&engine)), (1, (0, None)));

    // Closing counts at once, though the end is not taken.
    open(&mut consumer, &StreamRequest::from_start(VB));
    run(&streams);
    consumer.recv().unwrap();
    assert_eq!(taken(&engine), (1, Some(0)));
    assert!(consumer.close(VB));
    assert_eq!(taken(&engine), (0, None));
    assert_eq!(short(&take(&mut consumer)), ["end closed"]);

    // The consumer is dropped, from disk and from memory, while the program keeps batches.
    for from_memory in [false, true] {
        open(&mut consumer, &StreamRequest::from_start(VB));
        run(&streams);
        kept.push(consumer.next_batch(Duration::ZERO).unwrap());
        if from_memory {
            drain(&engine, &streams, &mut consumer);
            assert_eq!(consumer.stats()[0].state, StreamState::InMemory);
        }
        assert_eq!(taken(&engine).0, 1);
        drop(consumer);
        assert_eq!(taken(&engine), (0, None));
        consumer = streams.consumer("c", &ConsumerConfig::default()).unwrap();
    }
    drop((consumer, streams));
    store.finish(engine);
    assert_eq!(kept.len(), 4);
}

#[test]
fn a_refused_stream_is_not_a_reader() {
    let store = TestStore::stepped();
    let engine = on_disk(&store, keys(8));
    let config = StreamsConfig {
        backfills_max: 1,
        pending_max: 0,
        ..StreamsConfig::default()
    };
    let streams = Streams::stepped(&engine, &config).unwrap();
    let mut consumer = streams.consumer("c", &ConsumerConfig::default()).unwrap();
    let elsewhere = StreamRequest::from_start(VbId::new(2));
    vb(&engine, 2).set("k", "v").unwrap();
    raw::forget_memory(&engine, true).unwrap();
    open(&mut consumer, &elsewhere);
    let refused = consumer.open(&StreamRequest::from_start(VB));
    assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
    assert_eq!(taken(&engine), (0, None));
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn a_reader_of_a_deleted_vbucket_does_not_count_for_what_comes_after() {
    let store = TestStore::stepped();
    let engine = on_disk(&store, keys(8));
    let (streams, mut consumer) = stepped(&engine);
    open(&mut consumer, &StreamRequest::from_start(VB));
    run(&streams);
    consumer.recv().unwrap();
    engine.delete_vbucket(VB).unwrap();
    assert_eq!(taken(&engine), (0, None), "its end is not taken");
    // A reader of the new vBucket beside it.
    for key in keys(3) {
        vb(&engine, 1).set(key, "new").unwrap();
    }
    let mut other = streams
        .consumer("other", &ConsumerConfig::default())
        .unwrap();
    open(&mut other, &StreamRequest::from_start(VB));
    assert_eq!(short(&drain(&engine, &streams, &mut other)).len(), 4);
    assert_eq!(taken(&engine), (1, Some(3)));
    // The old stream moves and ends, and affects nothing of the new one.
    let events = drain(&engine, &streams, &mut consumer);
    assert_eq!(short(&events).last().unwrap(), "end vbucket_gone");
    assert_eq!(taken(&engine), (1, Some(3)));
    drop(other);
    assert_eq!(taken(&engine), (0, None));
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn closing_the_engine_ends_its_readers() {
    let store = TestStore::stepped();
    let engine = on_disk(&store, keys(3));
    let (streams, mut consumer) = stepped(&engine);
    let mut frozen = streams
        .consumer("frozen", &ConsumerConfig::default())
        .unwrap();
    for consumer in [&mut consumer, &mut frozen] {
        open(consumer, &StreamRequest::from_start(VB));
        drain(&engine, &streams, consumer);
    }
    let kept = vb(&engine, 1);
    engine.close().unwrap();
    let count = || kept.readers().unwrap().count;
    assert_eq!(count(), 2);
    assert_eq!(short(&take(&mut consumer)), ["end shutdown"]);
    assert_eq!(count(), 1);
    drop(frozen);
    assert_eq!(count(), 0);
    drop((kept, consumer, streams, engine));
    let engine = store.open();
    store.finish(engine);
}

/// Buffer limit of all consumers together: one slice of four small documents.
fn few_buffers() -> StreamsConfig {
    StreamsConfig {
        buffer_bytes_max: 1_500,
        ..StreamsConfig::default()
    }
}

/// Lets time pass while a healthy consumer takes, so that the others are found to take nothing.
fn let_time_pass(store: &TestStore, streams: &Streams, healthy: &mut Consumer) {
    let clock = store.clock.as_ref().unwrap();
    for _ in 0..30 {
        run(streams);
        drop(healthy.try_recv());
        clock.advance(Duration::from_millis(100));
    }
    run(streams);
}

#[test]
fn a_paused_stream_stays_a_reader_at_what_it_took() {
    // Paused after every number of events, from memory and from disk.
    let mut pauses = [0; 2];
    for (from_memory, cut) in (0..14).map(|n| (n % 2 == 0, n)) {
        let store = slices_of_four();
        let engine = if from_memory {
            let engine = store.open();
            for key in keys(12) {
                vb(&engine, 1).set(key, "value").unwrap();
            }
            engine
        } else {
            on_disk(&store, keys(12))
        };
        let streams = Streams::stepped(&engine, &few_buffers()).unwrap();
        let mut frozen = streams
            .consumer("frozen", &ConsumerConfig::default())
            .unwrap();
        open(&mut frozen, &StreamRequest::from_start(VB));
        let mut seen = 0;
        for _ in 0..cut {
            run(&streams);
            seen = match frozen.try_recv() {
                Ok(event) => event.event.item().map_or(seen, |i| i.meta.seqno.get()),
                Err(TryRecv::Empty) => seen,
                Err(TryRecv::Ended) => panic!("no stream"),
            };
        }
        run(&streams);
        let before = taken(&engine);
        assert_eq!(before, (1, Some(seen)));

        let mut healthy = streams
            .consumer("healthy", &ConsumerConfig::default())
            .unwrap();
        let elsewhere = StreamRequest::from_start(VbId::new(2));
        for key in keys(20) {
            vb(&engine, 2).set(key, "x".repeat(200)).unwrap();
        }
        raw::forget_memory(&engine, true).unwrap();
        open(&mut healthy, &elsewhere);
        let_time_pass(&store, &streams, &mut healthy);
        drop(healthy);
        let is_paused = frozen.stats()[0].state == StreamState::Paused;
        pauses[usize::from(from_memory)] += usize::from(is_paused);
        assert_eq!(taken(&engine), before, "released, not taken");

        // It comes back: it is not counted twice, and its taken seqno never falls.
        let mut last = seen;
        for _ in 0..100 {
            run(&streams);
            let event = frozen.try_recv();
            let now = taken(&engine);
            assert_eq!(now.0, 1);
            assert!(now.1 >= Some(last), "{now:?} after {last}");
            last = now.1.unwrap();
            let at = event.map_or(last, |e| {
                e.event.item().map_or(last, |i| i.meta.seqno.get())
            });
            assert_eq!(last, at, "paused: {is_paused}");
        }
        assert_eq!(last, 12);
        drop((frozen, streams));
        store.finish(engine);
    }
    assert!(pauses.into_iter().all(|pauses| pauses >= 3), "{pauses:?}");
}

#[test]
fn a_paused_stream_that_cannot_go_on_is_not_a_reader_once_its_end_is_taken() {
    let store = slices_of_four();
    let engine = on_disk(&store, keys(12));
    for key in keys(12).take(6) {
        vb(&engine, 1).delete(key).unwrap();
    }
    raw::forget_memory(&engine, true).unwrap();
    let streams = Streams::stepped(&engine, &few_buffers()).unwrap();
    let mut frozen = streams
        .consumer("frozen", &ConsumerConfig::default())
        .unwrap();
    open(&mut frozen, &StreamRequest::from_start(VB));
    run(&streams);
    for _ in 0..3 {
        frozen.try_recv().unwrap();
    }
    let mut healthy = streams
        .consumer("healthy", &ConsumerConfig::default())
        .unwrap();
    open(&mut healthy, &StreamRequest::from_start(VB));
    let_time_pass(&store, &streams, &mut healthy);
    drop(healthy);
    assert_eq!(frozen.stats()[0].state, StreamState::Paused);
    // Purges even what readers may need.
    raw::purge_tombstones(&engine, VB, Seqno::MAX).unwrap();
    assert_eq!(taken(&engine).0, 1);
    let events = drain(&engine, &streams, &mut frozen);
    assert!(matches!(events[0].event, Event::End(_)), "{events:?}");
    assert_eq!(short(&events), ["end rollback"]);
    assert_eq!(taken(&engine), (0, None));
    drop((frozen, streams));
    store.finish(engine);
}

#[test]
fn readers_report_how_long_their_consumer_takes_nothing() {
    let store = slices_of_four();
    let engine = on_disk(&store, keys(12));
    vb(&engine, 2).set("k", "v").unwrap();
    let config = StreamsConfig {
        stall_limit: Duration::from_secs(40),
        disk_free_min_percent: 0,
        ..StreamsConfig::default()
    };
    let streams = Streams::stepped(&engine, &config).unwrap();
    let clock = store.clock.clone().unwrap();
    // The watchdog looks four times in each limit, here every 10 s.
    let pass = |seconds: u64| {
        for _ in 0..seconds {
            clock.advance(Duration::from_secs(1));
            run(&streams);
        }
    };
    let mut consumer = streams.consumer("c", &ConsumerConfig::default()).unwrap();
    open(&mut consumer, &StreamRequest::from_start(VB));
    let idle = || readers(&engine).idle.as_secs();
    assert_eq!(idle(), 0);
    pass(30);
    // The watchdog first saw something to take at 10 s.
    assert_eq!(idle(), 20);
    consumer.try_recv().unwrap();
    assert_eq!(idle(), 0, "at once");
    pass(35);
    assert!((25..=35).contains(&idle()), "{}", idle());
    // It takes of another vBucket while this one waits its turn.
    open(&mut consumer, &StreamRequest::from_start(VbId::new(2)));
    run(&streams);
    while consumer.try_recv().unwrap().vb == VB {}
    assert_eq!(idle(), 0);
    // It has taken everything there is.
    drain(&engine, &streams, &mut consumer);
    pass(100);
    assert_eq!(idle(), 0, "there is nothing to take");
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn a_stream_ended_as_stalled_is_not_a_reader_even_before_its_end_is_taken() {
    let store = slices_of_four();
    let engine = on_disk(&store, keys(12));
    let config = StreamsConfig {
        stall_limit: Duration::from_secs(40),
        // Makes the disk count as short of space.
        disk_free_min_percent: 100,
        ..StreamsConfig::default()
    };
    let streams = Streams::stepped(&engine, &config).unwrap();
    let mut frozen = streams
        .consumer("frozen", &ConsumerConfig::default())
        .unwrap();
    open(&mut frozen, &StreamRequest::from_start(VB));
    run(&streams);
    assert_eq!(taken(&engine), (1, Some(0)));
    for _ in 0..8 {
        store
            .clock
            .as_ref()
            .unwrap()
            .advance(Duration::from_secs(10));
        run(&streams);
    }
    assert_eq!(frozen.stats()[0].state, StreamState::Ended);
    assert_eq!(taken(&engine), (0, None));
    drop((frozen, streams));
    store.finish(engine);
}
