//! Reading by key and in key order.

use std::collections::BTreeMap;
use vbstore::{Change, Durability, Error, KeyRange, Page, PageForm, SliceBudget, VBucket};
use vbstore_tests::{TestStore, put, vb};

fn all(vb: &VBucket, range: KeyRange, form: PageForm, items_max: usize) -> Vec<(String, String)> {
    let budget = SliceBudget {
        items_max,
        ..SliceBudget::default()
    };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut found = Vec::new();
    let mut next = Some(range);
    while let Some(range) = next {
        let page: Page = vb.range_within(&range, form, budget).unwrap();
        assert!(page.entries.len() <= items_max);
        found.extend(page.entries.iter().map(|entry| {
            assert_eq!(entry.value.is_some(), form == PageForm::Documents);
            (
                text(&entry.key),
                text(entry.value.as_deref().unwrap_or_default()),
            )
        }));
        next = page.rest;
    }
    found
}

#[test]
fn pages_merge_memory_and_disk_and_leave_out_what_is_gone() {
    let store = TestStore::stepped();
    let engine = store.open();
    let vb = vb(&engine, 0);
    let mut expected = BTreeMap::new();
    for n in 0..100 {
        let (key, value) = (format!("key-{n:03}"), format!("disk {n}"));
        put(&vb, &key, &value);
        expected.insert(key, value);
    }
    engine.flush().unwrap();
    for n in (0..150).step_by(3) {
        let (key, value) = (format!("key-{n:03}"), format!("memory {n}"));
        put(&vb, &key, &value);
        expected.insert(key, value);
    }
    for n in (0..100).step_by(10) {
        let key = format!("key-{n:03}");
        vb.write(Change::delete(&key), Durability::Memory).unwrap();
        expected.remove(&key);
    }
    let expected: Vec<(String, String)> = expected.into_iter().collect();

    for items_max in [1, 7, 1_000] {
        assert_eq!(
            all(&vb, KeyRange::all(), PageForm::Documents, items_max),
            expected
        );
    }
    let keys: Vec<_> = expected
        .iter()
        .map(|(key, _)| (key.clone(), String::new()))
        .collect();
    assert_eq!(all(&vb, KeyRange::all(), PageForm::Meta, 9), keys);
    let some: Vec<_> = expected
        .iter()
        .filter(|(k, _)| k.starts_with("key-05"))
        .cloned()
        .collect();
    assert_eq!(
        all(&vb, KeyRange::prefix("key-05"), PageForm::Documents, 4),
        some
    );
    let range = KeyRange::new("key-010", Some("key-013".into()));
    let some: Vec<_> = expected
        .iter()
        .filter(|(k, _)| ("key-010".."key-013").contains(&&**k))
        .cloned()
        .collect();
    assert_eq!(all(&vb, range, PageForm::Documents, 4), some);
    store.finish(engine);
}

#[test]
fn a_range_that_ends_before_it_begins_is_refused() {
    let store = TestStore::stepped();
    let engine = store.open();
    let refused = vb(&engine, 0).range(&KeyRange::new("b", Some("a".into())), PageForm::Meta);
    assert!(matches!(
        refused,
        Err(Error::Invalid { field: "range", .. })
    ));
    store.finish(engine);
}

#[test]
fn get_many_answers_in_order_from_memory_and_disk() {
    let store = TestStore::stepped();
    let engine = store.open();
    let vb0 = vb(&engine, 0);
    put(&vb0, "disk", "1");
    put(&vb0, "gone", "1");
    engine.close().unwrap();
    let engine = store.open();
    let vb0 = vb(&engine, 0);
    put(&vb0, "memory", "2");
    vb0.write(Change::delete("gone"), Durability::Memory)
        .unwrap();

    let found = vb0
        .get_many(&["memory", "none", "disk", "gone", "disk"])
        .unwrap();

    let values: Vec<_> = found
        .iter()
        .map(|d| d.as_ref().map(|d| d.value.to_vec()))
        .collect();
    let expected = [
        Some(b"2".to_vec()),
        None,
        Some(b"1".to_vec()),
        None,
        Some(b"1".to_vec()),
    ];
    assert_eq!(values, expected);
    store.finish(engine);
}

#[test]
fn readers_and_writers_of_one_key_never_see_a_hole() {
    let store = TestStore::threaded();
    let engine = store.open();
    let vb = vb(&engine, 0);
    put(&vb, "k", "0");
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 1..=2_000 {
                let durability = if n % 5 == 0 {
                    Durability::Logged
                } else {
                    Durability::Memory
                };
                vb.write(Change::set("k", n.to_string()), durability)
                    .unwrap();
            }
        });
        let mut last = 0;
        while !writer.is_finished() {
            let value = vb.get("k").unwrap().expect("the key is never absent").value;
            let now: u32 = std::str::from_utf8(&value).unwrap().parse().unwrap();
            assert!(now >= last, "{now} after {last}");
            last = now;
        }
    });
    store.finish(engine);
}
