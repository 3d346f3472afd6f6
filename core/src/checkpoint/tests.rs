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

fn append(checkpoints: &mut Checkpoints, seqno: u64, key: &str) -> AppendOutcome {
    checkpoints.append(item(seqno, key), None, false, Duration::from_secs(seqno))
}

fn seqnos(taken: &[Arc<SealedCheckpoint>]) -> Vec<Vec<u64>> {
    let of = |s: &Arc<SealedCheckpoint>| {
        s.entries()
            .iter()
            .map(|e| e.item.meta.seqno.get())
            .collect()
    };
    taken.iter().map(of).collect()
}

fn previous(taken: &[Arc<SealedCheckpoint>], seqno: u64) -> Option<ItemMeta> {
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
        None,
        "what seqno 1 would have looked up"
    );
    assert_eq!(
        previous(&taken, 4),
        Some(item(3, "a").meta),
        "not the change on disk"
    );
}

#[test]
fn what_the_writer_read_counts_only_when_memory_has_no_change_of_the_key() {
    let mut c = Checkpoints::new(Seqno::new(9));
    let read = Some(item(7, "a").meta);
    c.append(item(10, "a"), read, false, Duration::ZERO);
    c.append(item(11, "a"), None, false, Duration::ZERO);
    c.seal();
    c.append(item(12, "a"), None, true, Duration::ZERO);

    let taken = c.begin_flush(u64::MAX);

    assert_eq!(previous(&taken, 11), read);
    assert_eq!(previous(&taken, 12), Some(item(11, "a").meta));
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
        "freed while the flush is in progress"
    );
    c.flush_failed();
    assert!(
        c.free_oldest().is_none(),
        "freed although it is not on disk"
    );

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

const ALL: ReadLimit = ReadLimit {
    items: usize::MAX,
    bytes: u64::MAX,
};

fn read(c: &mut Checkpoints, id: CursorId, announced: u64, upto: u64) -> Option<(Vec<u64>, u64)> {
    let announced = Seqno::new(announced);
    let read = c.read(id, announced, Seqno::new(upto), Seqno::ZERO, ALL);
    read.unwrap().map(|read| {
        let items = read.items.iter().map(|item| item.meta.seqno.get());
        (items.collect(), read.end.get())
    })
}

#[test]
fn a_cursor_registered_within_the_open_checkpoint_seals_it() {
    let mut c = Checkpoints::new(Seqno::ZERO);
    append(&mut c, 1, "a");
    append(&mut c, 2, "b");
    let id = c.register(Seqno::new(1)).unwrap();
    // Without sealing, this would replace a change that the cursor has read, and make its count
    // wrong.
    append(&mut c, 3, "a");
    assert_eq!(c.lag(id).unwrap().items, 2);
    assert_eq!(read(&mut c, id, 0, 9), Some((vec![2], 2)));
    c.seal();
    assert_eq!(read(&mut c, id, 0, 9), Some((vec![3], 3)));
    assert_eq!(c.lag(id).unwrap(), CursorLag::default());
    assert!(c.register(Seqno::new(4)).is_err(), "above the high seqno");
}

#[test]
fn a_read_goes_to_the_end_that_was_announced_and_no_further() {
    let mut c = Checkpoints::new(Seqno::ZERO);
    let id = c.register(Seqno::ZERO).unwrap();
    for seqno in 1..=6 {
        append(&mut c, seqno, &format!("k{}", seqno % 2));
        if seqno % 2 == 0 {
            c.seal();
        }
    }
    assert_eq!(
        read(&mut c, id, 0, 3),
        Some((vec![1, 2], 2)),
        "3 is not an end"
    );
    let one = ReadLimit { items: 1, ..ALL };
    let first = c.read(id, Seqno::new(2), Seqno::new(6), Seqno::ZERO, one);
    let first = first.unwrap().unwrap();
    assert_eq!((first.end, first.position), (Seqno::new(6), Seqno::new(3)));
    append(&mut c, 7, "late");
    c.seal();
    assert_eq!(read(&mut c, id, 6, 9), Some((vec![4, 5, 6], 6)));
    assert_eq!(read(&mut c, id, 6, 6), None);
    let below = c.read(id, Seqno::new(6), Seqno::new(9), Seqno::new(8), ALL);
    assert!(below.unwrap().is_none(), "no end at or above 8");
}

