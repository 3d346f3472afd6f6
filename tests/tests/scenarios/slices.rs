//! Slices are bounded and exact, and release their db snapshot when they return.

use std::sync::Arc;
use std::time::Duration;
use vbstore::{
    Change, Clock, DbSnapshotHolder, Durability, Engine, Error, Seqno, SeqnoRange, SliceBudget,
    SliceEnd,
};
use vbstore_tests::{TestStore, assert_at_rest, put, rows, rows_in_slices, vb};

#[test]
fn slices_of_any_size_add_up_to_the_same() {
    let store = TestStore::stepped();
    let engine = store.open();
    let vb = vb(&engine, 0);
    for n in 0..50 {
        put(&vb, &format!("k{}", n % 20), &n.to_string());
        if n % 7 == 0 {
            engine.flush().unwrap();
        }
    }
    vb.write(Change::delete("k3"), Durability::Logged).unwrap();

    let whole = rows(&vb);

    assert_eq!(whole.len(), 20);
    assert_eq!(
        whole.last().map(|row| (row.0, row.1)),
        Some((51, "deletion"))
    );
    for items in [1, 2, 3, 19, 20, 21] {
        assert_eq!(rows_in_slices(&vb, items), whole, "{items} a slice");
    }
    store.finish(engine);
}

#[test]
fn a_slice_says_what_its_view_held() {
    let store = TestStore::stepped();
    let engine = store.open();
    let vb = vb(&engine, 0);
    put(&vb, "a", "1");
    put(&vb, "b", "22");
    engine.flush().unwrap();
    put(&vb, "c", "3");

    let slice = vb
        .scan_slice(SeqnoRange::above(Seqno::ZERO), SliceBudget::default())
        .unwrap();

    assert_eq!(
        slice.persisted_seqno().get(),
        2,
        "what is in memory only is not on disk"
    );
    assert_eq!(slice.purge_seqno(), Seqno::ZERO);
    assert_eq!(slice.vb_uuid(), vb.seqnos().unwrap().vb_uuid);
    assert_eq!((slice.counts().items, slice.counts().bytes), (2, 5));
    assert_eq!(
        (slice.position().get(), slice.end()),
        (2, SliceEnd::Complete)
    );
    assert!(slice.items().last().unwrap().is_last_of_checkpoint);
    let beyond = vb
        .scan_slice(SeqnoRange::above(Seqno::new(9)), SliceBudget::default())
        .unwrap();
    assert_eq!(
        (beyond.position().get(), beyond.end()),
        (9, SliceEnd::Complete)
    );
    assert!(beyond.is_empty());
    store.finish(engine);
}

#[test]
fn a_range_is_exclusive_below_and_inclusive_above() {
    let store = TestStore::stepped();
    let engine = store.open();
    let vb = vb(&engine, 0);
    for n in 1..=9 {
        put(&vb, &n.to_string(), "v");
    }
    engine.flush().unwrap();
    let scan = |after, to| {
        let range = SeqnoRange {
            after: Seqno::new(after),
            to: Seqno::new(to),
        };
        let slice = vb.scan_slice(range, SliceBudget::default())?;
        let seqnos: Vec<u64> = slice.items().map(|item| item.meta.seqno.get()).collect();
        Ok::<_, Error>((seqnos, slice.position().get()))
    };
    assert_eq!(scan(2, 5).unwrap(), (vec![3, 4, 5], 5));
    assert_eq!(scan(5, 5).unwrap(), (vec![], 5));
    assert_eq!(scan(8, u64::MAX).unwrap(), (vec![9], 9));
    assert!(matches!(
        scan(5, 4),
        Err(Error::Invalid { field: "range", .. })
    ));
    store.finish(engine);
}

#[test]
fn bytes_and_items_end_a_slice_but_one_item_always_passes() {
    let store = TestStore::stepped();
    let engine = store.open();
    let vb = vb(&engine, 0);
    for n in 0..5 {
        put(&vb, &n.to_string(), &"x".repeat(99));
    }
    engine.flush().unwrap();
    let scan = |budget| {
        let slice = vb
            .scan_slice(SeqnoRange::above(Seqno::ZERO), budget)
            .unwrap();
        (slice.len(), slice.end())
    };
    let budget = SliceBudget::default();
    assert_eq!(
        scan(SliceBudget {
            bytes_max: 1,
            ..budget
        }),
        (1, SliceEnd::Budget)
    );
    assert_eq!(
        scan(SliceBudget {
            bytes_max: 299,
            ..budget
        }),
        (2, SliceEnd::Budget)
    );
    assert_eq!(
        scan(SliceBudget {
            bytes_max: 300,
            ..budget
        }),
        (3, SliceEnd::Budget)
    );
    assert_eq!(
        scan(SliceBudget {
            bytes_max: 500,
            ..budget
        }),
        (5, SliceEnd::Complete)
    );
    assert_eq!(
        scan(SliceBudget {
            items_max: 4,
            ..budget
        }),
        (4, SliceEnd::Budget)
    );
    let no_time = SliceBudget {
        duration_max: Duration::ZERO,
        ..budget
    };
    assert_eq!(scan(no_time), (1, SliceEnd::Budget));
    assert!(
        vb.scan_slice(
            SeqnoRange::above(Seqno::ZERO),
            SliceBudget {
                items_max: 0,
                ..budget
            }
        )
        .is_err()
    );
    store.finish(engine);
}

