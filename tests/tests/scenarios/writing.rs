//! Writing: conditions, de-duplication, batches, counts.

use std::time::Duration;
use vbstore::{Cas, Change, Counts, Durability, Error, ItemKind};
use vbstore_tests::{TestStore, put, rows, vb};

const MEMORY: Durability = Durability::Memory;

#[test]
fn a_document_survives_memory_flush_and_reopening() {
    let store = TestStore::stepped();
    let engine = store.open();
    let change = Change::set("k", "value")
        .flags(7)
        .datatype(1)
        .expiry(2_000_000_000);
    let written = vb(&engine, 0).write(change, MEMORY).unwrap();
    let in_memory = vb(&engine, 0).get("k").unwrap().unwrap();
    engine.flush().unwrap();
    engine.close().unwrap();
    drop(engine);

    let engine = store.open();
    let on_disk = vb(&engine, 0).get("k").unwrap().unwrap();

    assert_eq!(on_disk, in_memory);
    assert_eq!(on_disk.value, "value");
    assert_eq!(
        (on_disk.meta.seqno, on_disk.meta.cas),
        (written.seqno, written.cas)
    );
    assert_eq!((on_disk.meta.flags, on_disk.meta.datatype), (7, 1));
    assert_eq!(on_disk.meta.expiry, 2_000_000_000);
    assert_eq!(vb(&engine, 1).get("k").unwrap(), None, "in another vBucket");
    store.finish(engine);
}

/// Checks the same conditions with the key in memory, or on disk only if `reopen`.
fn conditions(reopen: bool) {
    let store = TestStore::stepped();
    let mut engine = store.open();
    let first = put(&vb(&engine, 0), "k", "1");
    if reopen {
        engine.close().unwrap();
        engine = store.open();
    }
    let vb = vb(&engine, 0);
    let write = |change: Change| vb.write(change, MEMORY);
    let high = vb.seqnos().unwrap().high;

    assert!(matches!(write(Change::add("k", "2")), Err(Error::Exists { cas }) if cas == first.cas));
    assert!(matches!(
        write(Change::replace("none", "2")),
        Err(Error::NotFound)
    ));
    assert!(matches!(
        write(Change::delete("none")),
        Err(Error::NotFound)
    ));
    assert!(matches!(
        write(Change::touch("none", 1)),
        Err(Error::NotFound)
    ));
    let wrong = Cas::new(1);
    for change in [
        Change::set("k", "2"),
        Change::delete("k"),
        Change::replace("k", "2"),
    ] {
        let refused = write(change.cas(wrong)).unwrap_err();
        let Error::CasMismatch { expected, found } = refused else {
            panic!("{refused}")
        };
        assert_eq!((expected, found), (wrong, first.cas));
    }
    assert!(matches!(
        write(Change::set("none", "2").cas(wrong)),
        Err(Error::NotFound)
    ));
    assert_eq!(
        vb.seqnos().unwrap().high,
        high,
        "a refused change took a seqno"
    );

    let second = write(Change::replace("k", "2").cas(first.cas)).unwrap();
    assert!(second.cas > first.cas);
    let touched = write(Change::touch("k", 4_000_000_000)).unwrap();
    let document = vb.get("k").unwrap().unwrap();
    assert_eq!(
        (&document.value[..], document.meta.expiry),
        (&b"2"[..], 4_000_000_000)
    );
    write(Change::delete("k").cas(touched.cas)).unwrap();
    assert_eq!(vb.get("k").unwrap(), None);
    assert!(matches!(write(Change::delete("k")), Err(Error::NotFound)));
    write(Change::add("k", "3")).unwrap();
    engine.flush().unwrap();
    let counts = vb.counts().unwrap().counts;
    assert_eq!(
        counts,
        Counts {
            items: 1,
            tombstones: 0,
            bytes: 2
        }
    );
    store.finish(engine);
}

#[test]
fn conditions_are_checked_against_memory() {
    conditions(false);
}

#[test]
fn conditions_are_checked_against_disk() {
    conditions(true);
}