#[test]
fn of_cursors_in_one_checkpoint_the_one_that_lags_most_is_dropped_first() {
    let mut c = Checkpoints::new(Seqno::ZERO);
    for (seqno, key) in [(1, "a"), (2, "b"), (3, "c")] {
        append(&mut c, seqno, key);
    }
    c.begin_flush(u64::MAX);
    c.flush_succeeded();
    let at = |c: &mut Checkpoints, seqno| c.register(Seqno::new(seqno)).unwrap();
    let (middle, slow) = (at(&mut c, 1), at(&mut c, 0));
    assert_eq!(c.lowest_droppable().unwrap().0, slow);
    assert_eq!(c.drop_lowest().unwrap().items, 3);
    assert_eq!(c.lowest_droppable().unwrap().0, middle);
}

#[test]
fn what_a_cursor_has_not_read_stays_until_it_is_dropped() {
    let mut c = Checkpoints::new(Seqno::ZERO);
    let (slow, fast) = (
        c.register(Seqno::ZERO).unwrap(),
        c.register(Seqno::ZERO).unwrap(),
    );
    append(&mut c, 1, "a");
    assert!(c.drop_lowest().is_none(), "nothing on disk is unread");
    c.begin_flush(u64::MAX);
    assert!(c.drop_lowest().is_none(), "not on disk yet");
    c.flush_succeeded();
    read(&mut c, fast, 0, 1);
    assert!(c.free_oldest().is_none());
    assert_eq!(c.lowest_droppable().unwrap().0, slow);
    let lag = c.drop_lowest().unwrap();
    assert_eq!((lag.items, lag.since), (1, Some(Duration::from_secs(1))));
    assert!(c.drop_lowest().is_none(), "the fast one has read it");
    assert!(c.free_oldest().is_some());
    assert!(c.register(Seqno::ZERO).is_err());
    assert!(c.register(Seqno::new(1)).is_ok());
    assert!(
        c.read(slow, Seqno::ZERO, Seqno::MAX, Seqno::ZERO, ALL)
            .is_err()
    );
    assert_eq!(c.cursors(), 2);
    drop(c.reset());
    assert_eq!(c.cursors(), 0);
    assert_ne!(c.register(Seqno::ZERO).unwrap(), slow, "an id was reused");
}

#[test]
fn keys_are_visited_in_order_with_their_newest_changes() {
    let mut c = Checkpoints::new(Seqno::ZERO);
    append(&mut c, 1, "b");
    append(&mut c, 2, "d");
    c.begin_flush(u64::MAX);
    c.flush_succeeded();
    append(&mut c, 3, "c");
    c.begin_flush(u64::MAX);
    append(&mut c, 4, "b");
    append(&mut c, 5, "a");
    let visit = |c: &Checkpoints, from: &[u8], at_most: usize| {
        let mut seen = Vec::new();
        c.visit_from(from, |item| {
            seen.push(item.meta.seqno.get());
            seen.len() < at_most
        });
        seen
    };

    assert_eq!(visit(&c, b"", 9), [5, 4, 3, 2]);
    assert_eq!(visit(&c, b"b", 2), [4, 3]);
    assert_eq!(visit(&c, b"ba", 9), [3, 2]);
    c.flush_succeeded();
    assert!(c.free_oldest().is_some());
    assert_eq!(visit(&c, b"", 9), [5, 4, 3], "what was freed is gone");
}

#[test]
fn an_empty_checkpoint_is_never_sealed() {
    let mut c = Checkpoints::new(Seqno::new(4));
    c.seal();
    assert!(c.begin_flush(u64::MAX).is_empty());
    c.flush_failed();
    assert_eq!(c.high_seqno(), Seqno::new(4));
    append(&mut c, 5, "a");
    assert!(c.reset().memory() > 0);
    assert_eq!((c.high_seqno(), c.memory()), (Seqno::ZERO, 0));
}

