//! Flushes changes that no thread waits for.

use super::retry::RETRY;
use crate::error::Result;
use crate::services::Services;
use crate::signals::NextRun;

/// Flushes if a flush was demanded, or if a change has been in memory for the flush interval. While
/// the disk is full, retries with a sync.
pub(super) fn step(services: &Services) -> Result<NextRun> {
    let Services {
        health,
        committer,
        dirty,
        demand,
        clock,
        ..
    } = services;
    if health.is_failed() {
        // Makes the threads in the queue check their conditions again, so that they get the error.
        // Without this call, they might wait forever, because possibly no other thread takes the
        // lead any more.
        committer.recheck_waiters()?;
        return Ok(NextRun::OnSignal);
    }
    let interval = services.tuning.get().flush_interval;
    let now = clock.monotonic();
    let left = || {
        let since = dirty.since()?;
        Some(interval.saturating_sub(now.saturating_sub(since)))
    };
    let is_demanded = demand.take_flush();
    let is_due = left().is_some_and(|left| left.is_zero());
    if is_demanded || is_due || health.is_degraded() {
        committer.flush_in_turn(health.is_degraded())?;
        if health.is_degraded() {
            return Ok(NextRun::In(RETRY));
        }
    }
    // Changes that did not fit into the batch are due at once.
    Ok(left().map_or(NextRun::OnSignal, NextRun::In))
}
