//! Calling wakers on threads of their own.
//!
//! A waker that a program passes in runs the program's code. It may write, wait for durability,
//! block, panic, or drop the last handle of an engine. So no such waker is called while a lock or
//! the lead of the commit queue is held, nor on a thread that other threads depend on. The wakers
//! of streams belong to this crate and are short. But there may be thousands of them, and calling
//! them would delay a writer.
//!
//! # Protocol
//! There are two lanes. Each has its own thread, which the first job starts. One lane runs
//! programs' wakers. The other runs the wakers of streams when there are more than a few. A job is
//! posted by a thread that holds no lock of the engine. The lanes' threads are never joined and
//! hold no handle, so a waker that runs on one may close the engine. A waker that blocks delays
//! other wakers of programs, and nothing else. A thread ends when the last [`Wakers`] is gone and
//! its queue is empty.
//!
//! An engine without threads runs each job at once, on the thread that posts it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;
use vbstore_core::vbucket::FiredWakers;

/// Up to this many stream wakers are called on the thread that fires them, because waking another
/// thread would cost more.
const FEW_WAKERS: usize = 16;

/// Calls wakers. Cheap to clone. Does not keep the engine open.
#[derive(Clone, Debug)]
pub struct Wakers {
    /// `None` in an engine without threads.
    lanes: Option<Arc<WakerLanes>>,
}

#[derive(Debug)]
struct WakerLanes {
    programs: WakerLane,
    streams: WakerLane,
}

/// A queue with its own thread. Dropping the lane ends the thread.
#[derive(Debug)]
struct WakerLane {
    name: &'static str,
    queue: Arc<LaneQueue>,
}

#[derive(Debug, Default)]
struct LaneQueue {
    state: parking_lot::Mutex<LaneState>,
    changed: parking_lot::Condvar,
}

#[derive(Debug, Default)]
struct LaneState {
    posted: VecDeque<WakerJob>,
    has_thread: bool,
    is_closed: bool,
}

#[derive(Debug)]
enum WakerJob {
    Program(Waker),
    Streams(Vec<FiredWakers>),
}

impl Wakers {
    /// Returns wakers that run on threads of their own.
    pub(crate) fn threaded() -> Self {
        Self {
            lanes: Some(Arc::new(WakerLanes {
                programs: WakerLane::new("vbstore-wakers"),
                streams: WakerLane::new("vbstore-notify"),
            })),
        }
    }

    /// Returns wakers that run at once, on the thread that posts them.
    #[must_use]
    pub fn inline() -> Self {
        Self { lanes: None }
    }

    /// Calls a program's waker soon. The caller holds neither a lock nor the lead.
    pub fn post(&self, waker: Waker) {
        let job = WakerJob::Program(waker);
        match &self.lanes {
            Some(lanes) => lanes.programs.post(job),
            None => job.run(),
        }
    }

    /// Calls the wakers of streams: at once if they are few, soon otherwise. The caller holds
    /// neither a lock nor the lead.
    pub(crate) fn wake_streams(&self, fired: Vec<FiredWakers>) {
        let job = WakerJob::Streams(fired);
        match &self.lanes {
            Some(lanes) if !job.is_short() => lanes.streams.post(job),
            _ => job.run(),
        }
    }
}

impl WakerLane {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            queue: Arc::default(),
        }
    }

    fn post(&self, job: WakerJob) {
        let mut state = self.queue.state.lock();
        state.posted.push_back(job);
        let is_first = !std::mem::replace(&mut state.has_thread, true);
        drop(state);
        self.queue.changed.notify_one();
        if is_first {
            let of_thread = Arc::clone(&self.queue);
            let thread = std::thread::Builder::new().name(self.name.to_owned());
            if let Err(error) = thread.spawn(move || of_thread.work()) {
                tracing::error!(%error, "no thread for wakers: the posting thread runs them");
                self.queue.state.lock().has_thread = false;
                self.queue.run_posted();
            }
        }
    }
}

impl LaneQueue {
    fn work(&self) {
        loop {
            self.run_posted();
            let mut state = self.state.lock();
            while state.posted.is_empty() && !state.is_closed {
                self.changed.wait(&mut state);
            }
            if state.posted.is_empty() {
                return;
            }
        }
    }

    fn run_posted(&self) {
        loop {
            let next = self.state.lock().posted.pop_front();
            let Some(job) = next else {
                return;
            };
            job.run();
        }
    }
}

impl Drop for WakerLane {
    fn drop(&mut self) {
        self.queue.state.lock().is_closed = true;
        self.queue.changed.notify_one();
    }
}

impl WakerJob {
    fn is_short(&self) -> bool {
        match self {
            Self::Program(_) => false,
            Self::Streams(fired) => fired.iter().map(FiredWakers::len).sum::<usize>() <= FEW_WAKERS,
        }
    }

    fn run(self) {
        match self {
            Self::Program(waker) => {
                // A panic must not end the thread: other wakers depend on it.
                if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
                    tracing::error!("a waker of the program panicked");
                }
            }
            Self::Streams(fired) => fired.into_iter().for_each(FiredWakers::wake),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{SyncSender, sync_channel};
    use std::task::Wake;
    use std::thread::ThreadId;
    use std::time::Duration;

    struct RecordsThread(SyncSender<ThreadId>, bool);

    impl Wake for RecordsThread {
        fn wake(self: Arc<Self>) {
            self.0.send(std::thread::current().id()).unwrap();
            assert!(!self.1, "planted");
        }
    }

    #[test]
    fn wakers_are_called_in_order_on_one_thread_that_is_not_the_callers() {
        let (sent, received) = sync_channel(16);
        let wakers = Wakers::threaded();
        for panics in [false, true, false] {
            wakers.post(Waker::from(Arc::new(RecordsThread(sent.clone(), panics))));
        }
        let threads: Vec<ThreadId> = (0..3)
            .map(|_| received.recv_timeout(Duration::from_secs(60)).unwrap())
            .collect();
        assert!(
            threads
                .iter()
                .all(|thread| thread == threads.first().unwrap())
        );
        assert_ne!(threads.first(), Some(&std::thread::current().id()));
        // The last job still runs after the handle is dropped.
        wakers.post(Waker::from(Arc::new(RecordsThread(sent, false))));
        drop(wakers);
        received.recv_timeout(Duration::from_secs(60)).unwrap();
    }

    #[test]
    fn without_a_thread_they_are_called_at_once() {
        let (sent, received) = sync_channel(1);
        Wakers::inline().post(Waker::from(Arc::new(RecordsThread(sent, true))));
        assert_eq!(received.try_recv().unwrap(), std::thread::current().id());
    }
}
