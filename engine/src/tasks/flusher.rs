//! Flushes what nobody waits for.

use super::{Next, RETRY};
use crate::error::Result;
use crate::inner::Inner;
use std::time::Duration;

/// Flushes if a ticket was handed out, or a change has been in memory only for the flush interval;
/// syncs if a stream asked for it, or a batch has been unsynced for the sync interval; tries again
/// while the disk is full.
pub(super) fn step(inner: &Inner) -> Result<Next> {
    if inner.health.is_failed() {
        // Whoever waits in the queue is told why; nobody else may come to lead any more.
        inner.with_lead(|| Ok(()))?;
        return Ok(Next::OnSignal);
    }
    let tuning = inner.tuning();
    let now = inner.clock.monotonic();
    let left = |since: Option<Duration>, interval: Duration| {
        since.map(|since| interval.saturating_sub(now.saturating_sub(since)))
    };
    let is_demanded = inner.commit.take_demand();
    let to_flush = left(inner.commit.dirty_since(), tuning.flush_interval);
    let to_sync = left(inner.commit.unsynced_since(), tuning.sync_interval);
    let is_due = |left: Option<Duration>| left.is_some_and(|left| left.is_zero());

    let is_sync_demanded = inner.commit.take_sync_demand();
    let sync = is_due(to_sync) || is_sync_demanded;
    if is_demanded || sync || is_due(to_flush) || inner.health.is_degraded() {
        // What is left when the batch was full is due at once.
        inner.flush_in_turn(sync || inner.health.is_degraded())?;
        if inner.health.is_degraded() {
            return Ok(Next::In(RETRY));
        }
        let to_flush = left(inner.commit.dirty_since(), tuning.flush_interval);
        let to_sync = left(inner.commit.unsynced_since(), tuning.sync_interval);
        return Ok(soonest(to_flush, to_sync));
    }
    Ok(soonest(to_flush, to_sync))
}

fn soonest(a: Option<Duration>, b: Option<Duration>) -> Next {
    a.into_iter()
        .chain(b)
        .min()
        .map_or(Next::OnSignal, Next::In)
}
