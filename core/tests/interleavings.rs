//! Model-checks streams beside writers, flushes, freeing, cursor drops and purges (feature
//! `shuttle`).
//!
//! A model checker runs the shipped sources in many interleavings.

#![cfg(feature = "shuttle")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod checker;

use bytes::Bytes;
use shuttle::thread;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;
use vbstore_core::lock_order::LockRank;
use vbstore_core::progress::ViewInfo;
use vbstore_core::record::VbState;
use vbstore_core::sync::{AtomicU64, Mutex, MutexGuard, Ordering};
use vbstore_core::{
    Admission, AdmittedStart, Cas, ConsumerActivity, CursorId, FailoverLog, FilterDigest, Item,
    ItemKind, ItemMeta, Position, ReadLimit, ReaderRegistration, ReaderStats, ResumeDecision,
    RollbackReason, SealTime, Seqno, SnapshotMarker, StreamProgress, VbCell, VbId, VbInner, VbUuid,
    Visibility,
};

const VB: VbId = VbId::new(0);
const UUID: VbUuid = VbUuid::new(1);
const KEYS: [&str; 3] = ["a", "b", "c"];
/// Small enough that reads stop in the middle of checkpoints and of snapshots.
const LIMIT: ReadLimit = ReadLimit {
    items: 2,
    bytes: u64::MAX,
};

/// The clock stands still, so only the first read of a follower that accepts unsynced changes
/// seals. Later ones wait for flushes.
const SEAL: SealTime = SealTime {
    now: Duration::ZERO,
    interval: Duration::from_secs(1),
};

/// Stands for RocksDB: the newest written version of each key, by seqno, and the last seqno
/// written.
#[derive(Default)]
struct Disk {
    by_seqno: BTreeMap<u64, &'static str>,
    newest: BTreeMap<&'static str, u64>,
    end: u64,
}

struct World {
    cell: VbCell,
    disk: Mutex<Disk>,
    /// The key of every change, in the order of seqnos: recorded under the cell's lock.
    history: Mutex<Vec<&'static str>>,
    /// Number of writes left.
    to_write: Mutex<u64>,
}

impl World {
    fn new(writes: u64) -> Arc<Self> {
        Arc::new(Self {
            cell: VbCell::new(VB, VbState::new(UUID), FailoverLog::new(UUID, 0)),
            disk: Mutex::new(LockRank::Leaf, Disk::default()),
            history: Mutex::new(LockRank::Leaf, Vec::new()),
            to_write: Mutex::new(LockRank::Leaf, writes),
        })
    }

    fn write(&self, key: &'static str) {
        let mut inner: MutexGuard<'_, VbInner> = self.cell.lock();
        let seqno = inner.checkpoints.high_seqno().saturating_add(1);
        let meta = ItemMeta {
            seqno,
            kind: ItemKind::Mutation,
            cas: Cas::new(seqno.get()),
            flags: 0,
            expiry: 0,
            datatype: 0,
            value_len: 0,
        };
        let item = Arc::new(Item {
            meta,
            key: key.as_bytes().into(),
            value: Bytes::new(),
        });
        inner.checkpoints.append(item, None, false, Duration::ZERO);
        self.history.lock().push(key);
        let fired = inner.fire(&self.cell, Some(Duration::ZERO));
        drop(inner);
        fired.wake();
    }

    /// Flushes as the leader does: take, write, publish, sync, publish.
    fn flush(&self, fails: bool) {
        let mut inner = self.cell.lock();
        let taken = inner.checkpoints.begin_flush(1);
        // Followers that accept unsynced changes wait for this seal.
        let fired = inner.fire(&self.cell, None);
        drop(inner);
        fired.wake();
        if fails {
            self.cell.lock().checkpoints.flush_failed();
            return;
        }
        if taken.is_empty() {
            return;
        }
        let mut disk = self.disk.lock();
        for entry in taken.iter().flat_map(|sealed| sealed.entries()) {
            let seqno = entry.item.meta.seqno.get();
            let key = *KEYS
                .iter()
                .find(|key| key.as_bytes() == &*entry.item.key)
                .unwrap();
            assert!(
                seqno > disk.end,
                "seqno {seqno} is written after {}",
                disk.end
            );
            if let Some(previous) = disk.newest.insert(key, seqno) {
                disk.by_seqno.remove(&previous);
            }
            disk.by_seqno.insert(seqno, key);
        }
        if let Some(last) = taken.last() {
            disk.end = last.end().get();
        }
        let mut state = VbState::new(UUID);
        state.high_seqno = Seqno::new(disk.end);
        drop(disk);
        self.cell.publish_persisted(state).wake();
        thread::yield_now();
        self.cell.publish_synced().wake();
    }

