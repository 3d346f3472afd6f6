//! Detection of consumers that take nothing although events are available.
//!
//! - A *frozen* consumer has taken nothing for a while, and another consumer that does take is
//!   short of buffer space. What is buffered for the frozen consumer is dropped, and is read again
//!   when its reader returns. Workers look for frozen consumers while the total is short. While
//!   more than half of the total is used, they already record since when each consumer has taken
//!   nothing. The delay doubles with each pause without progress, so that even a very slow consumer
//!   makes progress.
//! - A *stalled* consumer has taken nothing for the stall limit. This is reported, and if the disk
//!   is short of space, its streams are ended. Workers look for stalled consumers every quarter of
//!   the limit.
//!
//! Both are states of a consumer, never of a single stream: as long as it takes events of one
//! stream, its other streams wait their turn.

use crate::backfill::BackfillScheduler;
use crate::delivery::AWAKE_FOR;
use crate::registry::{ConsumerCheck, ConsumerRegistry};
use parking_lot::Mutex;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use vbstore_engine::{Engine, HealthState};
use vbstore_metrics::StreamCounters;

/// How long a consumer must have taken nothing before its batches are dropped for others.
///
/// Long enough for a consumer to work on what it took, without having to read it again. Short
/// enough that a frozen one does not hold buffer space for long. The delay doubles with each pause
/// after which the consumer made no progress. A resumed stream first delivers a marker, so a
/// consumer that needs longer than this for one event would otherwise get nothing but markers.
const FROZEN_AFTER: Duration = AWAKE_FOR;

/// Interval between checks for frozen consumers while an awake one is short of buffer space. Each
/// check takes the lock of every consumer.
const FROZEN_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Finds frozen and stalled consumers. Runs on the workers.
#[derive(Debug)]
pub(crate) struct Watchdog {
    registry: Arc<ConsumerRegistry>,
    scheduler: Arc<BackfillScheduler>,
    counters: Arc<StreamCounters>,
    stall_limit: Duration,
    disk_free_min_percent: u8,
    /// When the next check of each kind is due.
    due: Mutex<CheckTimes>,
}

/// Times on the engine's monotonic clock.
#[derive(Clone, Copy, Debug)]
struct CheckTimes {
    stalled: Duration,
    frozen: Duration,
    idle: Duration,
}

impl Watchdog {
    pub(crate) fn new(
        registry: Arc<ConsumerRegistry>,
        scheduler: Arc<BackfillScheduler>,
        counters: Arc<StreamCounters>,
        stall_limit: Duration,
        disk_free_min_percent: u8,
        now: Duration,
    ) -> Self {
        let due = CheckTimes {
            stalled: now.saturating_add(stall_limit / 4),
            frozen: now,
            idle: now,
        };
        Self {
            registry,
            scheduler,
            counters,
            stall_limit,
            disk_free_min_percent,
            due: Mutex::new(due),
        }
    }

    /// Checks for stalled consumers if that is due, and for frozen ones if a consumer is short of
    /// buffer space. Returns the time until the next check is due. Called by every worker; each
    /// check is done by only one of them.
    pub(crate) fn look_if_due(&self, now: Duration, engine: &Engine) -> Duration {
        let buffers = self.scheduler.buffers();
        let is_short = buffers.is_short();
        // The idle times must be recorded before space becomes short: otherwise every consumer
        // would count as idle only from then on.
        let is_filling = buffers.used() > buffers.bytes_max() / 2;
        let mut due = self.due.lock();
        let looks_for_stalled = now >= due.stalled;
        if looks_for_stalled {
            // Detects a stall at most a quarter of the limit late.
            due.stalled = now.saturating_add(self.stall_limit / 4);
        }
        let looks_for_frozen = is_short && now >= due.frozen;
        if looks_for_frozen {
            due.frozen = now.saturating_add(FROZEN_CHECK_INTERVAL);
        }
        let looks_for_idle = is_filling && now >= due.idle;
        if looks_for_idle {
            due.idle = now.saturating_add(FROZEN_AFTER);
        }
        let mut next = due.stalled;
        if is_short {
            next = next.min(due.frozen);
        }
        if is_filling {
            next = next.min(due.idle);
        }
        drop(due);
        // A panic in a check must not end the worker that runs it.
        let summaries = AssertUnwindSafe(|| {
            if looks_for_stalled {
                self.look_for_stalled(now, engine);
            }
            if looks_for_frozen {
                self.pause_frozen(now);
            } else if looks_for_idle {
                // Called for its side effect: it records since when each consumer has been idle.
                drop(self.registry.watch(now));
            }
        });
        if catch_unwind(summaries).is_err() {
            self.counters.panics.add(1);
            tracing::error!("the check for idle consumers panicked");
        }
        next.saturating_sub(now)
    }

