//! The counted memory is the allocated memory, and the memory quota is kept.

use bytes::Bytes;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;
use vbstore::{
    Cas, Change, Consumer, Durability, Error, ItemKind, ItemMeta, KeyRange, PageForm, Seqno,
    SliceBudget, StreamRequest, Streams, StreamsConfig, Tuning,
};
use vbstore_core::{Checkpoints, Item};
use vbstore_tests::following::{consumer, open};
use vbstore_tests::{TestStore, put, vb};

const MIB: usize = 1 << 20;

thread_local! {
    /// Bytes that this thread has allocated and not freed.
    static ALLOCATED: Cell<i64> = const { Cell::new(0) };
    /// Bytes that this thread has allocated in all.
    static EVER_ALLOCATED: Cell<i64> = const { Cell::new(0) };
}

/// Counts the allocations of each thread with glibc's overhead: 8 bytes each, rounded up to 16, at
/// least 32.
struct Counting;

fn chunk(layout: Layout) -> i64 {
    i64::try_from(((layout.size() + 8).max(32) + 15) & !15).unwrap()
}

#[allow(unsafe_code, reason = "an allocator is unsafe by its trait")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get() + chunk(layout));
        EVER_ALLOCATED.set(EVER_ALLOCATED.get() + chunk(layout));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        ALLOCATED.set(ALLOCATED.get() - chunk(layout));
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Appends changes with keys in the order of `order`. Returns the counted and the allocated bytes
/// for each change, while they are in the open checkpoint and after they are sealed.
fn of_each(changes: u64, value_len: usize, order: impl Fn(u64) -> u64) -> [(u64, u64); 2] {
    let before = ALLOCATED.get();
    let mut checkpoints = Checkpoints::new(Seqno::ZERO);
    for n in 1..=changes {
        let item = Item {
            meta: ItemMeta {
                seqno: Seqno::new(n),
                kind: ItemKind::Mutation,
                cas: Cas::new(n),
                flags: 0,
                expiry: 0,
                datatype: 0,
                value_len: 0,
            },
            key: order(n).to_be_bytes().into(),
            value: Bytes::copy_from_slice(&vec![7; value_len]),
        };
        // A reader has cloned it, so the value now has its own reference count.
        drop(item.value.clone());
        checkpoints.append(item.into(), None, false, Duration::ZERO);
    }
    let measure = |checkpoints: &Checkpoints| {
        let allocated = u64::try_from(ALLOCATED.get() - before).unwrap();
        (checkpoints.memory() / changes, allocated / changes)
    };
    let open = measure(&checkpoints);
    checkpoints.seal();
    [open, measure(&checkpoints)]
}

#[test]
fn what_is_counted_for_a_change_is_what_is_allocated() {
    for value_len in [0, 16, 1_000] {
        for is_shuffled in [false, true] {
            let order = |n: u64| {
                if is_shuffled {
                    n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
                } else {
                    n
                }
            };
            let [open, sealed] = of_each(20_000, value_len, order);
            println!("value {value_len}, shuffled {is_shuffled}: open {open:?}, sealed {sealed:?}");
            for (counted, allocated) in [open, sealed] {
                assert!(
                    allocated <= counted,
                    "{allocated} allocated, {counted} counted"
                );
                assert!(
                    counted - allocated <= 160,
                    "{allocated} allocated, {counted} counted"
                );
            }
        }
    }
}

#[test]
fn a_small_part_of_a_large_buffer_does_not_keep_the_buffer() {
    let store = TestStore::stepped();
    let engine = store.open();
    let first = vb(&engine, 0);
    put_parts(&first, 1);
    let before = ALLOCATED.get();
    put_parts(&first, 1_000);
    let kept = ALLOCATED.get() - before;
    assert!(
        kept < 1_000_000,
        "{kept} bytes for 1,000 values of 16 bytes"
    );
    assert_eq!(first.get([3, 0]).unwrap().unwrap().value, &[3; 16][..]);
    store.finish(engine);
}