/// A clock that advances by a millisecond each time it is read.
#[derive(Debug, Default)]
struct Ticking(std::sync::atomic::AtomicU64);

impl Clock for Ticking {
    fn wall_micros(&self) -> u64 {
        1_000_000_000_000
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst))
    }
}

fn ticking() -> (TestStore, Engine) {
    let store = TestStore::stepped();
    let clock = Arc::new(Ticking::default());
    let engine = store.builder().clock(clock).open().unwrap();
    (store, engine)
}

fn ten_readings() -> SliceBudget {
    SliceBudget {
        duration_max: Duration::from_millis(10),
        ..SliceBudget::default()
    }
}

#[test]
fn time_is_looked_at_on_every_row() {
    let (store, engine) = ticking();
    let vb = vb(&engine, 0);
    for n in 0..100 {
        put(&vb, &n.to_string(), "v");
    }
    engine.flush().unwrap();

    let slice = vb
        .scan_slice(SeqnoRange::above(Seqno::ZERO), ten_readings())
        .unwrap();

    assert!(
        (2..=11).contains(&slice.len()),
        "{} rows in ten readings",
        slice.len()
    );
    assert_eq!(slice.end(), SliceEnd::Budget);
    store.finish(engine);
}

#[test]
fn time_is_looked_at_between_windows() {
    let (store, engine) = ticking();
    let vb = vb(&engine, 0);
    for _ in 0..120_000 {
        put(&vb, "hot", "v");
    }
    engine.flush().unwrap();
    put(&vb, "hot", "v");
    engine.flush().unwrap();

    let slice = vb
        .scan_slice(SeqnoRange::above(Seqno::ZERO), ten_readings())
        .unwrap();

    // The clock is read once a window, so at most one window exceeds the budget.
    let windows = slice.position().get() / 8_192;
    assert!((2..=11).contains(&windows), "{windows} in ten readings");
    assert_eq!(slice.position().get() % 8_192, 0);
    assert_eq!((slice.len(), slice.end()), (0, SliceEnd::Budget));
    store.finish(engine);
}

#[test]
fn empty_windows_move_the_position() {
    // Windows are 8,192 seqnos wide: many of them hold only overwritten changes.
    let store = TestStore::stepped();
    let engine = store.open();
    let vb = vb(&engine, 0);
    put(&vb, "first", "1");
    engine.flush().unwrap();
    for _ in 0..200_000 {
        put(&vb, "hot", "v");
    }
    engine.flush().unwrap();
    put(&vb, "last", "1");
    engine.flush().unwrap();

    let seqnos: Vec<u64> = rows_in_slices(&vb, 1).iter().map(|row| row.0).collect();

    assert_eq!(seqnos, [1, 200_001, 200_002]);
    let no_time = SliceBudget {
        duration_max: Duration::ZERO,
        ..SliceBudget::default()
    };
    let slice = vb
        .scan_slice(SeqnoRange::above(Seqno::new(1)), no_time)
        .unwrap();
    assert_eq!(
        (slice.position().get(), slice.len()),
        (8_193, 0),
        "ended between windows"
    );
    store.finish(engine);
}

#[test]
fn a_db_snapshot_is_counted_while_it_is_open_and_never_after() {
    let store = TestStore::threaded();
    let engine = store.open();
    let vb = vb(&engine, 0);
    for n in 0..1_000 {
        put(&vb, &n.to_string(), "v");
    }
    engine.flush().unwrap();
    let db_snapshots = &engine.metrics().db_snapshots;
    let before = db_snapshots.opened();

    let slices = rows_in_slices(&vb, 100);

    assert_eq!(slices.len(), 1_000);
    assert!(db_snapshots.opened() - before >= 10);
    assert_eq!(db_snapshots.open_by(DbSnapshotHolder::Slice), 0);
    assert_at_rest(&engine);
    assert!(db_snapshots.longest_hold() > Duration::ZERO);
    store.finish(engine);
}

#[test]
fn bytes_of_a_slice_are_shared_and_others_are_copied() {
    let store = TestStore::stepped();
    let engine = store.open();
    vb(&engine, 0).set("key", "value").unwrap();
    let range = SeqnoRange::above(Seqno::ZERO);
    let slice = vb(&engine, 0)
        .scan_slice(range, SliceBudget::default())
        .unwrap();
    let key = slice.item(0).unwrap().key;
    assert_eq!(slice.share(key).as_ptr(), key.as_ptr());
    let foreign = b"foreign".to_vec();
    let copy = slice.share(&foreign);
    assert_eq!(&copy[..], b"foreign");
    assert_ne!(copy.as_ptr(), foreign.as_ptr());
    assert!(slice.share(&[]).is_empty());
    store.finish(engine);
}
