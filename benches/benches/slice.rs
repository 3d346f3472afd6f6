//! Compares reading a whole vBucket in slices with one bare iterator over the same family. Both add
//! up every byte of key and value.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use vbstore::{Change, Durability, Seqno, SeqnoRange, SliceBudget, SliceEnd, VBucket, VbId};
use vbstore_benches::{Raw, checksum, engine};

const DOCUMENTS: u64 = 200_000;

fn read_in_slices(vb: &VBucket) -> u64 {
    let mut range = SeqnoRange::above(Seqno::ZERO);
    let mut sum = 0;
    loop {
        let slice = vb.scan_slice(range, SliceBudget::default()).unwrap();
        for item in slice.items() {
            sum += checksum(item.key) + checksum(item.value);
        }
        range.after = slice.position();
        if slice.end() == SliceEnd::Complete {
            return sum;
        }
    }
}

fn slice(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let vb = VbId::new(0);
    let value = vec![b'v'; 256];
    let key = |n: u64| format!("key-{n:012}");
    let engine = engine(&dir.path().join("store"), Durability::Memory).unwrap();
    let bucket = engine.vbucket(vb).unwrap();
    let raw = Raw::create(&dir.path().join("raw"), false).unwrap();
    for n in 1..=DOCUMENTS {
        bucket
            .write(Change::set(key(n), value.clone()), Durability::Memory)
            .unwrap();
        raw.put(vb, n, key(n).as_bytes(), &value).unwrap();
    }
    engine.flush().unwrap();
    engine.compact(vb).unwrap();
    raw.flush(vb).unwrap();

    let mut group = criterion.benchmark_group("slice");
    group
        .throughput(Throughput::Elements(DOCUMENTS))
        .sample_size(10);
    group.bench_function("vbstore", |bench| {
        bench.iter(|| black_box(read_in_slices(&bucket)))
    });
    group.bench_function("rocksdb", |bench| {
        bench.iter(|| black_box(raw.scan(vb).unwrap()))
    });
    group.finish();
    engine.close().unwrap();
}

criterion_group!(benches, slice);
criterion_main!(benches);
