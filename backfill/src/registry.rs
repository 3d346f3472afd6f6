//! The list of an engine's consumers, for workers, watchdog and metrics.

use crate::delivery::Mailbox;
use crate::stream::ConsumerId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// All consumers. Its lock is a leaf: no other lock is taken while it is held.
#[derive(Debug, Default)]
pub(crate) struct ConsumerRegistry {
    consumers: Mutex<BTreeMap<ConsumerId, RegistryEntry>>,
}

#[derive(Debug)]
struct RegistryEntry {
    name: Arc<str>,
    mailbox: Weak<Mailbox>,
    paused: Option<PauseRecord>,
}

/// The last pause of a consumer: how many events that move a position it had taken, and how often
/// it was paused at that count.
#[derive(Clone, Copy, Debug)]
struct PauseRecord {
    moved: u64,
    times: u32,
}

/// A consumer that still exists.
#[derive(Debug)]
pub(crate) struct RegisteredConsumer {
    pub(crate) id: ConsumerId,
    pub(crate) name: Arc<str>,
    pub(crate) mailbox: Arc<Mailbox>,
}

/// A consumer, and for how long it has been idle.
#[derive(Debug)]
pub(crate) struct ConsumerCheck {
    pub(crate) present: RegisteredConsumer,
    /// The time since which it has taken nothing although events are available; `None` if it is not
    /// idle.
    pub(crate) idle_since: Option<Duration>,
    /// The number of its reader's actions when it was checked; see
    /// [`vbstore_core::ConsumerActivity::acted`].
    pub(crate) acted: u64,
    /// The number of events taken that moved a position.
    pub(crate) moved: u64,
    /// How often it was paused since it last moved.
    pub(crate) pauses_without_progress: u32,
}

impl ConsumerRegistry {
    pub(crate) fn add(&self, id: ConsumerId, name: Arc<str>, mailbox: &Arc<Mailbox>) {
        let listed = RegistryEntry {
            name,
            mailbox: Arc::downgrade(mailbox),
            paused: None,
        };
        let before = self.consumers.lock().insert(id, listed);
        assert!(before.is_none(), "a consumer is added twice");
    }

    pub(crate) fn remove(&self, id: ConsumerId) {
        self.consumers.lock().remove(&id);
    }

    /// Returns the consumers that still exist.
    pub(crate) fn present(&self) -> Vec<RegisteredConsumer> {
        let consumers = self.consumers.lock();
        consumers
            .iter()
            .filter_map(RegistryEntry::present)
            .collect()
    }

    /// Checks all consumers for activity at `now`; see
    /// [`vbstore_core::ConsumerActivity::check_idle`]. Takes each mailbox's lock for a moment.
    pub(crate) fn watch(&self, now: Duration) -> Vec<ConsumerCheck> {
        let mut watched = Vec::new();
        for present in self.present() {
            // The registry's lock is a leaf, so it is not held here: the calls below take other
            // locks. ORDER: read the reader's activity first. If the reader acts after this, the
            // numbers differ, and the caller's verdict is void.
            let activity = present.mailbox.activity();
            let (acted, moved) = (activity.acted(), activity.moved());
            let idle_since = activity.check_idle(now, present.mailbox.has_untaken());
            let consumers = self.consumers.lock();
            let Some(listed) = consumers.get(&present.id) else {
                // The consumer was dropped after the list was copied.
                continue;
            };
            let pauses_without_progress = listed.pauses_without_progress(moved);
            drop(consumers);
            watched.push(ConsumerCheck {
                present,
                idle_since,
                acted,
                moved,
                pauses_without_progress,
            });
        }
        watched
    }

    /// Records a pause of a consumer that had taken `moved` events that move a position.
    pub(crate) fn record_pause(&self, id: ConsumerId, moved: u64) {
        if let Some(listed) = self.consumers.lock().get_mut(&id) {
            let times = listed.pauses_without_progress(moved) + 1;
            listed.paused = Some(PauseRecord { moved, times });
        }
    }
}

impl RegistryEntry {
    fn pauses_without_progress(&self, moved: u64) -> u32 {
        let here = self.paused.filter(|paused| paused.moved == moved);
        here.map_or(0, |paused| paused.times)
    }

    fn present((id, listed): (&ConsumerId, &Self)) -> Option<RegisteredConsumer> {
        Some(RegisteredConsumer {
            id: *id,
            name: Arc::clone(&listed.name),
            mailbox: listed.mailbox.upgrade()?,
        })
    }
}
