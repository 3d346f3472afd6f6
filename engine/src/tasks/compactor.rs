//! Releases the disk space of deleted vBuckets.

use super::retry::RETRY;
use crate::error::Result;
use crate::services::Services;
use crate::signals::NextRun;
use std::time::Duration;

/// The pause after each vBucket. Several deletions of a vBucket within it need only one compaction.
const PAUSE: Duration = Duration::from_secs(1);

/// Compacts one deleted vBucket. The deletion has removed the largest files, so what is left is
/// small, including the deletion itself. A failed compaction does not fail the engine. The space
/// stays in use until RocksDB compacts by itself. If writes fail as well, they report their own
/// errors.
pub(super) fn step(services: &Services) -> Result<NextRun> {
    // A compaction needs free space before it releases any.
    if services.health.is_degraded() {
        return Ok(NextRun::In(RETRY));
    }
    let mut deleted = services.vbs.iter().filter(|vb| vb.take_uncompacted());
    let Some(vb) = deleted.next() else {
        return Ok(NextRun::OnSignal);
    };
    services
        .store_dir
        .check()
        .inspect_err(|error| services.health.note(error).run())?;
    // A close does not wait for a compaction that has not begun. It does wait for a running one:
    // stopping RocksDB's background work would also stop the flushes that the close still has to
    // do.
    let Ok(storage) = services.gate.acquire() else {
        return Ok(NextRun::OnSignal);
    };
    if let Err(error) = storage.compact(vb.id()) {
        tracing::warn!(vb = %vb.id(), %error, "the space of a deleted vBucket is still in use");
    }
    Ok(NextRun::NotBefore(PAUSE))
}
