//! Syncs changes that no writer syncs, without holding the lead during the sync.

use super::retry::RETRY;
use crate::error::Result;
use crate::services::Services;
use crate::signals::NextRun;

/// Syncs if a stream requested it, or if a batch has been unsynced for the sync interval. While the
/// disk is full it does nothing, because the retries of the flusher sync too.
pub(super) fn step(services: &Services) -> Result<NextRun> {
    let Services {
        health,
        ledger,
        demand,
        clock,
        ..
    } = services;
    if health.is_failed() {
        return Ok(NextRun::OnSignal);
    }
    if health.is_degraded() {
        return Ok(NextRun::In(RETRY));
    }
    let interval = services.tuning.get().sync_interval;
    let left = || {
        let since = ledger.unsynced_since()?;
        Some(interval.saturating_sub(clock.monotonic().saturating_sub(since)))
    };
    let is_demanded = demand.take_sync();
    if is_demanded || left().is_some_and(|left| left.is_zero()) {
        // A demand that fails need not be kept. Either the flusher's next success syncs, or the
        // engine has failed and the streams get that error.
        services.leaderless_sync.run()?;
    }
    Ok(left().map_or(NextRun::OnSignal, NextRun::In))
}