/// Writes `values` values of 16 bytes, each cut from a buffer of 64 KiB.
fn put_parts(vb: &vbstore::VBucket, values: u16) {
    for n in 0..values {
        let byte = n.to_le_bytes()[0];
        let packet = Bytes::from(vec![byte; 64 << 10]);
        let change = Change::set(n.to_le_bytes(), packet.slice(100..116));
        vb.write(change, Durability::Memory).unwrap();
    }
}

/// A buffer of the program whose destructor runs the program's code.
struct Owned {
    bytes: Vec<u8>,
    engine: vbstore::Engine,
    ends: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // Takes the flush lead, which a thread that holds any lock must not wait for.
        self.engine.flush().unwrap();
        self.ends.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_buffer_of_the_program_ends_with_the_call_that_brought_it() {
    let store = TestStore::stepped();
    let engine = store.open();
    let ends = Arc::new(AtomicUsize::new(0));
    for (durability, ended) in [(Durability::Memory, 1), (Durability::Synced, 2)] {
        let owned = Owned {
            bytes: vec![1; 100],
            engine: engine.clone(),
            ends: Arc::clone(&ends),
        };
        let change = Change::set("key", Bytes::from_owner(owned));
        vb(&engine, 0).write(change, durability).unwrap();
        // The engine must hold none of the program's buffers: one with a handle would keep the
        // engine open.
        assert_eq!(ends.load(Ordering::SeqCst), ended, "{durability:?}");
        assert_eq!(
            vb(&engine, 0).get("key").unwrap().unwrap().value,
            &[1; 100][..]
        );
    }
    store.finish(engine);
}

fn quota(mib: u64) -> Tuning {
    Tuning {
        memory_quota: mib << 20,
        ..Tuning::default()
    }
}

#[test]
fn the_quota_holds_while_many_threads_write_batches() {
    let mut store = TestStore::threaded();
    store.config.tuning = quota(16);
    store.config.tuning.busy_timeout = Duration::from_secs(100);
    let engine = store.open();
    let barrier = Barrier::new(9);
    let is_over = AtomicBool::new(false);
    let peak = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|n: u16| {
                let vb = vb(&engine, n % 4);
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    for round in 0..4 {
                        let changes: Vec<Change> = (0..1_000)
                            .map(|i| Change::add(format!("{n}-{round}-{i}"), vec![1; 3 << 10]))
                            .collect();
                        vb.batch(&changes, Durability::Memory).unwrap();
                    }
                })
            })
            .collect();
        let watch = scope.spawn(|| {
            let mut peak = 0;
            while !is_over.load(Ordering::Acquire) {
                peak = peak.max(engine.checkpoint_memory());
                std::thread::yield_now();
            }
            peak
        });
        barrier.wait();
        for writer in writers {
            writer.join().unwrap();
        }
        is_over.store(true, Ordering::Release);
        watch.join().unwrap()
    });
    assert!(peak <= 16 << 20, "{peak} bytes of a quota of 16 MiB");
    assert!(peak > 8 << 20, "the quota was not reached: {peak}");
    store.finish(engine);
}

#[test]
fn a_batch_that_is_larger_than_the_quota_passes_and_so_do_those_beside_it() {
    let mut store = TestStore::threaded();
    store.config.tuning = quota(1);
    store.config.tuning.busy_timeout = Duration::from_secs(100);
    let engine = store.open();
    let batch = |n: u16| [0, 1].map(|i| Change::set(format!("{n}-{i}"), vec![1; MIB]));
    std::thread::scope(|scope| {
        for n in 0..6 {
            let vb = vb(&engine, n % 4);
            scope.spawn(move || {
                for _ in 0..3 {
                    vb.batch(&batch(n), Durability::Memory).unwrap();
                    vb.set(format!("small-{n}"), "v").unwrap();
                }
            });
        }
    });
    for n in 0..6 {
        assert!(vb(&engine, n % 4).get(format!("{n}-1")).unwrap().is_some());
    }
    store.finish(engine);
}

