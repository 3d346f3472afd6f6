//! A consumer as a `futures_core::Stream`. Brings no runtime.

use super::Consumer;
use crate::delivery::Found;
use crate::stream::StreamEvent;
use std::pin::Pin;
use std::task::{Context, Poll};

impl futures_core::Stream for Consumer {
    type Item = StreamEvent;

    /// Never waits and reads no disk. The waker is called on a thread of the engine's own, or, in an
    /// engine without threads, on the thread that makes something available.
    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let consumer = self.get_mut();
        loop {
            if let Some(event) = consumer.take_event() {
                return Poll::Ready(Some(event));
            }
            // Until it is polled again it waits.
            consumer.note_reader(true);
            let found = consumer.mailbox.poll(context.waker());
            if matches!(found, Found::Nothing) {
                return Poll::Pending;
            }
            consumer.note_reader(false);
            if consumer.follow_up(found).is_err() {
                return Poll::Ready(None);
            }
        }
    }
}
