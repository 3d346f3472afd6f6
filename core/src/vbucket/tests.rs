//! Tests of a vBucket in memory.

use super::*;
use crate::item::{Item, ItemKind, ItemMeta};
use bytes::Bytes;
use std::sync::Arc;

const LIMIT: ReadLimit = ReadLimit {
    items: 100,
    bytes: u64::MAX,
};

fn cell() -> VbCell {
    let uuid = VbUuid::new(1);
    VbCell::new(VbId::new(0), VbState::new(uuid), FailoverLog::new(uuid, 0))
}

fn append(cell: &VbCell, key: &str, now: Duration) -> Fired {
    let mut inner = cell.lock();
    let seqno = inner.checkpoints.high_seqno().next().unwrap();
    let item = Item {
        meta: ItemMeta {
            seqno,
            kind: ItemKind::Mutation,
            cas: Cas::new(seqno.get()),
            flags: 0,
            expiry: 0,
            datatype: 0,
            value_len: 0,
        },
        key: key.as_bytes().into(),
        value: Bytes::new(),
    };
    inner.checkpoints.append(Arc::new(item), None, false, now);
    inner.fire(cell, Some(now))
}

#[test]
fn followers_of_unsynced_changes_seal_once_in_a_flush_interval() {
    let cell = cell();
    let Ok(Admission::Admitted {
        mut progress,
        generation,
        cursor: Some(cursor),
    }) = cell.admit(
        &Position::default(),
        FilterDigest::of(b"", false),
        Seqno::MAX,
    )
    else {
        panic!("not admitted");
    };
    let seconds = Duration::from_secs;
    let read = |progress: &mut Progress, now| {
        let seal = SealTime {
            now,
            interval: seconds(10),
        };
        let read = cell
            .read(
                generation,
                cursor,
                progress,
                Visibility::Memory,
                LIMIT,
                seal,
            )
            .unwrap()
            .unwrap();
        read.map(|(read, _)| {
            progress.take_memory(read.end, read.position);
            read.items.len()
        })
    };
    let watch = |progress: &Progress, now| {
        let above = progress.position();
        cell.watch(generation, Visibility::Memory, above, Waker::noop(), now)
    };
    // The first change is delivered at once.
    assert!(watch(&progress, seconds(1)));
    assert_eq!(append(&cell, "a", seconds(1)).len(), 1);
    assert_eq!(read(&mut progress, seconds(1)), Some(1));
    // The next ones stay in one open checkpoint, where they replace each other.
    assert!(watch(&progress, seconds(2)));
    for _ in 0..5 {
        assert!(append(&cell, "b", seconds(2)).is_empty());
    }
    assert_eq!(read(&mut progress, seconds(10)), None);
    // A flush seals them, which fires the watch.
    let mut inner = cell.lock();
    inner.checkpoints.begin_flush(u64::MAX);
    assert_eq!(inner.fire(&cell, None).len(), 1);
    drop(inner);
    assert_eq!(read(&mut progress, seconds(10)), Some(1));
    assert_eq!(progress.position(), Seqno::new(6));
    // An interval after the follower sealed, it may again.
    append(&cell, "c", seconds(3)).wake();
    assert!(!watch(&progress, seconds(11)));
    assert_eq!(read(&mut progress, seconds(11)), Some(1));
}