    /// Drops what is buffered for frozen consumers. Called without any lock held.
    fn pause_frozen(&self, now: Duration) {
        for watched in self.registry.watch(now) {
            // Doubles with each pause without progress; see `FROZEN_AFTER`.
            let limit = FROZEN_AFTER * (1 << watched.pauses_without_progress);
            if !is_idle(&watched, now, limit) {
                continue;
            }
            let present = &watched.present;
            // ORDER: put the consumer to sleep first, pause its streams second. If its reader comes
            // in between, the consumer is awake again, finds its streams paused, and resumes them.
            let buffers = self.scheduler.buffers();
            let Some(asleep) = buffers.put_to_sleep(present.id) else {
                continue;
            };
            let dropped = present.mailbox.pause(watched.acted);
            if dropped.streams == 0 {
                // Its reader has acted since the check, or is reading from memory right now.
                buffers.wake_again(&asleep);
                continue;
            }
            // ORDER: remove the backfills before `dropped` releases its charges, which would wake
            // them.
            for backfill in &dropped.backfills {
                self.scheduler.remove(*backfill, present.id);
            }
            self.registry.record_pause(present.id, watched.moved);
            self.counters.pauses.add(dropped.streams);
            tracing::debug!(
                consumer = %present.name,
                streams = dropped.streams,
                "dropped the buffers of an idle consumer for others"
            );
        }
    }

    /// Reports stalled consumers, and ends their streams if the disk is short of space.
    fn look_for_stalled(&self, now: Duration, engine: &Engine) {
        let mut is_short = None;
        for watched in self.registry.watch(now) {
            let is_stalled = is_idle(&watched, now, self.stall_limit);
            let present = &watched.present;
            for summary in present.mailbox.inspect() {
                let stream = &summary.stream;
                let is_stalled = is_stalled && summary.has_untaken;
                let was_stalled = stream.metrics.is_stalled.swap(is_stalled, Ordering::AcqRel);
                if !is_stalled {
                    continue;
                }
                if !was_stalled {
                    tracing::warn!(consumer = %present.name, vb = %stream.vb, "stream stalled");
                }
                // The free space is read at most once per check, and only if a stream is stalled.
                if *is_short.get_or_insert_with(|| self.is_disk_short(engine)) {
                    let backfill = present.mailbox.end_stalled(stream.id, watched.acted);
                    if let Some(backfill) = backfill {
                        self.scheduler.remove(backfill, present.id);
                    }
                }
            }
        }
    }

    /// Returns whether the disk is full, or has less free space than configured. An unreadable
    /// value counts as enough space.
    fn is_disk_short(&self, engine: &Engine) -> bool {
        match engine.health() {
            HealthState::Degraded { .. } => return true,
            // A read-only store writes nothing, so it needs no space.
            HealthState::ReadOnly { .. } => return false,
            HealthState::Open | HealthState::Failed { .. } => {}
        }
        engine
            .disk_free_percent()
            .is_ok_and(|free| free < self.disk_free_min_percent)
    }
}

/// Returns whether a consumer has been idle for `limit`.
fn is_idle(watched: &ConsumerCheck, now: Duration, limit: Duration) -> bool {
    let for_limit = |since| now.saturating_sub(since) >= limit;
    watched.idle_since.is_some_and(for_limit)
}
