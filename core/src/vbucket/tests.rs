//! Tests of a vBucket in memory.

use super::*;
use crate::checkpoint::ReadLimit;
use crate::filter::FilterDigest;
use crate::item::{Item, ItemKind, ItemMeta};
use crate::progress::StreamProgress;
use crate::readers::{ConsumerActivity, ReaderRegistration};
use crate::resume::Position;
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

fn append(cell: &VbCell, key: &str, now: Duration) -> FiredWakers {
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

fn filter() -> FilterDigest {
    FilterDigest::of(b"", false)
}

fn admit(cell: &VbCell, position: &Position) -> (AdmittedStart, ReaderRegistration) {
    let activity = ConsumerActivity::new(Duration::ZERO);
    match cell.admit(position, filter(), Seqno::MAX, &activity) {
        Ok(Admission::Admitted { start, reader }) => (start, reader),
        other => panic!("not admitted: {other:?}"),
    }
}

/// Returns the number of readers and the lowest taken seqno.
fn readers(cell: &VbCell) -> (u64, Option<u64>) {
    let stats = cell.lock().readers.stats();
    (stats.count, stats.lowest_taken.map(Seqno::get))
}

/// Returns a position at which everything up to `seqno` was taken.
fn complete_at(seqno: u64) -> Position {
    let seqno = Seqno::new(seqno);
    Position {
        vb_uuid: VbUuid::new(1),
        seqno,
        snap_start: seqno,
        snap_end: seqno,
        ..Position::default()
    }
}

#[test]
fn a_stream_is_a_reader_from_its_admission_at_what_it_has_taken() {
    let cell = cell();
    for key in ["a", "b", "c"] {
        append(&cell, key, Duration::ZERO).wake();
    }
    assert_eq!(readers(&cell), (0, None));
    let (_, first) = admit(&cell, &complete_at(2));
    assert_eq!(readers(&cell), (1, Some(2)));
    let (_, second) = admit(&cell, &complete_at(1));
    assert_eq!(readers(&cell), (2, Some(1)));
    // A stream that resumes after a pause is counted already.
    let again = cell.readmit(&complete_at(1), filter());
    assert!(matches!(again, Ok(Ok(_))));
    assert_eq!(readers(&cell), (2, Some(1)));
    second.reader().take(Seqno::new(3));
    assert_eq!(readers(&cell), (2, Some(2)));
    drop((first, second));
    assert_eq!(readers(&cell), (0, None));
}

#[test]
fn a_request_that_is_refused_leaves_no_reader() {
    let cell = cell();
    append(&cell, "a", Duration::ZERO).wake();
    let activity = ConsumerActivity::new(Duration::ZERO);
    // Above the high seqno; above the end of its own snapshot; with an end below the position.
    let rolled_back = cell.admit(&complete_at(9), filter(), Seqno::MAX, &activity);
    assert!(matches!(rolled_back, Ok(Admission::Refused(_))));
    let malformed = Position {
        snap_end: Seqno::ZERO,
        ..complete_at(1)
    };
    assert!(
        cell.admit(&malformed, filter(), Seqno::MAX, &activity)
            .is_err()
    );
    let ended = cell.admit(&complete_at(1), filter(), Seqno::ZERO, &activity);
    assert!(ended.is_err());
    assert_eq!(readers(&cell), (0, None));
    assert_eq!(Arc::strong_count(&activity), 1);
}

#[test]
fn a_reader_of_a_deleted_generation_does_not_count_for_the_next() {
    let cell = cell();
    append(&cell, "a", Duration::ZERO).wake();
    let (_, old) = admit(&cell, &Position::default());
    let mut inner = cell.lock();
    let (state, log) = (
        VbState::new(VbUuid::new(2)),
        FailoverLog::new(VbUuid::new(2), 0),
    );
    let (forgotten, fired) = cell.begin_generation(&mut inner, state, log, GenerationEnd::Deleted);
    drop(inner);
    drop(forgotten);
    fired.wake();
    assert_eq!(readers(&cell), (0, None));
    append(&cell, "b", Duration::ZERO).wake();
    append(&cell, "c", Duration::ZERO).wake();
    let (_, new) = admit(&cell, &Position::default());
    new.reader().take(Seqno::new(2));
    // The old reader changes nothing here, and neither does dropping it.
    old.reader().take(Seqno::new(1));
    assert_eq!(readers(&cell), (1, Some(2)));
    drop(old);
    assert_eq!(readers(&cell), (1, Some(2)));
    drop(new);
    assert_eq!(readers(&cell), (0, None));
}

#[test]
fn followers_of_unsynced_changes_seal_once_in_a_flush_interval() {
    let cell = cell();
    let (start, _reader) = admit(&cell, &Position::default());
    let (mut progress, generation) = (start.progress, start.generation);
    let cursor = start.cursor.unwrap();
    let seconds = Duration::from_secs;
    let read = |progress: &mut StreamProgress, now| {
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
    let watch = |progress: &StreamProgress, now| {
        let above = progress.position();
        cell.watch(generation, Visibility::Memory, above, Waker::noop(), now)
    };
    // The first change is delivered at once.
    assert!(watch(&progress, seconds(1)));
    assert_eq!(append(&cell, "a", seconds(1)).len(), 1);
    assert_eq!(read(&mut progress, seconds(1)), Some(1));
    // The next changes stay in one open checkpoint, where they replace each other.
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
    // One interval after its last seal, the follower may seal again.
    append(&cell, "c", seconds(3)).wake();
    assert!(!watch(&progress, seconds(11)));
    assert_eq!(read(&mut progress, seconds(11)), Some(1));
}
