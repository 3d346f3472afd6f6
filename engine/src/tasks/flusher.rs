//! Flushes what nobody waits for.

use super::{Next, RETRY};
use crate::error::Result;
use crate::inner::Inner;

/// Flushes if a ticket was handed out, or a change has been in memory only for the flush interval;
/// tries again, with a sync, while the disk is full.
pub(super) fn step(inner: &Inner) -> Result<Next> {
    if inner.health.is_failed() {
        // Whoever waits in the queue is told why; nobody else may come to lead any more.
        inner.with_lead(|| Ok(()))?;
        return Ok(Next::OnSignal);
    }
    let interval = inner.tuning().flush_interval;
    let now = inner.clock.monotonic();
    let left = || {
        let since = inner.commit.dirty_since()?;
        Some(interval.saturating_sub(now.saturating_sub(since)))
    };
    let is_demanded = inner.commit.take_demand();
    let is_due = left().is_some_and(|left| left.is_zero());
    if is_demanded || is_due || inner.health.is_degraded() {
        inner.flush_in_turn(inner.health.is_degraded())?;
        if inner.health.is_degraded() {
            return Ok(Next::In(RETRY));
        }
    }
    // What is left when the batch was full is due at once.
    Ok(left().map_or(Next::OnSignal, Next::In))
}
