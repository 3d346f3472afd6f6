//! Keeps RocksDB's log short by moving the oldest data to files, a few families at a time.
//!
//! Without it RocksDB waits until the log is at its cap and then switches every family that has
//! data in the oldest log file at once: with 1,024 vBuckets one batch waited 2.8 s (measured).

use crate::error::Result;
use crate::services::Services;
use crate::signals::Next;
use crate::vbuckets::Vb;
use std::sync::Arc;
use std::time::Duration;

/// vBuckets moved at once: enough to keep up, few enough not to hold up a batch.
const VBUCKETS_AT_ONCE: usize = 4;
/// How often the length of the log is looked at.
const INTERVAL: Duration = Duration::from_millis(200);

/// Moves the vBuckets with the oldest data in the log, while the log is longer than 3/4 of its cap.
pub(super) fn step(services: &Services) -> Result<Next> {
    // While the disk is full RocksDB recovers by itself. A flush asked for meanwhile fails, and may
    // begin another log file, which takes the very space that the recovery waits for.
    if services.health.check().is_err() {
        return Ok(Next::In(INTERVAL));
    }
    let allowed = (services.write_buffer_bytes / 4).saturating_mul(3);
    let position = services.ledger.log_position();
    let mut waiting: Vec<(u64, &Arc<Vb>)> = services
        .vbs
        .iter()
        .filter_map(|vb| Some((vb.logged_since()?, vb)))
        // One that was written to just now is noted with a newer position.
        .filter(|(since, _)| position.saturating_sub(*since) > allowed)
        .collect();
    if waiting.is_empty() {
        return Ok(Next::In(INTERVAL));
    }
    waiting.sort_unstable_by_key(|(since, vb)| (*since, vb.id()));
    waiting.truncate(VBUCKETS_AT_ONCE);
    services
        .home
        .check()
        .inspect_err(|error| services.health.note(error).run())?;
    let storage = services.gate.lend_while_closing()?;
    for (_, vb) in &waiting {
        // ORDER: forgotten first, moved second. A batch written meanwhile notes itself again.
        vb.forget_logged();
    }
    let moved = storage
        .rocks_flush(waiting.iter().map(|(_, vb)| vb.id()))
        // The records of all vBuckets are in every batch and would keep the log as old as they are.
        .and_then(|()| storage.rocks_flush_records());
    drop(storage);
    if let Err(error) = moved {
        for (since, vb) in waiting {
            vb.restore_logged(since);
        }
        services.health.note(&error).run();
        return Err(error);
    }
    Ok(Next::In(Duration::ZERO))
}
