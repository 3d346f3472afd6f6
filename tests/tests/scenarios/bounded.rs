//! What is done under a lock or in the lead does not grow with what is in memory.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use vbstore::failpoint::{Action, Gate, place};
use vbstore::{BackgroundTask, Change, Durability};
use vbstore_tests::{TestStore, put, vb};

#[test]
fn a_batch_of_many_keys_holds_up_no_other_vbucket() {
    let store = TestStore::threaded();
    let engine = store.open();
    let gate = Arc::new(Gate::default());
    let wait = Action::Wait(Arc::clone(&gate));
    store.failpoints.once(place::WRITE_ASSIGN, wait);
    std::thread::scope(|scope| {
        let large = vb(&engine, 0);
        let batch = scope.spawn(move || {
            let keys = (0..10_000).map(|n| Change::add(format!("key-{n}"), "v"));
            let changes: Vec<Change> = keys.collect();
            large.batch(&changes, Durability::Memory)
        });
        // It holds the stripes of all its keys from here on.
        let arrival = gate.wait_for_arrival();
        let (done, is_done) = mpsc::sync_channel(1);
        let other = vb(&engine, 1);
        scope.spawn(move || {
            for n in 0..1_000 {
                put(&other, &format!("key-{n}"), "v");
            }
            done.send(()).unwrap();
        });
        let waited = is_done.recv_timeout(Duration::from_secs(60));
        // Readers of the batch's own vBucket go on, and do not see a part of it.
        let seen = vb(&engine, 0).get("key-1").unwrap();
        drop(arrival);
        assert!(batch.join().unwrap().is_ok());
        waited.unwrap();
        assert!(seen.is_none());
    });
    store.finish(engine);
}

#[test]
fn memory_is_freed_by_turns_of_some_thousand_changes() {
    let mut store = TestStore::stepped();
    store.config.tuning.memory_quota = 16 << 20;
    store.config.tuning.checkpoint_bytes_max = 64 << 10;
    let engine = store.open();
    let mut written = 0;
    while engine.checkpoint_memory() < 15 << 20 {
        put(&vb(&engine, written % 4), &format!("key-{written}"), "v");
        written += 1;
    }
    let each = engine.checkpoint_memory() / u64::from(written);
    let low = (16 << 20) / 100 * 70;
    let freed = &engine.metrics().freed_bytes;
    let turn_max = (4_096 + 1) * each + (64 << 10);

    engine.flush().unwrap();
    assert!(freed.get() > 0);
    let mut turns = 1;
    while engine.checkpoint_memory() > low {
        let before = freed.get();
        assert!(
            before <= turns * turn_max,
            "{before} bytes in {turns} turns"
        );
        // Nobody writes, and the flusher was asked to go on.
        engine.step(BackgroundTask::Flusher).unwrap();
        assert!(freed.get() > before, "stopped above the low mark");
        turns += 1;
    }
    assert!(turns > 1, "all was freed in one turn");
    store.finish(engine);
}
