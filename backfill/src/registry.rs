//! The consumers of an engine's streams, as workers, watchdog and figures know them.

use crate::delivery::Mailbox;
use crate::stream::ConsumerId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// All consumers. Its lock is a leaf.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    consumers: Mutex<BTreeMap<ConsumerId, Listed>>,
}

#[derive(Debug)]
struct Listed {
    name: Arc<str>,
    mailbox: Weak<Mailbox>,
    paused: Option<Paused>,
}

/// That a consumer was paused: where it was, and how often it was paused there.
#[derive(Clone, Copy, Debug)]
struct Paused {
    moved: u64,
    times: u32,
}

/// A consumer that is there.
#[derive(Debug)]
pub(crate) struct Present {
    pub(crate) id: ConsumerId,
    pub(crate) name: Arc<str>,
    pub(crate) mailbox: Arc<Mailbox>,
}

/// A consumer, and since when it has taken nothing although there was something to take.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) present: Present,
    pub(crate) idle_since: Option<Duration>,
    /// What its reader had done then.
    pub(crate) acted: u64,
    /// Events it had taken that moved a position.
    pub(crate) moved: u64,
    /// How often it was paused without having moved in between.
    pub(crate) paused_in_vain: u32,
}

impl Registry {
    pub(crate) fn add(&self, id: ConsumerId, name: Arc<str>, mailbox: &Arc<Mailbox>) {
        let listed = Listed {
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

    /// Returns the consumers that are there.
    pub(crate) fn present(&self) -> Vec<Present> {
        let consumers = self.consumers.lock();
        consumers.iter().filter_map(Listed::present).collect()
    }

    /// Looks at all consumers at `now`; see [`vbstore_core::Taker::look`].
    pub(crate) fn watch(&self, now: Duration) -> Vec<Watched> {
        let mut watched = Vec::new();
        for present in self.present() {
            // Asked without the lock of the registry. ORDER: what its reader has done first, so that what
            // it does from then on voids what is judged by the look.
            let taker = present.mailbox.taker();
            let (acted, moved) = (taker.acted(), taker.moved());
            let idle_since = taker.look(now, present.mailbox.owes());
            let consumers = self.consumers.lock();
            let Some(listed) = consumers.get(&present.id) else {
                // Removed meanwhile.
                continue;
            };
            let paused_in_vain = listed.paused_in_vain(moved);
            drop(consumers);
            watched.push(Watched {
                present,
                idle_since,
                acted,
                moved,
                paused_in_vain,
            });
        }
        watched
    }

    /// Notes that a consumer was paused when it had moved so far.
    pub(crate) fn note_paused(&self, id: ConsumerId, moved: u64) {
        if let Some(listed) = self.consumers.lock().get_mut(&id) {
            let times = listed.paused_in_vain(moved) + 1;
            listed.paused = Some(Paused { moved, times });
        }
    }
}

impl Listed {
    fn paused_in_vain(&self, moved: u64) -> u32 {
        let here = self.paused.filter(|paused| paused.moved == moved);
        here.map_or(0, |paused| paused.times)
    }

    fn present((id, listed): (&ConsumerId, &Self)) -> Option<Present> {
        Some(Present {
            id: *id,
            name: Arc::clone(&listed.name),
            mailbox: listed.mailbox.upgrade()?,
        })
    }
}
