//! Compares writes of one document each, from 1, 8 and 64 threads, with RocksDB's own group commit
//! into the same families. Both are measured in one run: compare the two lines of a pair, not
//! numbers of two runs.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::sync::atomic::{AtomicU64, Ordering};
use vbstore::{Durability, VbId};
use vbstore_benches::{Raw, VBUCKETS, engine};

const WRITES: u64 = 2_000;

fn vb_of(n: u64) -> VbId {
    VbId::new(u16::try_from(n % u64::from(VBUCKETS)).unwrap_or(0))
}

/// Calls `write` from `threads` threads, about `WRITES` times in all.
fn spread(threads: u64, write: &(impl Fn(u64) + Sync)) {
    let share = WRITES.div_ceil(threads);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || (0..share).for_each(|n| write(thread * share + n)));
        }
    });
}

fn commit(criterion: &mut Criterion) {
    for (name, durability, sync) in [
        ("logged", Durability::Logged, false),
        ("synced", Durability::Synced, true),
    ] {
        let mut group = criterion.benchmark_group(format!("commit/{name}"));
        group
            .throughput(Throughput::Elements(WRITES))
            .sample_size(10);
        for threads in [1, 8, 64] {
            let value = vec![b'v'; 256];
            let next = AtomicU64::new(0);
            let dir = tempfile::tempdir().unwrap();
            let engine = engine(&dir.path().join("store"), durability).unwrap();
            group.bench_function(BenchmarkId::new("vbstore", threads), |bench| {
                bench.iter(|| {
                    spread(threads, &|n| {
                        let key = format!("key-{:012}", next.fetch_add(1, Ordering::Relaxed));
                        engine
                            .vbucket(vb_of(n))
                            .unwrap()
                            .set(key, value.clone())
                            .unwrap();
                    });
                });
            });
            engine.close().unwrap();
            let raw = Raw::create(&dir.path().join("raw"), sync).unwrap();
            let next = AtomicU64::new(1);
            group.bench_function(BenchmarkId::new("rocksdb", threads), |bench| {
                bench.iter(|| {
                    spread(threads, &|n| {
                        let seqno = next.fetch_add(1, Ordering::Relaxed);
                        let key = format!("key-{seqno:012}");
                        raw.put(vb_of(n), seqno, key.as_bytes(), &value).unwrap();
                    });
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, commit);
criterion_main!(benches);
