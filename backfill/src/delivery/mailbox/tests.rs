use super::*;
use crate::config::Order;
use crate::stream::{BackfillId, EndReason, Figures, Ids, Stream, StreamId, StreamOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use vbstore_core::{Seqno, VbId};
use vbstore_engine::Wakers;

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A mailbox with a stream that a backfill reads for.
fn one_on_disk() -> (Mailbox, StreamId, BackfillId) {
    let mailbox = Mailbox::new(Order::RoundRobin, Arc::default(), Wakers::inline());
    let ids = Ids::default();
    let stream = Arc::new(Stream {
        id: ids.stream(),
        consumer: ids.consumer(),
        vb: VbId::new(0),
        generation: 0,
        options: StreamOptions::default(),
        end: Seqno::MAX,
        figures: Figures::default(),
    });
    let backfill = ids.backfill();
    mailbox.begin_on_disk(&stream, backfill);
    (mailbox, stream.id, backfill)
}

#[test]
fn a_reader_that_begins_to_wait_before_its_streams_are_paused_is_woken() {
    let (mailbox, _, backfill) = one_on_disk();
    // It waits from now on, as a task.
    assert!(matches!(mailbox.find(), Found::Nothing));
    let count = Arc::new(Count::default());
    mailbox.state.lock().waker = Some(Waker::from(Arc::clone(&count)));
    let dropped = mailbox.pause(mailbox.acted());
    assert_eq!((dropped.streams, &*dropped.backfills), (1, &[backfill][..]));
    assert_eq!(count.0.load(Ordering::SeqCst), 1, "it waits for ever");
    assert!(matches!(mailbox.find(), Found::Paused(_)));
}

#[test]
fn what_was_judged_before_the_reader_acted_is_void() {
    let (mailbox, stream, backfill) = one_on_disk();
    let acted = mailbox.acted();
    assert!(matches!(mailbox.find(), Found::Nothing));
    assert_eq!(mailbox.pause(acted).streams, 0);
    assert_eq!(mailbox.end_stalled(stream, acted), None);
    let acted = mailbox.acted();
    assert_eq!(mailbox.end_stalled(stream, acted), Some(backfill));
}

#[test]
fn what_a_backfill_brings_that_is_not_awaited_is_refused() {
    let (mailbox, stream, backfill) = one_on_disk();
    assert!(mailbox.is_awaited(stream, backfill));
    assert!(mailbox.deliver(stream, backfill, None, Next::Disk));
    drop(mailbox.pause(mailbox.acted()));
    assert!(!mailbox.is_awaited(stream, backfill));
    assert!(!mailbox.deliver(stream, backfill, None, Next::End(EndReason::Closed)));
    assert!(matches!(mailbox.find(), Found::Paused(_)));
}
