//! Plants faults through raw RocksDB; `verify` must name each of them.

use rocksdb::{DB, Options, WriteBatch};
use vbstore::{Cas, Change, Counts, Durability, Engine, ItemKind, Problem, Seqno, VbId};
use vbstore_core::ItemMeta;
use vbstore_core::record::{DocumentHead, DocumentRecord, IndexEntry, VbState};
use vbstore_engine::raw::{key_family, seqno_family};
use vbstore_tests::{TestStore, put, vb};

const VB: VbId = VbId::new(1);

/// A closed store, opened through RocksDB alone.
struct Raw {
    db: DB,
    batch: WriteBatch,
}

impl Raw {
    fn get(&self, family: &str, key: &[u8]) -> Vec<u8> {
        self.db
            .get_cf(self.db.cf_handle(family).unwrap(), key)
            .unwrap()
            .unwrap()
    }

    fn put(&mut self, family: &str, key: &[u8], value: &[u8]) {
        self.batch
            .put_cf(self.db.cf_handle(family).unwrap(), key, value);
    }

    fn delete(&mut self, family: &str, key: &[u8]) {
        self.batch
            .delete_cf(self.db.cf_handle(family).unwrap(), key);
    }

    fn index(&self, key: &str) -> ItemMeta {
        let record = self.get(&key_family(VB), key.as_bytes());
        IndexEntry::decode(VB, key.as_bytes(), &record).unwrap().0
    }

    fn put_index(&mut self, key: &str, meta: ItemMeta) {
        let mut record = Vec::new();
        IndexEntry(meta).encode(VB, key.as_bytes(), &mut record);
        self.put(&key_family(VB), key.as_bytes(), &record);
    }

    fn put_document(&mut self, meta: ItemMeta, key: &str, value: &str) {
        let head = DocumentHead {
            meta,
            is_last_of_checkpoint: false,
            prev_seqno: Seqno::ZERO,
        };
        let mut record = Vec::new();
        let document = DocumentRecord {
            head,
            key: key.as_bytes(),
            value: value.as_bytes(),
        };
        document.encode(VB, &mut record).unwrap();
        self.put(&seqno_family(VB), &meta.seqno.to_key(), &record);
    }

    fn change_state(&mut self, change: impl FnOnce(&mut VbState)) {
        let key = VbState::storage_key(VB);
        let mut state = VbState::decode(VB, &self.get("default", &key)).unwrap();
        change(&mut state);
        let mut record = Vec::new();
        state.encode(VB, &mut record);
        self.put("default", &key, &record);
    }
}

/// Plants a fault into a store of three keys; returns the problems that `verify` finds.
fn verify_after(plant: impl FnOnce(&mut Raw)) -> Vec<Problem> {
    let store = TestStore::stepped();
    let engine = store.open();
    for key in ["a", "b", "c"] {
        put(&vb(&engine, 1), key, "value");
    }
    vb(&engine, 1)
        .write(Change::delete("c"), Durability::Logged)
        .unwrap();
    engine.close().unwrap();
    drop(engine);
    let db_path = store.path().join("db");
    let options = Options::default();
    let families = DB::list_cf(&options, &db_path).unwrap();
    let mut raw = Raw {
        db: DB::open_cf(&options, &db_path, families).unwrap(),
        batch: WriteBatch::default(),
    };
    plant(&mut raw);
    raw.db.write(std::mem::take(&mut raw.batch)).unwrap();
    drop(raw);

    let engine: Engine = store.open();
    let found = engine.verify(VB).unwrap();
    for number in [0, 2, 3] {
        assert!(
            engine.verify(VbId::new(number)).unwrap().is_ok(),
            "the others are in order"
        );
    }
    engine.close().unwrap();
    found.problems
}

/// Asserts that one problem has this text and names the vBucket, the seqno and the key.
fn assert_named(problems: &[Problem], seqno: Option<u64>, key: Option<&str>, says: &str) {
    let is_named = problems.iter().any(|problem| {
        problem.vb == Some(VB)
            && problem.seqno.map(Seqno::get) == seqno
            && problem.key.as_deref() == key.map(str::as_bytes)
            && problem.detail.contains(says)
    });
    assert!(
        is_named,
        "no problem at {seqno:?}, {key:?} that says {says:?}: {problems:#?}"
    );
}

#[test]
fn a_store_in_order_has_no_problem() {
    assert_eq!(verify_after(|_| ()), []);
}

#[test]
fn an_orphan_in_the_seqno_family() {
    let problems = verify_after(|raw| {
        let meta = ItemMeta {
            seqno: Seqno::new(3),
            ..raw.index("a")
        };
        raw.put_document(meta, "orphan", "value");
    });
    assert_named(
        &problems,
        Some(3),
        Some("orphan"),
        "document without an index entry",
    );
}

