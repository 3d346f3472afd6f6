//! The end of a stream comes once, last, and before any event of a later stream.

use std::time::Duration;
use vbstore::{Error, Event, Seqno, StreamRequest, Streams, StreamsConfig, TryRecv};
use vbstore_tests::following::{VB, consumer, drain, keys, on_disk, open, run_all, short, take};
use vbstore_tests::{TestStore, vb};

#[test]
fn a_stream_that_reads_memory_while_it_is_ended_has_one_end() {
    // The watchdog ends a stream whose reader has just read its end from memory.
    let store = TestStore::stepped();
    let engine = store.open();
    vb(&engine, 1).set("k", "v").unwrap();
    let config = StreamsConfig {
        stall_limit: Duration::from_millis(1),
        disk_free_min_percent: 100,
        ..StreamsConfig::default()
    };
    let streams = Streams::stepped(&engine, &config).unwrap();
    let clock = store.clock.clone().unwrap();
    for ended_first in [false, true] {
        let mut consumer = consumer(&streams, "c");
        open(
            &mut consumer,
            &StreamRequest::from_start(VB).until(Seqno::new(1)),
        );
        if !ended_first {
            // It has read its end, and has taken nothing of it.
            assert!(consumer.try_recv().is_ok());
        }
        for _ in 0..3 {
            clock.advance(Duration::from_millis(10));
            assert!(!streams.step());
        }
        let ends: Vec<_> = take(&mut consumer)
            .into_iter()
            .filter(|event| matches!(event.event, Event::End(_)))
            .collect();
        let expected = if ended_first {
            "end stalled"
        } else {
            "end reached_end"
        };
        assert_eq!(short(&ends), [expected]);
        assert_eq!(consumer.try_recv().unwrap_err(), TryRecv::Ended);
    }
    let closed = &streams.counters().closed;
    assert_eq!(closed.of("stalled").get(), 1);
    assert_eq!(closed.of("reached_end").get(), 1);
    drop(streams);
    store.finish(engine);
}

#[test]
fn an_end_comes_once_and_last_and_before_anything_of_another_stream() {
    let store = TestStore::stepped();
    let engine = on_disk(&store, keys(3));
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let mut consumer = consumer(&streams, "c");
    for from_memory in [false, true] {
        open(&mut consumer, &StreamRequest::from_start(VB));
        drain(&engine, &streams, &mut consumer);
        if from_memory {
            vb(&engine, 1).set("new", "v").unwrap();
        }
        assert!(consumer.close(VB));
        let resume = StreamRequest::resume(VB, consumer.position(VB).unwrap());
        let refused = consumer.open(&resume);
        let is_refused =
            |result: &vbstore::Result<_>| matches!(result, Err(Error::Invalid { field: "vb", .. }));
        assert!(is_refused(&refused), "{refused:?}");
        assert_eq!(short(&take(&mut consumer)), ["end closed"]);
        open(&mut consumer, &resume);
        let events = drain(&engine, &streams, &mut consumer);
        assert!(
            !events
                .iter()
                .any(|event| matches!(event.event, Event::End(_)))
        );
        // In the middle of a batch: the rest of it is not delivered any more.
        consumer.close(VB);
        take(&mut consumer);
        open(&mut consumer, &StreamRequest::from_start(VB));
        run_all(&streams);
        consumer.try_recv().unwrap();
        assert!(consumer.close(VB));
        assert!(is_refused(&consumer.open(&resume)));
        assert_eq!(short(&take(&mut consumer)), ["end closed"]);
    }
    drop((consumer, streams));
    store.finish(engine);
}