#[test]
fn a_touch_reserves_room_for_the_value_it_keeps() {
    let mut store = TestStore::stepped();
    store.config.tuning = quota(1);
    let engine = store.open();
    let first = vb(&engine, 0);
    first.set("large", vec![1; MIB / 2]).unwrap();
    vbstore_engine::raw::forget_memory(&engine, true).unwrap();
    for _ in 0..3 {
        first
            .write(Change::touch("large", 0), Durability::Memory)
            .unwrap();
        assert!(engine.checkpoint_memory() <= 1 << 20);
    }
    assert_eq!(first.get("large").unwrap().unwrap().value.len(), MIB / 2);
    store.finish(engine);
}

#[test]
fn a_refused_write_releases_its_room() {
    let store = TestStore::stepped();
    let engine = store.open();
    let first = vb(&engine, 0);
    let before = engine.checkpoint_memory();
    for _ in 0..100 {
        let refused = first.replace("absent", vec![1; MIB]);
        assert!(matches!(refused, Err(Error::NotFound)), "{refused:?}");
    }
    assert_eq!(engine.checkpoint_memory(), before);
    store.finish(engine);
}

#[test]
fn a_page_copies_what_it_shows_and_not_what_is_in_memory() {
    let store = TestStore::stepped();
    let engine = store.open();
    let first = vb(&engine, 0);
    let key = |n: usize| format!("key-{n:06}");
    for n in 0..20_000 {
        put(&first, &key(n), "v");
    }
    let budget = SliceBudget {
        items_max: 10,
        ..SliceBudget::default()
    };
    // First before a flush, then while memory still holds what is on disk.
    for _ in 0..2 {
        for from in [0, 10_000, 19_985] {
            let before = EVER_ALLOCATED.get();
            let range = KeyRange::all().starting_at(key(from));
            let page = first
                .range_within(&range, PageForm::Documents, budget)
                .unwrap();
            let allocated = EVER_ALLOCATED.get() - before;
            let keys: Vec<_> = page
                .entries
                .iter()
                .map(|entry| entry.key.to_vec())
                .collect();
            let expected: Vec<_> = (from..from + 10).map(|n| key(n).into_bytes()).collect();
            assert_eq!(keys, expected);
            let rest = page.rest.unwrap();
            assert_eq!(rest.from(), key(from + 10).as_bytes());
            assert!(allocated < 50_000, "{allocated} bytes for 10 keys");
        }
        engine.flush().unwrap();
    }
    store.finish(engine);
}

/// Follows each of 128 vBuckets with its own consumer, which takes two events of a batch of 3.5 MB
/// from memory and then nothing. Returns the counted and the allocated bytes.
fn stopped_inside_a_batch() -> (u64, u64) {
    let mut store = TestStore::stepped();
    store.config.vbuckets = Some(128);
    store.config.tuning = quota(16);
    store.config.tuning.checkpoint_bytes_max = 1 << 20;
    let engine = store.open();
    let config = StreamsConfig {
        buffer_bytes_max: 16 << 20,
        ..StreamsConfig::default()
    };
    let streams = Streams::stepped(&engine, &config).unwrap();
    let before = ALLOCATED.get();
    let mut all: Vec<Consumer> = Vec::new();
    for number in 0..128 {
        let vb = vb(&engine, number);
        let mut consumer = consumer(&streams, "inside");
        open(&mut consumer, &StreamRequest::from_start(vb.id()));
        for n in 0..35_u8 {
            let change = Change::set([n], vec![n; 100_000]);
            vb.write(change, Durability::Logged).unwrap();
        }
        engine.flush().unwrap();
        for _ in 0..2 {
            consumer.try_recv().unwrap();
        }
        all.push(consumer);
    }
    let allocated = u64::try_from(ALLOCATED.get() - before).unwrap();
    let counted = engine.checkpoint_memory() + streams.stats().buffered_bytes;
    drop((all, streams));
    store.finish(engine);
    (counted, allocated)
}

#[test]
fn what_consumers_that_stop_inside_a_batch_keep_is_counted() {
    let (counted, allocated) = stopped_inside_a_batch();
    println!("{counted} bytes counted, {allocated} allocated");
    assert!(counted <= 34 << 20, "{counted} bytes of limits of 32 MiB");
    let difference = counted.abs_diff(allocated);
    assert!(
        difference * 5 <= counted,
        "{counted} bytes counted, {allocated} allocated"
    );
}
