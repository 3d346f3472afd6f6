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
    pub(crate) fn add(&self, id: ConsumerId, name: Arc<str>, mailbox: &Arc<Mailbox>) {
        let listed = Listed {
            name,
            mailbox: Arc::downgrade(mailbox),
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
        let look = |present: Present| {
            let mailbox = &present.mailbox;
            let idle_since = mailbox.taker().look(now, mailbox.owes());
            Watched {
                present,
                idle_since,
            }
        };
        self.present().into_iter().map(look).collect()
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