    fn at(&self, seqno: u64) -> BTreeMap<&'static str, u64> {
        let history = self.history.lock();
        (1..)
            .zip(history.iter().copied())
            .take_while(|(at, _)| *at <= seqno)
            .map(|(at, key)| (key, at))
            .collect()
    }
}

/// Wakes a parked thread.
struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A stream with its consumer: does what the crate of streams does, without its queues.
struct Follower {
    world: Arc<World>,
    visibility: Visibility,
    position: Position,
    copy: BTreeMap<&'static str, u64>,
    marker: Option<SnapshotMarker>,
}

impl Follower {
    fn take_marker(&mut self, marker: Option<SnapshotMarker>) {
        if let Some(marker) = marker {
            if let Some(before) = self.marker {
                assert!(marker.end > before.end, "{marker:?} after {before:?}");
            }
            self.position.take_marker(&marker);
            self.marker = Some(marker);
        }
    }

    fn take(&mut self, key: &'static str, seqno: u64) {
        let marker = self.marker.unwrap();
        assert!(
            seqno > self.position.seqno.get(),
            "seqno {seqno} is delivered again"
        );
        assert!(seqno > marker.start.get() && seqno <= marker.end.get());
        self.copy.insert(key, seqno);
        self.position.take_seqno(Seqno::new(seqno));
    }

    /// Records that everything up to `position` was read. Compares the copy with the history if it
    /// is complete.
    fn advance(&mut self, position: Seqno) {
        self.position.take_seqno(position);
        if self.marker.is_some_and(|marker| marker.end == position) {
            assert_eq!(self.copy, self.world.at(position.get()), "at {position}");
            if self.visibility == Visibility::Synced {
                assert!(self.world.cell.synced() >= position);
            }
        }
    }

    /// Follows until it has taken seqno `last`. It waits for wake-ups only, so a lost one is a
    /// deadlock.
    fn follow(mut self, last: u64) {
        let world = Arc::clone(&self.world);
        let cell = &world.cell;
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let (start, reader) = admit(cell, &self.position).unwrap();
        let (mut progress, generation, mut cursor) =
            (start.progress, start.generation, start.cursor);
        while self.position.seqno.get() < last {
            let above = match cursor {
                Some(id) => match self.read_memory(&mut progress, generation, id) {
                    Ok(None) => continue,
                    Ok(Some(above)) => (self.visibility, above),
                    // The cursor was dropped; the stream continues from disk.
                    Err(()) => {
                        cursor = None;
                        continue;
                    }
                },
                None => match self.read_disk(&mut progress, generation, &mut cursor) {
                    None => continue,
                    Some(above) => above,
                },
            };
            reader.reader().take(self.position.seqno);
            if cell.watch(generation, above.0, above.1, &waker, Duration::ZERO) {
                thread::park();
            }
        }
        if let Some(id) = cursor {
            cell.leave(id);
        }
    }

    fn read_memory(
        &mut self,
        progress: &mut StreamProgress,
        generation: u64,
        id: CursorId,
    ) -> Result<Option<Seqno>, ()> {
        let world = Arc::clone(&self.world);
        let read = world
            .cell
            .read(generation, id, progress, self.visibility, LIMIT, SEAL)
            .unwrap()
            .map_err(|_| ())?;
        let Some((read, _)) = read else {
            let least = progress.end_min().get().saturating_sub(1);
            return Ok(Some(progress.position().max(Seqno::new(least))));
        };
        self.take_marker(progress.take_memory(read.end, read.position));
        for item in read.items {
            let key = *KEYS
                .iter()
                .find(|key| key.as_bytes() == &*item.key)
                .unwrap();
            self.take(key, item.meta.seqno.get());
        }
        self.advance(read.position);
        Ok(None)
    }

