//! Limits are exact: n-1 and n pass, n+1 is refused and changes nothing.

use vbstore::{Change, Durability, Engine, Error, Tuning, VbId};
use vbstore_tests::{TestStore, put, vb};

const MEMORY: Durability = Durability::Memory;

fn size(n: u64) -> usize {
    usize::try_from(n).unwrap()
}

fn too_large(result: Result<vbstore::WriteReceipt, Error>, field: &str, size: u64, max: u64) {
    match result {
        Err(Error::TooLarge {
            field: f,
            size: s,
            max: m,
        }) => {
            assert_eq!((f, s, m), (field, size, max));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn key_sizes() {
    for max in [1, 250, 65_535] {
        let mut store = TestStore::stepped();
        store.config.key_bytes_max = max;
        let engine = store.open();
        let vb = vb(&engine, 0);
        for length in [max - 1, max].into_iter().filter(|length| *length > 0) {
            let key = vec![b'k'; size(length)];
            vb.write(Change::set(&key, "v"), MEMORY).unwrap();
            engine.flush().unwrap();
            assert!(vb.get(&key).unwrap().is_some());
        }
        let high = vb.seqnos().unwrap().high;
        let key = vec![b'k'; size(max + 1)];
        too_large(
            vb.write(Change::set(&key, "v"), MEMORY),
            "key",
            max + 1,
            max,
        );
        let empty = vb.write(Change::set("", "v"), MEMORY);
        assert!(matches!(empty, Err(Error::Invalid { field: "key", .. })));
        assert_eq!(vb.seqnos().unwrap().high, high);
        store.finish(engine);
    }
}

#[test]
fn value_sizes() {
    let store = TestStore::stepped();
    let engine = store.open();
    let vb = vb(&engine, 0);
    let max = vbstore::VALUE_BYTES_LIMIT;
    for length in [0, 1, max - 1, max] {
        let value = vec![b'v'; size(length)];
        vb.write(Change::set("k", value), Durability::Logged)
            .unwrap();
        assert_eq!(vb.get("k").unwrap().unwrap().value.len(), size(length));
    }
    let high = vb.seqnos().unwrap().high;
    let value = vec![b'v'; size(max + 1)];
    too_large(
        vb.write(Change::set("k", value), MEMORY),
        "value",
        max + 1,
        max,
    );
    assert_eq!(vb.seqnos().unwrap().high, high);
    store.finish(engine);
}

#[test]
fn batch_sizes() {
    let mut store = TestStore::stepped();
    store.config.batch_items_max = 3;
    store.config.batch_bytes_max = 100;
    let engine = store.open();
    let vb = vb(&engine, 0);
    let batch = |count: u64| -> Vec<Change> {
        (0..count)
            .map(|n| Change::set(n.to_string(), "v"))
            .collect()
    };
    for count in 1..=3 {
        vb.batch(&batch(count), MEMORY).unwrap();
    }
    let high = vb.seqnos().unwrap().high;
    let refused = vb.batch(&batch(4), MEMORY).map(|mut all| all.remove(0));
    too_large(refused, "batch", 4, 3);

    let of_bytes = |bytes: usize| {
        [
            Change::set("a", "12345678"),
            Change::set("b", vec![b'x'; bytes - 10]),
        ]
    };
    vb.batch(&of_bytes(99), MEMORY).unwrap();
    vb.batch(&of_bytes(100), MEMORY).unwrap();
    let refused = vb
        .batch(&of_bytes(101), MEMORY)
        .map(|mut all| all.remove(0));
    too_large(refused, "batch bytes", 101, 100);
    assert_eq!(vb.seqnos().unwrap().high.get(), high.get() + 4);
    // A single change is bounded by the limit of its value, not by that of batches.
    vb.write(Change::set("alone", vec![b'x'; 1_000]), MEMORY)
        .unwrap();
    store.finish(engine);
}

#[test]
fn vbucket_numbers() {
    let store = TestStore::stepped();
    let engine = store.open();
    assert!(engine.vbucket(VbId::new(3)).is_ok());
    for number in [4, 5, 1_023, 1_024, u16::MAX] {
        let refused = engine.vbucket(VbId::new(number)).unwrap_err();
        assert!(
            matches!(refused, Error::Invalid { field: "vb", .. }),
            "{refused}"
        );
        let refused = engine.delete_vbucket(VbId::new(number)).unwrap_err();
        assert!(
            matches!(refused, Error::Invalid { field: "vb", .. }),
            "{refused}"
        );
    }
    store.finish(engine);
}

#[test]
fn a_tuning_out_of_bounds_changes_nothing() {
    let store = TestStore::stepped();
    let engine = store.open();
    let refused = engine.set_tuning(Tuning {
        memory_quota: 1,
        ..Tuning::default()
    });
    assert!(matches!(
        refused,
        Err(Error::Invalid {
            field: "memory_quota",
            ..
        })
    ));
    assert_eq!(engine.tuning().memory_quota, Tuning::default().memory_quota);

    engine
        .set_tuning(Tuning {
            memory_quota: 1 << 20,
            ..Tuning::default()
        })
        .unwrap();
    assert_eq!(engine.tuning().memory_quota, 1 << 20);
    put(&vb(&engine, 0), "k", "v");
    store.finish(engine);
}

#[test]
fn an_engine_is_cheap_to_clone_and_crosses_threads() {
    fn check<T: Clone + Send + Sync + 'static>() {}
    check::<Engine>();
    check::<vbstore::VBucket>();
}
