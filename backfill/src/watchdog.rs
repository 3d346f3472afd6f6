//! Looks after consumers that take nothing.
//!
//! - *Frozen*: a consumer that has taken nothing for a while, though there is something to take, while
//!   a consumer that takes is short of buffers. What is buffered for it is dropped; it is read again
//!   when its reader comes back. Looked for when the total is short; since when each takes nothing is
//!   noticed before, while more than half of the total is used. How long "a while" is doubles for each
//!   pause without progress, so that a consumer gets on, however slow it is.
//! - *Stalled*: the same for the stall limit. It is reported, and its streams are ended if the disk is
//!   short. Looked for every quarter of the limit.
//!
//! Both are properties of a consumer, never of one of its streams: as long as it takes events of one
//! stream, the others wait their turn.

use crate::backfill::Scheduler;
use crate::delivery::AWAKE_FOR;
use crate::registry::{Registry, Watched};
use parking_lot::Mutex;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use vbstore_engine::{Engine, HealthState};
use vbstore_metrics::StreamCounters;

/// For how long a consumer must have taken nothing until its batches are dropped for others. Long
/// enough that one which works on what it took is not made to read it again; short enough that one
/// which is frozen is soon forgotten. Twice as long after each pause that it did not get on after: what a
/// resumed stream delivers first is a marker, so a consumer that takes longer for an event would get
/// markers for ever.
const FROZEN_AFTER: Duration = AWAKE_FOR;

/// How often frozen consumers are looked for while somebody is short. A look takes the lock of each
/// consumer.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Watchdog {
    registry: Arc<Registry>,
    scheduler: Arc<Scheduler>,
    counters: Arc<StreamCounters>,
    stall_limit: Duration,
    disk_free_min_percent: u8,
    /// When it looks next for stalled ones, and for frozen ones.
    due: Mutex<Due>,
}

#[derive(Clone, Copy, Debug)]
struct Due {
    stalled: Duration,
    frozen: Duration,
    idle: Duration,
}

impl Watchdog {
    pub(crate) fn new(
        registry: Arc<Registry>,
        scheduler: Arc<Scheduler>,
        counters: Arc<StreamCounters>,
        stall_limit: Duration,
        disk_free_min_percent: u8,
        now: Duration,
    ) -> Self {
        let due = Due {
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

    /// Looks for stalled consumers if it is time, and for frozen ones if somebody is short; returns how
    /// long until it is time again. Called by any worker; one at a time looks.
    pub(crate) fn look_if_due(&self, now: Duration, engine: &Engine) -> Duration {
        let buffers = self.scheduler.buffers();
        let is_short = buffers.is_short();
        // So that it is known who takes nothing when somebody becomes short.
        let is_filling = buffers.used() > buffers.bytes_max() / 2;
        let mut due = self.due.lock();
        let looks_for_stalled = now >= due.stalled;
        if looks_for_stalled {
            // A stall is found within a quarter of the limit after it is one.
            due.stalled = now.saturating_add(self.stall_limit / 4);
        }
        let looks_for_frozen = is_short && now >= due.frozen;
        if looks_for_frozen {
            due.frozen = now.saturating_add(LOOK_EVERY);
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
        // On a worker: a panic here must not end it.
        let look = AssertUnwindSafe(|| {
            if looks_for_stalled {
                self.look_for_stalled(now, engine);
            }
            if looks_for_frozen {
                self.pause_frozen(now);
            } else if looks_for_idle {
                drop(self.registry.watch(now));
            }
        });
        if catch_unwind(look).is_err() {
            self.counters.panics.add(1);
            tracing::error!("looking for consumers that take nothing panicked");
        }
        next.saturating_sub(now)
    }

    /// Drops what is buffered for frozen consumers. Called without any lock.
    fn pause_frozen(&self, now: Duration) {
        for watched in self.registry.watch(now) {
            let limit = FROZEN_AFTER * (1 << watched.paused_in_vain);
            if !is_idle(&watched, now, limit) {
                continue;
            }
            let present = &watched.present;
            // ORDER: put to sleep first. If its reader comes in between, it is awake again, finds its
            // streams paused, and reads on.
            let buffers = self.scheduler.buffers();
            let Some(asleep) = buffers.put_to_sleep(present.id) else {
                continue;
            };
            let dropped = present.mailbox.pause(watched.acted);
            if dropped.streams == 0 {
                // Its reader has acted meanwhile, or reads memory just now.
                buffers.wake_again(&asleep);
                continue;
            }
            // Before the batches are dropped, which wakes what waits for room.
            for backfill in &dropped.backfills {
                self.scheduler.remove(*backfill, present.id);
            }
            self.registry.note_paused(present.id, watched.moved);
            self.counters.pauses.add(dropped.streams);
            tracing::debug!(
                consumer = %present.name,
                streams = dropped.streams,
                "buffers of a consumer that takes nothing are dropped for others"
            );
        }
    }

    fn look_for_stalled(&self, now: Duration, engine: &Engine) {
        let mut is_short = None;
        for watched in self.registry.watch(now) {
            let is_stalled = is_idle(&watched, now, self.stall_limit);
            let present = &watched.present;
            for seen in present.mailbox.look() {
                let stream = &seen.stream;
                let is_stalled = is_stalled && seen.owes;
                let was_stalled = stream.metrics.is_stalled.swap(is_stalled, Ordering::AcqRel);
                if !is_stalled {
                    continue;
                }
                if !was_stalled {
                    tracing::warn!(consumer = %present.name, vb = %stream.vb, "stream stalled");
                }
                if *is_short.get_or_insert_with(|| self.is_disk_short(engine)) {
                    let backfill = present.mailbox.end_stalled(stream.id, watched.acted);
                    if let Some(backfill) = backfill {
                        self.scheduler.remove(backfill, present.id);
                    }
                }
            }
        }
    }

    fn is_disk_short(&self, engine: &Engine) -> bool {
        match engine.health() {
            HealthState::Degraded { .. } => return true,
            // Nothing is written, so nobody is in want of space.
            HealthState::ReadOnly { .. } => return false,
            HealthState::Open | HealthState::Failed { .. } => {}
        }
        engine
            .disk_free_percent()
            .is_ok_and(|free| free < self.disk_free_min_percent)
    }
}

fn is_idle(watched: &Watched, now: Duration, limit: Duration) -> bool {
    let for_limit = |since| now.saturating_sub(since) >= limit;
    watched.idle_since.is_some_and(for_limit)
}