#[test]
fn touch_reads_the_value_from_disk() {
    let store = TestStore::stepped();
    let engine = store.open();
    let change = Change::set("k", "value").flags(9).datatype(2);
    vb(&engine, 0).write(change, MEMORY).unwrap();
    engine.close().unwrap();
    let engine = store.open();

    vb(&engine, 0).touch("k", 3_000_000_000).unwrap();

    let document = vb(&engine, 0).get("k").unwrap().unwrap();
    assert_eq!(document.value, "value");
    assert_eq!((document.meta.flags, document.meta.datatype), (9, 2));
    assert_eq!(document.meta.expiry, 3_000_000_000);
    store.finish(engine);
}

#[test]
fn an_expired_document_is_absent_and_still_counted() {
    let store = TestStore::stepped();
    let engine = store.open();
    let vb = vb(&engine, 0);
    // The manual clock starts at second 1,000,000.
    vb.write(Change::set("k", "old").expiry(1_000_010), MEMORY)
        .unwrap();
    assert!(vb.get("k").unwrap().is_some());

    store
        .clock
        .as_ref()
        .unwrap()
        .advance(Duration::from_secs(10));

    assert_eq!(vb.get("k").unwrap(), None);
    assert_eq!(vb.get_many(&["k"]).unwrap(), [None]);
    assert!(
        vb.get_meta("k")
            .unwrap()
            .is_some_and(|meta| !meta.is_present(1_000_010))
    );
    assert!(matches!(
        vb.write(Change::replace("k", "new"), MEMORY),
        Err(Error::NotFound)
    ));
    assert!(matches!(
        vb.write(Change::delete("k"), MEMORY),
        Err(Error::NotFound)
    ));
    engine.flush().unwrap();
    assert_eq!(vb.counts().unwrap().counts.items, 1);
    vb.write(Change::add("k", "new"), MEMORY).unwrap();
    engine.flush().unwrap();
    assert_eq!(vb.counts().unwrap().counts.items, 1);
    store.finish(engine);
}

#[test]
fn an_overwrite_deletes_the_entry_it_replaces_wherever_that_was() {
    let store = TestStore::stepped();
    let engine = store.open();
    let vb0 = vb(&engine, 0);
    put(&vb0, "disk", "1");
    put(&vb0, "memory", "1");
    engine.close().unwrap();
    let engine = store.open();
    let vb0 = vb(&engine, 0);

    put(&vb0, "disk", "2");
    put(&vb0, "memory", "2");
    engine.flush().unwrap();
    put(&vb0, "memory", "3");
    put(&vb0, "open", "1");
    put(&vb0, "open", "2");
    engine.flush().unwrap();

    let expected = [
        (3, "mutation", "disk", "2", 1),
        (5, "mutation", "memory", "3", 4),
        (7, "mutation", "open", "2", 0),
    ];
    let found = rows(&vb0);
    let found: Vec<_> = found
        .iter()
        .map(|r| (r.0, r.1, &*r.2, &*r.3, r.4))
        .collect();
    assert_eq!(found, expected);
    store.finish(engine);
}

#[test]
fn a_batch_is_all_or_nothing_and_takes_consecutive_seqnos() {
    let store = TestStore::stepped();
    let engine = store.open();
    let vb = vb(&engine, 0);
    put(&vb, "a", "1");
    let batch = [
        Change::set("b", "2"),
        Change::add("a", "no"),
        Change::set("c", "3"),
    ];
    assert!(matches!(
        vb.batch(&batch, MEMORY),
        Err(Error::Exists { .. })
    ));
    assert_eq!(vb.seqnos().unwrap().high.get(), 1);
    assert_eq!(vb.get("b").unwrap(), None);

    let batch = [
        Change::set("b", "2"),
        Change::delete("a"),
        Change::set("c", "3"),
    ];
    let written = vb.batch(&batch, Durability::Synced).unwrap();

    assert_eq!(
        written.iter().map(|w| w.seqno.get()).collect::<Vec<_>>(),
        [2, 3, 4]
    );
    let seqnos = vb.seqnos().unwrap();
    assert_eq!((seqnos.persisted.get(), seqnos.synced.get()), (4, 4));
    let twice = [Change::set("x", "1"), Change::set("x", "2")];
    assert!(matches!(
        vb.batch(&twice, MEMORY),
        Err(Error::Invalid { field: "batch", .. })
    ));
    assert!(matches!(
        vb.batch(&[], MEMORY),
        Err(Error::Invalid { field: "batch", .. })
    ));
    store.finish(engine);
}

