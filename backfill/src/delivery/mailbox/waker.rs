//! The waker of streams that read from memory.

use super::state::Mailbox;
use crate::stream::StreamId;
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};

/// Wakes the reader of a stream that has caught up with memory. Does not keep the mailbox alive.
#[derive(Debug)]
pub(crate) struct TailWaker {
    mailbox: Weak<Mailbox>,
    stream: StreamId,
}

impl TailWaker {
    pub(crate) fn waker(mailbox: &Weak<Mailbox>, stream: StreamId) -> Waker {
        Waker::from(Arc::new(Self {
            mailbox: Weak::clone(mailbox),
            stream,
        }))
    }
}

impl Wake for TailWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(mailbox) = self.mailbox.upgrade() {
            mailbox.notify(self.stream);
        }
    }
}