#[test]
fn an_orphan_in_the_key_family_whose_document_is_missing() {
    let problems = verify_after(|raw| raw.delete(&seqno_family(VB), &Seqno::new(2).to_key()));
    assert_named(
        &problems,
        Some(2),
        Some("b"),
        "index entry without a document",
    );
}

#[test]
fn a_document_whose_index_entry_is_missing() {
    let problems = verify_after(|raw| raw.delete(&key_family(VB), b"b"));
    assert_named(
        &problems,
        Some(2),
        Some("b"),
        "document without an index entry",
    );
}

#[test]
fn a_wrong_kind() {
    let problems = verify_after(|raw| {
        let meta = ItemMeta {
            kind: ItemKind::Expiration,
            ..raw.index("c")
        };
        raw.put_index("c", meta);
    });
    assert_named(&problems, Some(4), Some("c"), "kind: Expiration");
}

#[test]
fn a_count_off_by_one() {
    let problems = verify_after(|raw| {
        raw.change_state(|state| {
            state.counts = Counts {
                items: state.counts.items + 1,
                ..state.counts
            };
        });
    });
    assert_named(&problems, Some(4), None, "items: 3");
}

#[test]
fn a_high_seqno_too_high() {
    let problems = verify_after(|raw| {
        raw.change_state(|state| state.high_seqno = Seqno::new(5));
    });
    assert_named(&problems, Some(5), None, "the high seqno has no document");
}

#[test]
fn a_high_seqno_too_low() {
    let problems = verify_after(|raw| {
        raw.change_state(|state| state.high_seqno = Seqno::new(2));
    });
    assert_named(
        &problems,
        Some(4),
        Some("c"),
        "document above the high seqno 2",
    );
}

#[test]
fn a_high_seqno_that_is_not_a_boundary() {
    let problems = verify_after(|raw| {
        let meta = raw.index("c");
        raw.put_document(meta, "c", "");
    });
    assert_named(
        &problems,
        Some(4),
        Some("c"),
        "the high seqno is not a boundary",
    );
}

#[test]
fn a_wrong_value_length() {
    let problems = verify_after(|raw| {
        let meta = ItemMeta {
            value_len: 6,
            ..raw.index("a")
        };
        raw.put_index("a", meta);
    });
    assert_named(&problems, Some(1), Some("a"), "value_len: 6");
}

#[test]
fn a_bad_record() {
    let problems = verify_after(|raw| {
        let mut record = raw.get(&seqno_family(VB), &Seqno::new(2).to_key());
        record[10] ^= 1;
        raw.put(&seqno_family(VB), &Seqno::new(2).to_key(), &record);
    });
    assert_named(&problems, Some(2), None, "record checksum mismatch");
}

#[test]
fn a_bad_index_record() {
    let problems = verify_after(|raw| raw.put(&key_family(VB), b"a", b"nonsense"));
    assert_named(&problems, None, Some("a"), "index entry of key \"a\"");
}

#[test]
fn a_key_mismatch() {
    let problems = verify_after(|raw| {
        let meta = raw.index("a");
        raw.put_document(meta, "other", "value");
    });
    assert_named(
        &problems,
        Some(1),
        Some("a"),
        "whose document has the key \"other\"",
    );
}

#[test]
fn a_record_copied_to_another_place() {
    let problems = verify_after(|raw| {
        let record = raw.get(&seqno_family(VB), &Seqno::new(1).to_key());
        raw.put(&seqno_family(VB), &Seqno::new(2).to_key(), &record);
    });
    assert_named(&problems, Some(2), None, "record checksum mismatch");
}

#[test]
fn a_cas_above_the_largest() {
    // Opening begins new branches above all CAS values that may have been lost, because another
    // program changed the store. The planted CAS must exceed those too.
    let problems = verify_after(|raw| {
        let meta = ItemMeta {
            cas: Cas::RESTORED_MAX,
            ..raw.index("a")
        };
        raw.put_index("a", meta);
        raw.put_document(meta, "a", "value");
    });
    assert_named(
        &problems,
        Some(4),
        None,
        "CAS of a document is above the largest CAS",
    );
}

#[test]
fn an_entry_in_the_superseded_list() {
    let store = TestStore::stepped();
    store.open().close().unwrap();
    let db_path = store.path().join("db");
    let families = DB::list_cf(&Options::default(), &db_path).unwrap();
    let db = DB::open_cf(&Options::default(), &db_path, families).unwrap();
    db.put_cf(db.cf_handle("superseded").unwrap(), b"p", b"s")
        .unwrap();
    drop(db);
    let engine = store.open();
    assert!(!engine.verify_shared().unwrap().is_ok());
    engine.close().unwrap();
}
