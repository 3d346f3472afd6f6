//! A stream reads a corrupt block.

use rocksdb::{BottommostLevelCompaction, CompactOptions, DB};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use vbstore::{
    Change, ConsumerConfig, Durability, EndReason, Error, Event, HealthState, Seqno, StreamEvent,
    StreamRequest, VbId,
};
use vbstore_engine::raw::{self, FamilyOptions, StorageConfig};
use vbstore_tests::following::{VB, drain, open, short, stepped};
use vbstore_tests::{TestStore, assert_at_rest, vb};

const OTHER: VbId = VbId::new(2);
const DOCUMENTS: usize = 400;

/// Returns bytes that do not compress, so that the documents fill many blocks.
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

/// Moves the documents into one file of the last level, and closes the store. RocksDB rewrites such
/// a file by itself after a db snapshot is released, unless its sequence numbers are zero. The file
/// is rewritten here, so that only a stream reads the corrupt block.
fn in_files(store: &TestStore) {
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
    engine.close().unwrap();
    drop(engine);
    with_rocksdb(store, |db| {
        let mut options = CompactOptions::default();
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        let family = db.cf_handle(&raw::seqno_family(VB)).unwrap();
        db.compact_range_cf_opt(family, None::<&[u8]>, None::<&[u8]>, &options);
    });
}

/// Opens a closed store through RocksDB alone.
fn with_rocksdb(store: &TestStore, work: impl FnOnce(&DB)) {
    let options = FamilyOptions::new(StorageConfig {
        vbuckets: 4,
        block_cache_bytes: 1 << 20,
        write_buffer_bytes: 1 << 20,
        open_files_max: 100,
    });
    let path = store.path().join("db");
    let db = DB::open_cf_descriptors(&options.database(), path, options.families()).unwrap();
    work(&db);
}

/// Returns the data file that holds the documents: by far the largest. The store must be closed,
/// because RocksDB removes files while it is open.
fn documents_file(store: &TestStore) -> PathBuf {
    let files = std::fs::read_dir(store.path().join("db")).unwrap();
    let files = files.map(|entry| entry.unwrap().path());
    let tables = files.filter(|path| path.extension().is_some_and(|e| e == "sst"));
    let size = |path: &PathBuf| path.metadata().unwrap().len();
    tables.max_by_key(size).unwrap()
}

fn corrupt(path: &Path) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    file.write_all_at(&[0xa5; 16], middle).unwrap();
}

/// Asserts that the stream ended because RocksDB found a corrupt block in this file. If a record's
/// own checksum finds the corruption, the error names no file: then the block's checksum was not
/// checked.
fn assert_names_the_file(events: &[StreamEvent], path: &Path) {
    let last = &events.last().unwrap().event;
    let Event::End(EndReason::Error(Error::Corruption { file, detail, .. })) = last else {
        panic!("{last:?}");
    };
    let name = path.file_name().unwrap().to_str();
    assert_eq!(file.as_deref(), name, "{detail}");
    assert!(detail.contains("checksum mismatch"), "{detail}");
}

/// Flips one bit; a second call restores it.
fn flip(path: &Path, at: u64) {
    let mut options = std::fs::File::options();
    let file = options.read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
}

fn seqnos(events: &[StreamEvent]) -> Vec<u64> {
    let items = events.iter().filter_map(|event| event.event.item());
    items.map(|item| item.meta.seqno.get()).collect()
}

#[test]
fn a_corrupt_block_ends_the_stream_that_reads_it_and_no_other() {
    let mut store = TestStore::stepped();
    store.config.tuning.slice_budget.items_max = 50;
    in_files(&store);
    let path = documents_file(&store);
    corrupt(&path);

    let engine = store.open();
    let (streams, mut consumer) = stepped(&engine);
    let mut other = streams
        .consumer("other", &ConsumerConfig::default())
        .unwrap();
    open(&mut consumer, &StreamRequest::from_start(VB));
    open(&mut other, &StreamRequest::from_start(OTHER));
    let events = drain(&engine, &streams, &mut consumer);

    assert_names_the_file(&events, &path);
    let taken: Vec<Seqno> = events
        .iter()
        .filter_map(|event| Some(event.event.item()?.meta.seqno))
        .collect();
    // Whole slices before the block, nothing of its slice, and nothing after it.
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
    // It resumes from its position and gets as far as the same block.
    open(&mut consumer, &StreamRequest::resume(VB, position));
    let events = drain(&engine, &streams, &mut consumer);
    assert_eq!(short(&events), ["end error"]);
    // Writes are still accepted.
    vb(&engine, 2).set("c", "v").unwrap();
    drop((consumer, other, streams));
    assert_at_rest(&engine);
    drop(engine);
}