    /// Reads one slice. Returns the visibility and the seqno to wait for, or `None` to go on at
    /// once.
    fn read_disk(
        &mut self,
        progress: &mut StreamProgress,
        generation: u64,
        cursor: &mut Option<CursorId>,
    ) -> Option<(Visibility, Seqno)> {
        let world = Arc::clone(&self.world);
        let cell = &world.cell;
        let end_min = progress.end_min();
        let below = Seqno::new(end_min.get().saturating_sub(1));
        if cell.persisted() < end_min {
            return Some((Visibility::Persisted, below));
        }
        if progress.is_complete() {
            *cursor = cell.join(generation, progress.position()).unwrap();
            if cursor.is_some() {
                return None;
            }
        }
        let disk = world.disk.lock();
        let end = disk.end;
        let after = progress.position().get();
        let rows: Vec<(u64, &'static str)> = disk
            .by_seqno
            .range(after + 1..)
            .take(2)
            .map(|(s, k)| (*s, *k))
            .collect();
        drop(disk);
        let is_whole = rows.len() < 2;
        let view = ViewInfo {
            vb_uuid: UUID,
            persisted_seqno: Seqno::new(end),
            purge_seqno: Seqno::ZERO,
        };
        let marker = progress.take_view(&view).unwrap();
        let last = rows.last().map_or(after, |(seqno, _)| *seqno);
        let position = Seqno::new(if is_whole { end } else { last });
        progress.advance(position);
        if progress.is_complete() {
            *cursor = cell.join(generation, progress.position()).unwrap();
        }
        // ORDER: nothing of the slice is delivered before it is synced.
        while self.visibility == Visibility::Synced && cell.synced().get() < end {
            let waker = Waker::from(Arc::new(Unpark(thread::current())));
            if cell.watch(
                generation,
                Visibility::Synced,
                Seqno::new(end - 1),
                &waker,
                Duration::ZERO,
            ) {
                thread::park();
            }
        }
        self.take_marker(marker);
        for (seqno, key) in rows {
            self.take(key, seqno);
        }
        self.advance(position);
        None
    }
}

/// Runs two writers, a flusher, a thread that frees and drops, and three followers.
fn churn() {
    const WRITES: u64 = 8;
    let world = World::new(WRITES);
    let mut threads = Vec::new();
    for number in 0..2_usize {
        let world = Arc::clone(&world);
        threads.push(thread::spawn(move || {
            for n in 0.. {
                let mut to_write = world.to_write.lock();
                if *to_write == 0 {
                    return;
                }
                *to_write -= 1;
                drop(to_write);
                let key = KEYS.iter().cycle().nth((n + number) % KEYS.len());
                world.write(key.unwrap());
            }
        }));
    }
    {
        let world = Arc::clone(&world);
        threads.push(thread::spawn(move || {
            for round in 0.. {
                let is_done = world.disk.lock().end >= WRITES;
                if is_done {
                    return;
                }
                world.flush(round % 3 == 1);
                thread::yield_now();
            }
        }));
    }
    {
        let world = Arc::clone(&world);
        threads.push(thread::spawn(move || {
            for round in 0..12 {
                let mut inner = world.cell.lock();
                if round % 3 == 2 {
                    inner.checkpoints.drop_lowest();
                }
                let freed = inner.checkpoints.free_oldest();
                drop(inner);
                drop(freed);
                thread::yield_now();
            }
        }));
    }
    for visibility in [
        Visibility::Synced,
        Visibility::Memory,
        Visibility::Persisted,
    ] {
        let follower = Follower {
            world: Arc::clone(&world),
            visibility,
            position: Position::default(),
            copy: BTreeMap::new(),
            marker: None,
        };
        threads.push(thread::spawn(move || follower.follow(WRITES)));
    }
    for thread in threads {
        thread.join().unwrap();
    }
    let inner = world.cell.lock();
    let (checkpoints, readers) = (&inner.checkpoints, &inner.readers);
    assert_eq!(checkpoints.cursors(), 0, "a cursor was left behind");
    assert_eq!(readers.stats().count, 0, "a reader was left behind");
    assert!(!checkpoints.has_unflushed());
}

/// Admits a stream. Returns the answer if the consumer must roll back.
fn admit(
    cell: &VbCell,
    position: &Position,
) -> Result<(AdmittedStart, ReaderRegistration), ResumeDecision> {
    let activity = ConsumerActivity::new(Duration::ZERO);
    match cell.admit(
        position,
        FilterDigest::of(b"", false),
        Seqno::MAX,
        &activity,
    ) {
        Ok(Admission::Admitted { start, reader }) => Ok((start, reader)),
        Ok(Admission::Refused(answer)) => Err(answer),
        Err(malformed) => panic!("{malformed:?}"),
    }
}

/// Purges as the engine would: everything under the vBucket's lock. It reads the lowest taken seqno
/// of the readers, purges up to it, and raises the purge seqno before it releases the lock. The
/// highest seqno is never purged.
fn purge(cell: &VbCell) {
    let mut inner = cell.lock();
    let high = inner.checkpoints.high_seqno().get();
    let lowest = inner.readers.stats().lowest_taken;
    let upto = lowest.map_or(high - 1, |lowest| lowest.get().min(high - 1));
    inner.state.purge_seqno = inner.state.purge_seqno.max(Seqno::new(upto));
}

/// Streams begin, take and end beside purges. After its admission no purge passes what a stream has
/// taken, and a stream admitted too late for a purge must roll back.
fn purges() {
    const HIGH: u64 = 4;
    let world = World::new(HIGH);
    for _ in 0..HIGH {
        world.write("a");
    }
    let begun = Arc::new(AtomicU64::new(0));
    let ended = Arc::new(AtomicU64::new(0));
    let mut threads = Vec::new();
    for from in 1..HIGH {
        let (world, begun, ended) = (Arc::clone(&world), Arc::clone(&begun), Arc::clone(&ended));
        threads.push(thread::spawn(move || {
            let cell = &world.cell;
            let seqno = Seqno::new(from);
            let position = Position {
                vb_uuid: UUID,
                seqno,
                snap_start: seqno,
                snap_end: seqno,
                ..Position::default()
            };
            let purged = || cell.lock().state.purge_seqno;
            begun.fetch_add(1, Ordering::SeqCst);
            match admit(cell, &position) {
                Err(answer) => {
                    let reason = RollbackReason::Purged;
                    let to = Seqno::ZERO;
                    assert_eq!(answer, ResumeDecision::Rollback { to, reason });
                    assert!(
                        purged() > seqno,
                        "refused although nothing it needs was purged"
                    );
                }
                Ok((_, guard)) => {
                    for taken in from..=HIGH {
                        guard.reader().take(Seqno::new(taken));
                        assert!(
                            purged().get() <= taken,
                            "purged up to {}, taken up to {taken}",
                            purged()
                        );
                    }
                    let stats = cell.lock().readers.stats();
                    assert!(stats.lowest_taken <= Some(Seqno::new(HIGH)));
                    assert!(stats.count >= 1, "a reader is not counted");
                    drop(guard);
                }
            }
            ended.fetch_add(1, Ordering::SeqCst);
        }));
    }
    {
        let (world, begun, ended) = (Arc::clone(&world), Arc::clone(&begun), Arc::clone(&ended));
        threads.push(thread::spawn(move || {
            for _ in 0..3 {
                purge(&world.cell);
                // Without the vBucket's lock, like a scrape.
                let readers = Arc::clone(&world.cell.lock().readers);
                let ended = ended.load(Ordering::SeqCst);
                let count = readers.stats().count;
                let begun = begun.load(Ordering::SeqCst);
                assert!(
                    count <= begun - ended,
                    "{count} readers, {begun} begun, {ended} ended"
                );
            }
        }));
    }
    for thread in threads {
        thread.join().unwrap();
    }
    let inner = world.cell.lock();
    assert_eq!(inner.readers.stats(), ReaderStats::default());
    drop(inner);
    purge(&world.cell);
    assert_eq!(world.cell.lock().state.purge_seqno, Seqno::new(HIGH - 1));
}

#[test]
fn no_interleaving_skips_or_repeats() {
    checker::check(10_000, churn);
}

#[test]
fn no_purge_passes_a_stream_in_progress() {
    checker::check(10_000, purges);
}