#[test]
fn counts_follow_every_way_a_key_can_change() {
    let store = TestStore::stepped();
    let engine = store.open();
    let vb = vb(&engine, 0);
    let counts = || {
        engine.flush().unwrap();
        let counts = vb.counts().unwrap().counts;
        (counts.items, counts.tombstones, counts.bytes)
    };
    put(&vb, "key", "12345");
    assert_eq!(counts(), (1, 0, 8));
    put(&vb, "key", "1");
    assert_eq!(counts(), (1, 0, 4));
    vb.write(Change::delete("key"), MEMORY).unwrap();
    assert_eq!(counts(), (0, 1, 0));
    let restored = Change::restore(ItemKind::Deletion, "key", "", Cas::new(5)).expiry(77);
    vb.write(restored, MEMORY).unwrap();
    assert_eq!(counts(), (0, 1, 0));
    let restored = Change::restore(ItemKind::Expiration, "never", "", Cas::new(6)).expiry(78);
    vb.write(restored, MEMORY).unwrap();
    assert_eq!(counts(), (0, 2, 0));
    let restored = Change::restore(ItemKind::Mutation, "key", "abc", Cas::new(9));
    let written = vb.write(restored, MEMORY).unwrap();
    assert_eq!(written.cas, Cas::new(9));
    assert_eq!(counts(), (1, 1, 6));
    let meta = vb.get_meta("never").unwrap().unwrap();
    assert_eq!(
        (meta.kind, meta.expiry, meta.cas.get()),
        (ItemKind::Expiration, 78, 6)
    );
    store.finish(engine);
}

#[test]
fn cas_rises_when_the_clock_goes_back_and_over_a_restart() {
    let store = TestStore::stepped();
    let engine = store.open();
    let first = put(&vb(&engine, 0), "k", "1").cas;
    engine.close().unwrap();
    store.clock.as_ref().unwrap().set_wall_micros(5);
    let engine = store.open();

    let second = put(&vb(&engine, 0), "k", "2").cas;
    let third = put(&vb(&engine, 0), "k", "3").cas;

    assert!(first < second && second < third, "{first} {second} {third}");
    store.finish(engine);
}

#[test]
fn of_a_key_in_several_checkpoints_of_one_batch_only_the_newest_change_is_written() {
    let mut store = TestStore::stepped();
    // Each of these values ends a checkpoint.
    store.config.tuning.checkpoint_bytes_max = 64 << 10;
    let engine = store.open();
    let first = vb(&engine, 0);
    let value = |n: u64| format!("{n}-{}", "v".repeat(64 << 10));
    put(&first, "key", &value(1));
    put(&first, "other", "v");
    engine.flush().unwrap();
    let before = engine.metrics().flushed_items.get();
    for n in 3..=8 {
        put(&first, "key", &value(n));
    }
    first.write(Change::delete("other"), MEMORY).unwrap();
    put(&first, "gone", &value(10));
    first.write(Change::delete("gone"), MEMORY).unwrap();
    put(&first, "other", &value(12));
    put(&first, "key", &value(13));
    put(&first, "last", "v");
    engine.flush().unwrap();

    assert_eq!(engine.metrics().flushed_items.get() - before, 4);
    let shown: Vec<_> = rows(&first)
        .into_iter()
        .map(|(seqno, kind, key, _, previous)| (seqno, kind, key, previous))
        .collect();
    // Each replaces a change that was on disk before the batch; "gone" was not.
    let row = |seqno, kind, key: &str, previous| (seqno, kind, key.to_owned(), previous);
    assert_eq!(
        shown,
        [
            row(11, "deletion", "gone", 0),
            row(12, "mutation", "other", 2),
            row(13, "mutation", "key", 1),
            row(14, "mutation", "last", 0),
        ]
    );
    let counts = first.counts().unwrap().counts;
    assert_eq!((counts.items, counts.tombstones), (3, 1));
    assert_eq!(first.seqnos().unwrap().synced.get(), 14);
    store.finish(engine);
}
