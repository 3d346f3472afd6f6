//! The implementation of `futures_core::Stream` for a consumer. It needs no async runtime.

use super::Consumer;
use crate::delivery::ReaderFinding;
use crate::stream::StreamEvent;
use std::pin::Pin;
use std::task::{Context, Poll};

impl futures_core::Stream for Consumer {
    type Item = StreamEvent;

    /// Returns the next event, or registers the task's waker. Never blocks, and never reads from
    /// disk. The waker is called on a thread of the engine. In an engine without threads it is
    /// called on the thread that makes an event available.
    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let consumer = self.get_mut();
        loop {
            if let Some(event) = consumer.take_event() {
                return Poll::Ready(Some(event));
            }
            // Registered as waiting before the mailbox is polled: a pending task stays awake for
            // the buffers until it is polled again.
            consumer.record_visit(true);
            let found = consumer.mailbox.poll(context.waker());
            if matches!(found, ReaderFinding::Nothing) {
                return Poll::Pending;
            }
            consumer.record_visit(false);
            if consumer.follow_up(found).is_err() {
                return Poll::Ready(None);
            }
        }
    }
}
