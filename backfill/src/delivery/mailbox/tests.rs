use super::state::EventSource;
use super::*;
use crate::config::BackfillOrder;
use crate::delivery::batch::{Changes, EventBatch};
use crate::stream::{
    BackfillId, EndReason, Event, Ids, Stream, StreamId, StreamMetrics, StreamOptions,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Wake, Waker};
use std::time::Duration;
use vbstore_core::{Clock, ConsumerActivity, Seqno, SystemClock, VbId};
use vbstore_engine::{ReaderGuard, Wakers, raw};

const STREAM: StreamId = Ids::test_stream(1);
const BACKFILL: BackfillId = Ids::test_backfill(1);
const VB: VbId = VbId::new(1);
/// How long to wait for a reader that must be woken.
const PATIENCE: Duration = Duration::from_secs(20);

/// A waker that counts its calls.
#[derive(Default)]
struct Counted(AtomicUsize);

impl Wake for Counted {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn mailbox() -> Arc<Mailbox> {
    let wakers = Wakers::inline();
    let activity = ConsumerActivity::new(Duration::ZERO);
    Arc::new(Mailbox::new(
        BackfillOrder::RoundRobin,
        activity,
        Arc::default(),
        wakers,
    ))
}

fn reader() -> ReaderGuard {
    raw::reader_of_no_store(VB).unwrap()
}

fn stream() -> Arc<Stream> {
    Arc::new(Stream {
        id: STREAM,
        consumer: Ids::test_consumer(1),
        vb: VB,
        generation: 0,
        options: StreamOptions::default(),
        end: Seqno::MAX,
        reader: Arc::clone(reader().reader()),
        metrics: StreamMetrics::default(),
    })
}

/// A batch of one event.
fn batch(seqno: u64) -> EventBatch {
    let advance = Some(Seqno::new(seqno));
    EventBatch::new(stream(), None, Changes::None, advance, None)
}

/// A mailbox with a stream that a backfill reads.
fn on_disk() -> Arc<Mailbox> {
    let mailbox = mailbox();
    mailbox.begin_on_disk(&stream(), reader(), BACKFILL);
    mailbox
}

/// A mailbox with a stream in memory, whose tail the reader has.
fn in_memory() -> Arc<Mailbox> {
    let mailbox = on_disk();
    let mut state = mailbox.state.lock();
    state.entry_mut(STREAM).source = EventSource::Memory(None);
    drop(state);
    mailbox
}

/// Takes all available events, as short words.
fn take(mailbox: &Mailbox) -> Vec<String> {
    let mut taken = Vec::new();
    // Limits an endless loop.
    while taken.len() < 10 {
        match mailbox.find() {
            ReaderFinding::Batch { .. } => {}
            ReaderFinding::Ended => {
                taken.push("ended".to_owned());
                return taken;
            }
            ReaderFinding::Nothing => return taken,
            found => panic!("{found:?}"),
        }
        while let Some((_, event)) = mailbox.take_event() {
            taken.push(match event {
                Event::SeqnoAdvanced(seqno) => format!("to {seqno}"),
                Event::End(reason) => format!("end {}", reason.name()),
                event => panic!("{event:?}"),
            });
        }
    }
    taken
}

fn deliver(mailbox: &Mailbox, batch: Option<EventBatch>, next: NextSource) {
    mailbox.deliver(STREAM, BACKFILL, batch, next);
}

fn end(mailbox: &Mailbox, reason: EndReason) {
    mailbox.end(STREAM, reason);
}

/// Something that a reader waits for: its name, the mailbox before it, and the action that brings
/// it.
type News = (&'static str, fn() -> Arc<Mailbox>, fn(&Arc<Mailbox>));

const NEWS: [News; 5] = [
    ("a stream that begins", mailbox, |mailbox| {
        mailbox.begin_on_disk(&stream(), reader(), BACKFILL);
    }),
    ("a batch of a worker", on_disk, |mailbox| {
        deliver(mailbox, Some(batch(1)), NextSource::Disk);
    }),
    ("an end of a worker", on_disk, |mailbox| {
        deliver(mailbox, None, NextSource::End(EndReason::ReachedEnd));
    }),
    ("an end from outside", on_disk, |mailbox| {
        end(mailbox, EndReason::Closed);
    }),
    ("changes in memory", in_memory, |mailbox| {
        TailWaker::waker(&Arc::downgrade(mailbox), STREAM).wake();
    }),
];

#[test]
fn what_arrives_wakes_a_task_once() {
    for (what, mailbox, arrives) in NEWS {
        let mailbox = mailbox();
        let counted: Arc<Counted> = Arc::default();
        let waker = Waker::from(Arc::clone(&counted));
        let woken = || counted.0.load(Ordering::SeqCst);
        drop(mailbox.state.lock().waker.replace(waker));
        assert_eq!(woken(), 0, "{what}");
        arrives(&mailbox);
        assert_eq!(woken(), 1, "{what}");
        // The task does not wait until it polls again.
        end(&mailbox, EndReason::Shutdown);
        assert_eq!(woken(), 1, "{what}");
    }
}

#[test]
fn what_arrives_wakes_a_thread_that_waits() {
    // The reader may or may not wait already; in some of the rounds it does.
    for (what, mailbox, arrives) in NEWS.iter().skip(1).cycle().take(400) {
        let mailbox = mailbox();
        let (clock, ready) = (SystemClock::new(), Barrier::new(2));
        std::thread::scope(|scope| {
            let reader = std::thread::Builder::new().name("reader".to_owned());
            let wait = || {
                ready.wait();
                drop(mailbox.wait(Some(PATIENCE)));
            };
            let reader = reader.spawn_scoped(scope, wait).unwrap();
            ready.wait();
            for _ in 0..20 {
                std::thread::yield_now();
            }
            arrives(&mailbox);
            reader.join().unwrap();
        });
        assert!(
            clock.monotonic() < PATIENCE,
            "the reader was not woken for {what}"
        );
    }
}

#[test]
fn a_notified_stream_in_memory_is_queued_once() {
    let mailbox = in_memory();
    let waker = TailWaker::waker(&Arc::downgrade(&mailbox), STREAM);
    for _ in 0..2 {
        waker.wake_by_ref();
        assert_eq!(mailbox.state.lock().memory, [STREAM]);
    }
    // A stream that is not in memory is not queued.
    let mailbox = on_disk();
    TailWaker::waker(&Arc::downgrade(&mailbox), STREAM).wake();
    assert!(mailbox.state.lock().memory.is_empty());
    // The waker does not keep the mailbox alive.
    let waker = TailWaker::waker(&Arc::downgrade(&mailbox), STREAM);
    drop(mailbox);
    waker.wake();
}

#[test]
fn an_end_comes_once_and_last_by_every_path() {
    type Brings = (&'static str, fn(&Mailbox));
    let all: [Brings; 3] = [
        ("reached_end", |mailbox| {
            deliver(
                mailbox,
                Some(batch(2)),
                NextSource::End(EndReason::ReachedEnd),
            );
        }),
        ("closed", |mailbox| end(mailbox, EndReason::Closed)),
        ("stalled", |mailbox| end(mailbox, EndReason::Stalled)),
    ];
    for (name, first) in all {
        for (_, second) in all {
            for (_, third) in all {
                let mailbox = on_disk();
                deliver(&mailbox, Some(batch(1)), NextSource::Disk);
                first(&mailbox);
                second(&mailbox);
                third(&mailbox);
                let is_reached = name == "reached_end";
                let mut expected = Vec::new();
                if is_reached {
                    expected.extend(["to 1", "to 2"].map(str::to_owned));
                }
                expected.extend([format!("end {name}"), "ended".to_owned()]);
                assert_eq!(take(&mailbox), expected);
                assert_eq!(mailbox.counters.closed.of(name).get(), 1);
                // A later end finds no stream.
                second(&mailbox);
                assert_eq!(take(&mailbox), ["ended"]);
                assert_eq!(mailbox.stream_of(VB), None);
            }
        }
    }
}

#[test]
fn a_delivery_of_another_backfill_is_dropped() {
    let mailbox = on_disk();
    let other = Ids::test_backfill(2);
    mailbox.deliver(
        STREAM,
        other,
        Some(batch(1)),
        NextSource::End(EndReason::ReachedEnd),
    );
    assert!(take(&mailbox).is_empty());
    deliver(&mailbox, Some(batch(1)), NextSource::Disk);
    assert_eq!(take(&mailbox), ["to 1"]);
}

#[test]
fn a_reader_that_begins_to_wait_before_its_streams_are_paused_is_woken() {
    let mailbox = on_disk();
    // The reader waits from now on, as a task.
    assert!(matches!(mailbox.find(), ReaderFinding::Nothing));
    let count = Arc::new(Counted::default());
    mailbox.state.lock().waker = Some(Waker::from(Arc::clone(&count)));
    let dropped = mailbox.pause(mailbox.activity.acted());
    assert_eq!((dropped.streams, &*dropped.backfills), (1, &[BACKFILL][..]));
    assert_eq!(count.0.load(Ordering::SeqCst), 1, "the reader is not woken");
    assert!(matches!(mailbox.find(), ReaderFinding::Paused(_)));
}

#[test]
fn a_verdict_from_before_the_reader_acted_is_void() {
    let mailbox = on_disk();
    let acted = mailbox.activity.acted();
    assert!(matches!(mailbox.find(), ReaderFinding::Nothing));
    assert_eq!(mailbox.pause(acted).streams, 0);
    assert_eq!(mailbox.end_stalled(STREAM, acted), None);
    let acted = mailbox.activity.acted();
    assert_eq!(mailbox.end_stalled(STREAM, acted), Some(BACKFILL));
}

#[test]
fn a_delivery_of_a_backfill_that_is_not_awaited_is_refused() {
    let mailbox = on_disk();
    assert!(mailbox.is_awaited(STREAM, BACKFILL));
    assert!(mailbox.deliver(STREAM, BACKFILL, None, NextSource::Disk));
    drop(mailbox.pause(mailbox.activity.acted()));
    assert!(!mailbox.is_awaited(STREAM, BACKFILL));
    let end = NextSource::End(EndReason::Closed);
    assert!(!mailbox.deliver(STREAM, BACKFILL, None, end));
    assert!(matches!(mailbox.find(), ReaderFinding::Paused(_)));
}