/// Compares every total with the entries themselves. `cursors` has the expected place of each
/// cursor; dropped ones are skipped.
fn assert_totals(c: &Checkpoints, cursors: &[(CursorId, Seqno)]) {
    let sealed = || c.sealed.iter().flat_map(|s| s.entries.iter());
    let all: Vec<&CheckpointEntry> = sealed().chain(c.open.entries.values()).collect();
    let of = |above: Seqno| {
        let left = all.iter().filter(|e| e.item.meta.seqno > above);
        left.fold((0, 0), |(items, bytes), e| {
            (items + 1, bytes + e.item.memory())
        })
    };
    let (items, bytes) = of(Seqno::ZERO);
    let stats = c.stats();
    assert_eq!((stats.items, c.memory()), (items, bytes));
    let unpersisted = stats.unpersisted;
    assert_eq!((unpersisted.items, unpersisted.bytes), of(c.on_disk()));
    let (mut worst, mut backlog) = ((0, 0), (0, 0));
    let mut count = 0;
    for (id, position) in cursors {
        let (Some(lag), behind) = (c.lag(*id), of(*position)) else {
            continue;
        };
        count += 1;
        assert_eq!((lag.items, lag.bytes), behind, "{id:?}");
        worst = (behind.0.max(worst.0), behind.1.max(worst.1));
        backlog = (backlog.0 + behind.0, backlog.1 + behind.1);
    }
    assert_eq!((stats.worst.items, stats.worst.bytes), worst);
    assert_eq!((stats.backlog.items, stats.backlog.bytes), backlog);
    assert_eq!((stats.cursors, c.cursors()), (u64_from(count), count));
}

/// Runs a thousand random histories of everything that moves a total. Keys differ in length, so
/// that bytes and items are not proportional.
#[test]
fn every_total_agrees_with_the_entries_whatever_happens() {
    let mut state: u64 = 1;
    let mut draw = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % below
    };
    for _ in 0..1_000 {
        let mut c = Checkpoints::new(Seqno::ZERO);
        let mut cursors: Vec<(CursorId, Seqno)> = Vec::new();
        // Many keys in some histories: checkpoints with more entries than are recounted when
        // sealed.
        let keys = [3, 40][usize::try_from(draw(2)).unwrap()];
        let mut expected_memory = 0;
        for _ in 0..120 {
            match draw(12) {
                0..=5 => {
                    let key = draw(keys);
                    let key = format!("{key:0width$}", width = usize::try_from(key).unwrap());
                    let next = c.high_seqno().get() + 1;
                    let appended = append(&mut c, next, &key);
                    expected_memory = expected_memory + appended.added - appended.removed;
                }
                6 => {
                    c.seal();
                }
                7 => {
                    let is_empty = c.begin_flush(600).is_empty();
                    assert_totals(&c, &cursors);
                    if is_empty || draw(3) == 0 {
                        c.flush_failed();
                    } else {
                        c.flush_succeeded();
                    }
                }
                8 => {
                    let freed = c.free_oldest();
                    expected_memory -= freed.map_or(0, |sealed| sealed.memory());
                }
                9 => {
                    let at = Seqno::new(draw(c.high_seqno().get() + 1));
                    cursors.extend(c.register(at).map(|id| (id, at)));
                }
                10 => {
                    for (id, position) in &mut cursors {
                        let limit = ReadLimit { items: 3, ..ALL };
                        let read = c.read(*id, Seqno::ZERO, Seqno::MAX, Seqno::ZERO, limit);
                        if let Ok(Some(read)) = read {
                            *position = read.position;
                        }
                    }
                }
                _ => drop(c.drop_lowest()),
            }
            assert_totals(&c, &cursors);
            assert_eq!(c.memory(), expected_memory, "what the caller counts");
        }
    }
}

#[test]
#[should_panic(expected = "no flush of this vBucket is in progress")]
fn a_flush_ends_once() {
    let mut c = Checkpoints::new(Seqno::ZERO);
    append(&mut c, 1, "a");
    c.begin_flush(u64::MAX);
    c.flush_succeeded();
    c.flush_succeeded();
}
