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
    idle: Idle,
}

/// What was seen of a consumer when somebody looked last: events taken, whether there was something to
/// take, and when one of these changed.
#[derive(Clone, Copy, Debug)]
struct Idle {
    taken: u64,
    owed: bool,
    since: Duration,
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
}

impl Registry {
    pub(crate) fn add(
        &self,
        id: ConsumerId,
        name: Arc<str>,
        mailbox: &Arc<Mailbox>,
        now: Duration,
    ) {
        let listed = Listed {
            name,
            mailbox: Arc::downgrade(mailbox),
            idle: Idle {
                taken: 0,
                owed: false,
                since: now,
            },
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

    /// Looks at all consumers at `now`. The more often, the more exactly it is known since when one
    /// takes nothing; it is never longer than it has.
    pub(crate) fn watch(&self, now: Duration) -> Vec<Watched> {
        let mut watched = Vec::new();
        for present in self.present() {
            // Asked without the lock of the registry.
            let (taken, owed) = (present.mailbox.taken(), present.mailbox.owes());
            let mut consumers = self.consumers.lock();
            let Some(listed) = consumers.get_mut(&present.id) else {
                // Removed meanwhile.
                continue;
            };
            if listed.idle.taken != taken || listed.idle.owed != owed {
                listed.idle = Idle {
                    taken,
                    owed,
                    since: now,
                };
            }
            let idle_since = owed.then_some(listed.idle.since);
            drop(consumers);
            watched.push(Watched {
                present,
                idle_since,
            });
        }
        watched
    }
}

impl Listed {
    fn present((id, listed): (&ConsumerId, &Self)) -> Option<Present> {
        Some(Present {
            id: *id,
            name: Arc::clone(&listed.name),
            mailbox: listed.mailbox.upgrade()?,
        })
    }
}
