use super::*;
use crate::ids::Cas;
use crate::item::{ItemKind, ItemMeta};
use bytes::Bytes;

fn item(seqno: u64, key: &str) -> Arc<Item> {
    let meta = ItemMeta {
        seqno: Seqno::new(seqno),
        kind: ItemKind::Mutation,
        cas: Cas::new(seqno),
        flags: 0,
        expiry: 0,
        datatype: 0,
        value_len: 1,
    };
    Arc::new(Item {
        meta,
        key: key.as_bytes().into(),
        value: Bytes::from_static(b"v"),
    })
}

fn append(checkpoints: &mut Checkpoints, seqno: u64, key: &str) -> Appended {
    checkpoints.append(
        item(seqno, key),
        Previous::Unknown,
        false,
        Duration::from_secs(seqno),
    )
}

fn seqnos(taken: &[Arc<Sealed>]) -> Vec<Vec<u64>> {
    let of = |s: &Arc<Sealed>| {
        s.entries()
            .iter()
            .map(|e| e.item.meta.seqno.get())
            .collect()
    };
    taken.iter().map(of).collect()
}

fn previous(taken: &[Arc<Sealed>], seqno: u64) -> Previous {
    let entries = || taken.iter().flat_map(|s| s.entries());
    entries()
        .find(|e| e.item.meta.seqno.get() == seqno)
        .unwrap()
        .previous
}

#[test]
fn a_newer_change_replaces_an_older_one_only_in_the_open_checkpoint() {
    let mut c = Checkpoints::new(Seqno::ZERO);
    append(&mut c, 1, "a");
    append(&mut c, 2, "b");
    let replaced = append(&mut c, 3, "a");
    assert_eq!(replaced.removed, replaced.added);
    c.seal();
    append(&mut c, 4, "a");
    append(&mut c, 5, "c");

    let taken = c.begin_flush(u64::MAX);

    assert_eq!(seqnos(&taken), [vec![2, 3], vec![4, 5]]);
    assert_eq!(taken[0].end(), Seqno::new(3));
    assert_eq!(
        previous(&taken, 3),
        Previous::Unknown,
        "what seqno 1 would have looked up"
    );
    assert_eq!(
        previous(&taken, 4),
        Previous::Known(item(3, "a").meta),
        "not what the disk has"
    );
}

#[test]
fn what_the_writer_read_counts_only_when_memory_has_no_change_of_the_key() {
    let mut c = Checkpoints::new(Seqno::new(9));
    let read = Previous::Known(item(7, "a").meta);
    c.append(item(10, "a"), read, false, Duration::ZERO);
    c.append(item(11, "a"), Previous::None, false, Duration::ZERO);
    c.seal();
    c.append(item(12, "a"), Previous::None, true, Duration::ZERO);

    let taken = c.begin_flush(u64::MAX);

    assert_eq!(previous(&taken, 11), read);
    assert_eq!(previous(&taken, 12), Previous::Known(item(11, "a").meta));
    assert_eq!(
        taken.iter().map(|s| s.is_sync_wanted()).collect::<Vec<_>>(),
        [false, true]
    );
}

#[test]
fn a_failed_flush_takes_the_same_checkpoints_again_and_frees_none() {
    let mut c = Checkpoints::new(Seqno::ZERO);
    append(&mut c, 1, "a");
    let first = c.begin_flush(u64::MAX);
    append(&mut c, 2, "a");
    assert!(
        c.free_oldest().is_none(),
        "freed while the flush is under way"
    );
    c.flush_failed();
    assert!(c.free_oldest().is_none(), "freed though it is not on disk");

    let second = c.begin_flush(u64::MAX);

    assert_eq!(seqnos(&first), [vec![1]]);
    assert_eq!(
        seqnos(&second),
        [vec![1], vec![2]],
        "never merged: the first may be on disk"
    );
    c.flush_succeeded();
    assert!(!c.has_unflushed());
}

#[test]
fn a_flush_takes_at_least_one_checkpoint_and_whole_ones_only() {
    let mut c = Checkpoints::new(Seqno::ZERO);
    for seqno in 1..=3 {
        append(&mut c, seqno, &format!("key-{seqno}"));
        c.seal();
    }
    assert_eq!(seqnos(&c.begin_flush(1)), [[1]]);
    c.flush_succeeded();
    let two = 2 * item(1, "key-1").memory();
    assert_eq!(seqnos(&c.begin_flush(two)), [[2], [3]]);
}

#[test]
fn freeing_forgets_a_key_only_if_memory_has_nothing_newer_of_it() {
    let mut c = Checkpoints::new(Seqno::ZERO);
    append(&mut c, 1, "a");
    append(&mut c, 2, "b");
    c.begin_flush(u64::MAX);
    c.flush_succeeded();
    append(&mut c, 3, "a");

    let freed = c.free_oldest().unwrap();

    assert_eq!(freed.end(), Seqno::new(2));
    assert_eq!(c.get(b"a").unwrap().meta.seqno, Seqno::new(3));
    assert!(c.get(b"b").is_none());
    assert!(
        c.free_oldest().is_none(),
        "the open checkpoint is never freed"
    );
    assert_eq!(c.memory(), item(3, "a").memory());
}

#[test]
fn unpersisted_changes_include_those_of_a_flush_under_way() {
    let mut c = Checkpoints::new(Seqno::ZERO);
    append(&mut c, 1, "a");
    c.begin_flush(u64::MAX);
    c.flush_succeeded();
    append(&mut c, 2, "b");
    c.begin_flush(u64::MAX);
    append(&mut c, 3, "c");

    let mut seen = Vec::new();
    c.for_each_unpersisted(|item| seen.push(item.meta.seqno.get()));

    assert_eq!(seen, [2, 3]);
}

#[test]
fn an_empty_checkpoint_is_never_sealed() {
    let mut c = Checkpoints::new(Seqno::new(4));
    c.seal();
    assert!(c.begin_flush(u64::MAX).is_empty());
    c.flush_failed();
    assert_eq!(c.high_seqno(), Seqno::new(4));
    append(&mut c, 5, "a");
    assert!(c.reset() > 0);
    assert_eq!((c.high_seqno(), c.memory()), (Seqno::ZERO, 0));
}