#[test]
fn one_bit_in_any_block_stops_the_streams_before_it_and_none_is_short_once_it_is_mended() {
    let mut store = TestStore::stepped();
    store.config.tuning.slice_budget.items_max = 50;
    in_files(&store);
    let path = documents_file(&store);
    let len = path.metadata().unwrap().len();
    // The first data block, one in the middle, one of the last.
    for (at, least) in [(20, 0), (len / 2, 100), (len / 100 * 95, 300)] {
        flip(&path, at);
        let engine = store.open();
        let (streams, mut consumer) = stepped(&engine);
        // This consumer receives the slices that are read for the first one.
        let mut sharing = streams
            .consumer("sharing", &ConsumerConfig::default())
            .unwrap();
        for consumer in [&mut consumer, &mut sharing] {
            open(consumer, &StreamRequest::from_start(VB));
        }
        while streams.step() {
            assert_at_rest(&engine);
        }
        let mut reached = Vec::new();
        for consumer in [&mut consumer, &mut sharing] {
            let events = drain(&engine, &streams, consumer);
            assert_names_the_file(&events, &path);
            let taken = seqnos(&events);
            let count = u64::try_from(taken.len()).unwrap();
            assert!((least..400).contains(&count), "{count} at byte {at}");
            assert!(taken.iter().copied().eq(1..=count), "{taken:?}");
            let position = consumer.position(VB).unwrap();
            assert_eq!(position.seqno.get(), count);
            reached.push(position);
        }
        assert_eq!(reached[0], reached[1]);
        let stats = streams.stats();
        let waiting = (stats.pending, stats.ready, stats.running, stats.snoozed);
        assert_eq!((waiting, stats.buffered_bytes), ((0, 0, 0, 0), 0));
        assert!(stats.streams.is_empty());
        assert_eq!(engine.feed(VB).unwrap().watches(), 0);
        assert!(matches!(engine.health(), HealthState::Open));
        drop((consumer, sharing, streams));
        engine.close().unwrap();
        drop(engine);

        flip(&path, at);
        let engine = store.open();
        let (streams, mut consumer) = stepped(&engine);
        open(&mut consumer, &StreamRequest::resume(VB, reached[0]));
        let events = drain(&engine, &streams, &mut consumer);
        let rest = reached[0].seqno.get() + 1..=400;
        assert!(seqnos(&events).into_iter().eq(rest));
        drop((consumer, streams));
        engine.close().unwrap();
    }
    let engine = store.open();
    store.finish(engine);
}

#[test]
fn a_corrupt_record_in_a_sound_block_ends_the_stream_and_names_its_seqno() {
    let store = TestStore::stepped();
    in_files(&store);
    with_rocksdb(&store, |db| {
        let family = db.cf_handle(&raw::seqno_family(VB)).unwrap();
        let key = Seqno::new(200).to_key();
        let mut record = db.get_cf(family, key).unwrap().unwrap();
        let middle = record.len() / 2;
        record[middle] ^= 1;
        db.put_cf(family, key, record).unwrap();
    });

    let engine = store.open();
    let (streams, mut consumer) = stepped(&engine);
    open(&mut consumer, &StreamRequest::from_start(VB));
    let events = drain(&engine, &streams, &mut consumer);
    // Not even the changes before it: a slice is delivered whole or not at all.
    assert_eq!(short(&events), ["end error"]);
    let Event::End(EndReason::Error(Error::Corruption { vb, seqno, .. })) = &events[0].event else {
        panic!("{events:?}");
    };
    assert_eq!((*vb, seqno.map(Seqno::get)), (Some(VB), Some(200)));
    assert_eq!(consumer.position(VB).unwrap().seqno, Seqno::ZERO);
    assert_eq!(streams.stats().buffered_bytes, 0);
    assert_at_rest(&engine);
}

#[test]
fn a_compaction_that_meets_the_block_says_so_and_writes_are_refused() {
    let store = TestStore::stepped();
    in_files(&store);
    let path = documents_file(&store);
    corrupt(&path);
    let engine = store.open();
    // Except the one that the test asks for.
    raw::stop_compactions(&engine).unwrap();
    for n in 0..DOCUMENTS {
        let change = Change::delete(format!("key-{n:04}"));
        vb(&engine, 1).write(change, Durability::Memory).unwrap();
    }
    engine.flush().unwrap();
    let (streams, mut other) = stepped(&engine);
    open(&mut other, &StreamRequest::from_start(OTHER));
    assert!(matches!(engine.health(), HealthState::Open));

    let compacted = engine.compact(VB);
    assert!(matches!(compacted, Err(Error::Io { .. })), "{compacted:?}");

    let refused = vb(&engine, 2).set("c", "v").unwrap_err();
    let Error::Failed { cause } = refused else {
        panic!("{refused}");
    };
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(cause.to_string().contains(name), "{cause}");
    assert!(matches!(engine.health(), HealthState::Failed { .. }));
    // Streams deliver what is synced, and then end with the cause.
    let events = drain(&engine, &streams, &mut other);
    assert_eq!(short(&events), ["0..2 disk", "a@1", "b@2", "end error"]);
    drop((other, streams));
    assert_at_rest(&engine);
    engine.close().unwrap_err();
}
