//! Keeps RocksDB's log short by moving the oldest data to files, a few families at a time.
//!
//! Without it RocksDB waits until the log is at its cap and then switches every family that has
//! data in the oldest log file at once: with 1,024 vBuckets one batch waited 2.8 s (measured).

use super::Next;
use crate::error::Result;
use crate::inner::Inner;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use vbstore_core::VbId;

/// vBuckets moved at once: enough to keep up, few enough not to hold up a batch.
const VBUCKETS_AT_ONCE: usize = 4;
/// How often the length of the log is looked at.
const INTERVAL: Duration = Duration::from_millis(200);

/// Moves the vBuckets with the oldest data in the log, while the log is longer than 3/4 of its cap.
pub(super) fn step(inner: &Inner) -> Result<Next> {
    // While the disk is full RocksDB recovers by itself. A flush asked for meanwhile fails, and may
    // begin another log file, which takes the very space that the recovery waits for.
    if inner.health.check().is_err() {
        return Ok(Next::In(INTERVAL));
    }
    let allowed = (inner.write_buffer_bytes / 4).saturating_mul(3);
    let position = inner.commit.log_position();
    let mut waiting: Vec<(u64, VbId)> = inner
        .rocks_unflushed_since
        .iter()
        .zip(&inner.vbs)
        .map(|(since, cell)| (since.load(Ordering::Acquire), cell.id))
        .filter(|(since, _)| *since > 0 && position.saturating_sub(*since) > allowed)
        .collect();
    if waiting.is_empty() {
        return Ok(Next::In(INTERVAL));
    }
    waiting.sort_unstable();
    waiting.truncate(VBUCKETS_AT_ONCE);
    let storage = inner.storage_while_closing()?;
    for (mark, _) in marks(inner, &waiting) {
        // ORDER: marked as moved first. A batch written meanwhile marks it again.
        mark.store(0, Ordering::Release);
    }
    let moved = storage
        .rocks_flush(waiting.iter().map(|(_, vb)| *vb))
        // The records of all vBuckets are in every batch and would keep the log as old as they are.
        .and_then(|()| storage.rocks_flush_records());
    if let Err(error) = moved {
        for (mark, since) in marks(inner, &waiting) {
            mark.store(since, Ordering::Release);
        }
        inner.note_failure(&error);
        return Err(error);
    }
    Ok(Next::In(Duration::ZERO))
}

fn marks<'a>(
    inner: &'a Inner,
    waiting: &'a [(u64, VbId)],
) -> impl Iterator<Item = (&'a AtomicU64, u64)> {
    let mark = |vb: VbId| inner.rocks_unflushed_since.get(vb.index());
    waiting
        .iter()
        .filter_map(move |(since, vb)| Some((mark(*vb)?, *since)))
}
