//! Syncs what nobody waits for with the lead.

use super::{Next, RETRY};
use crate::error::Result;
use crate::inner::Inner;

/// Syncs if a stream asked for it, or a batch has been unsynced for the sync interval. While the disk
/// is full it leaves that to the flusher, whose attempts sync too.
pub(super) fn step(inner: &Inner) -> Result<Next> {
    if inner.health.is_failed() {
        return Ok(Next::OnSignal);
    }
    if inner.health.is_degraded() {
        return Ok(Next::In(RETRY));
    }
    let interval = inner.tuning().sync_interval;
    let left = || {
        let since = inner.commit.unsynced_since()?;
        Some(interval.saturating_sub(inner.clock.monotonic().saturating_sub(since)))
    };
    let is_demanded = inner.commit.take_sync_demand();
    if is_demanded || left().is_some_and(|left| left.is_zero()) {
        // A demand that fails need not be kept: the flusher's next success syncs, or the engine has
        // failed and the streams are told.
        inner.sync_aside()?;
    }
    Ok(left().map_or(Next::OnSignal, Next::In))
}
