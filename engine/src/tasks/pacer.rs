//! Keeps RocksDB's log short: flushes the oldest memtables to files, a few families at a time.
//!
//! Without the pacer, RocksDB waits until the log reaches its cap. Then it switches the memtables
//! of every family with data in the oldest log file at once. With 1,024 vBuckets one batch waited
//! 2.8 s for that (measured).

use crate::error::Result;
use crate::services::Services;
use crate::signals::NextRun;
use crate::vbuckets::Vb;
use std::sync::Arc;
use std::time::Duration;

/// vBuckets flushed in one step: enough to keep up, few enough not to delay a batch.
const VBUCKETS_PER_STEP: usize = 4;
/// How often the length of the log is checked.
const INTERVAL: Duration = Duration::from_millis(200);

/// Flushes the vBuckets with the oldest data in the log, while the log exceeds 3/4 of its cap.
pub(super) fn step(services: &Services) -> Result<NextRun> {
    // While the disk is full RocksDB recovers by itself. A flush requested now would fail. It may
    // also begin another log file, which takes the space that the recovery waits for.
    if services.health.check().is_err() {
        return Ok(NextRun::In(INTERVAL));
    }
    let allowed = (services.write_buffer_bytes / 4).saturating_mul(3);
    let position = services.ledger.log_position();
    let mut waiting: Vec<(u64, &Arc<Vb>)> = services
        .vbs
        .iter()
        .filter_map(|vb| Some((vb.oldest_log_position()?, vb)))
        // A vBucket that was first written to just now has a newer position.
        .filter(|(since, _)| position.saturating_sub(*since) > allowed)
        .collect();
    if waiting.is_empty() {
        return Ok(NextRun::In(INTERVAL));
    }
    waiting.sort_unstable_by_key(|(since, vb)| (*since, vb.id()));
    waiting.truncate(VBUCKETS_PER_STEP);
    services
        .store_dir
        .check()
        .inspect_err(|error| services.health.note(error).run())?;
    let storage = services.gate.acquire_while_closing()?;
    for (_, vb) in &waiting {
        // ORDER: clear first, flush second. A batch written meanwhile records its own position.
        vb.clear_logged();
    }
    let flushed = storage
        .rocks_flush(waiting.iter().map(|(_, vb)| vb.id()))
        // Every batch also writes state records. If they stayed in memory, they would keep the
        // oldest log file in use.
        .and_then(|()| storage.rocks_flush_records());
    drop(storage);
    if let Err(error) = flushed {
        for (since, vb) in waiting {
            vb.restore_logged(since);
        }
        services.health.note(&error).run();
        return Err(error);
    }
    Ok(NextRun::In(Duration::ZERO))
}
