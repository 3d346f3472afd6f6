//! Gives back the space of deleted vBuckets.

use super::retry::RETRY;
use crate::error::Result;
use crate::services::Services;
use crate::signals::Next;
use std::time::Duration;

/// How long to rest after a vBucket: deletions of one that come close to each other are one compaction.
const PAUSE: Duration = Duration::from_secs(1);

/// Compacts one vBucket that was deleted: its largest files went with the deletion, and what is left is
/// small, the deletion itself included. An error is no failure of the engine: the space stays taken until
/// RocksDB comes by, and a write that cannot be made says so itself.
pub(super) fn step(services: &Services) -> Result<Next> {
    // A compaction needs space before it gives some back.
    if services.health.is_degraded() {
        return Ok(Next::In(RETRY));
    }
    let mut deleted = services.vbs.iter().filter(|vb| vb.take_uncompacted());
    let Some(vb) = deleted.next() else {
        return Ok(Next::OnSignal);
    };
    services
        .home
        .check()
        .inspect_err(|error| services.health.note(error).run())?;
    // A close that has begun need not wait for one more. It does wait for one that runs: what RocksDB can
    // be told to stop includes the flushes that the close has yet to do.
    let Ok(storage) = services.gate.lend() else {
        return Ok(Next::OnSignal);
    };
    if let Err(error) = storage.compact(vb.id()) {
        tracing::warn!(vb = %vb.id(), %error, "the space of a deleted vBucket is not given back yet");
    }
    Ok(Next::NotBefore(PAUSE))
}
