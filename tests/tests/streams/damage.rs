//! A stream meets a spoilt block on the disk.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use vbstore::{
    Change, ConsumerConfig, Durability, EndReason, Engine, Error, Event, Seqno, StreamRequest, VbId,
};
use vbstore_tests::following::{VB, drain, open, short, stepped};
use vbstore_tests::{TestStore, assert_at_rest, vb};

const OTHER: VbId = VbId::new(2);
const DOCUMENTS: usize = 400;

/// Bytes that do not compress, so that many documents are many blocks.
fn noise(seed: usize) -> Vec<u8> {
    let mut state = u64::try_from(seed)
        .unwrap()
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        | 1;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u8::try_from(state & 0xff).unwrap()
    };
    (0..2_000).map(|_| byte()).collect()
}

fn in_files(store: &TestStore) -> Engine {
    let engine = store.open();
    for n in 0..DOCUMENTS {
        let change = Change::set(format!("key-{n:04}"), noise(n));
        vb(&engine, 1).write(change, Durability::Memory).unwrap();
    }
    for key in ["a", "b"] {
        vb(&engine, 2).set(key, "v").unwrap();
    }
    engine.flush().unwrap();
    for number in [VB, OTHER] {
        engine.compact(number).unwrap();
    }
    engine
}

/// The data file that holds the documents: by far the largest.
fn documents_file(store: &TestStore) -> PathBuf {
    let files = std::fs::read_dir(store.path().join("db")).unwrap();
    let files = files.map(|entry| entry.unwrap().path());
    let tables = files.filter(|path| path.extension().is_some_and(|e| e == "sst"));
    let size = |path: &PathBuf| path.metadata().unwrap().len();
    tables.max_by_key(size).unwrap()
}

fn spoil(path: &Path) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    file.write_all_at(&[0xa5; 16], middle).unwrap();
}

#[test]
fn a_spoilt_block_ends_the_stream_that_meets_it_and_no_other() {
    let mut store = TestStore::stepped();
    store.config.tuning.slice_budget.items_max = 50;
    // Nothing of the file may be in the block cache.
    let engine = in_files(&store);
    engine.close().unwrap();
    drop(engine);
    spoil(&documents_file(&store));

    let engine = store.open();
    let (streams, mut consumer) = stepped(&engine);
    let mut other = streams
        .consumer("other", &ConsumerConfig::default())
        .unwrap();
    open(&mut consumer, &StreamRequest::from_start(VB));
    open(&mut other, &StreamRequest::from_start(OTHER));
    let events = drain(&engine, &streams, &mut consumer);

    let last = &events.last().unwrap().event;
    let Event::End(EndReason::Error(Error::Corruption { .. })) = last else {
        panic!("{last:?}");
    };
    let taken: Vec<Seqno> = events
        .iter()
        .filter_map(|event| Some(event.event.item()?.meta.seqno))
        .collect();
    // Whole slices before the block, nothing of the one with it, nothing after it.
    assert!(
        taken.len() >= 50 && taken.len() < DOCUMENTS,
        "{}",
        taken.len()
    );
    assert_eq!(taken.len() % 50, 0);
    let in_order = (1..).map(Seqno::new).take(taken.len());
    assert!(taken.iter().copied().eq(in_order));
    let position = consumer.position(VB).unwrap();
    assert_eq!(Some(&position.seqno), taken.last());

    let events = drain(&engine, &streams, &mut other);
    assert_eq!(short(&events), ["0..2 disk", "a@1", "b@2"]);
    let stats = streams.stats();
    assert_eq!((stats.buffered_bytes, stats.streams.len()), (0, 1));
    assert_at_rest(&engine);
    // It goes on from where it was, as far as it gets: to the same block.
    open(&mut consumer, &StreamRequest::resume(VB, position));
    let events = drain(&engine, &streams, &mut consumer);
    assert_eq!(short(&events), ["end error"]);
    // Writing goes on.
    vb(&engine, 2).set("c", "v").unwrap();
    drop((consumer, other, streams));
    assert_at_rest(&engine);
    drop(engine);
}
