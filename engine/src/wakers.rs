//! Calling a program's wakers.
//!
//! A waker is a program's code: it may write, wait for durability, block, panic, or drop the last
//! handle of an engine. So none is called while a lock or the lead of the commit queue is held, nor on
//! a thread on which anybody else depends.
//!
//! # Protocol
//! Whoever has something to wake posts the waker, holding no lock of the engine. A thread of its own,
//! started with the first waker, calls them one after the other. It is joined by nobody and holds no
//! handle: a waker may close the engine on it. A waker that blocks delays other wakers, and nothing
//! else. The thread ends when the last [`Wakers`] is gone and the queue is empty.
//!
//! An engine without threads calls a posted waker at once, on the thread that posts it.

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;

/// Calls wakers. Cheap to clone; holds no engine.
#[derive(Clone, Debug)]
pub struct Wakers {
    handle: Arc<Handle>,
}

/// Ends the thread when the last clone is gone.
#[derive(Debug)]
struct Handle {
    queue: Option<Arc<Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    posted: VecDeque<Waker>,
    has_thread: bool,
    is_closed: bool,
}

impl Wakers {
    /// Returns wakers that are called on a thread of their own.
    pub(crate) fn threaded() -> Self {
        let queue = Some(Arc::default());
        Self {
            handle: Arc::new(Handle { queue }),
        }
    }

    /// Returns wakers that are called at once.
    pub(crate) fn inline() -> Self {
        Self {
            handle: Arc::new(Handle { queue: None }),
        }
    }

    /// Calls a waker soon. The caller holds no lock and not the lead.
    pub fn post(&self, waker: Waker) {
        let Some(queue) = &self.handle.queue else {
            call(waker);
            return;
        };
        let mut state = queue.state.lock();
        state.posted.push_back(waker);
        let is_first = !std::mem::replace(&mut state.has_thread, true);
        drop(state);
        queue.changed.notify_one();
        if is_first {
            let of_thread = Arc::clone(queue);
            let thread = std::thread::Builder::new().name("vbstore-wakers".to_owned());
            if let Err(error) = thread.spawn(move || of_thread.run()) {
                tracing::error!(%error, "no thread for wakers: they are called where they are posted");
                queue.state.lock().has_thread = false;
                queue.call_posted();
            }
        }
    }
}

impl Queue {
    fn run(&self) {
        loop {
            self.call_posted();
            let mut state = self.state.lock();
            while state.posted.is_empty() && !state.is_closed {
                self.changed.wait(&mut state);
            }
            if state.posted.is_empty() {
                return;
            }
        }
    }

    fn call_posted(&self) {
        loop {
            let next = self.state.lock().posted.pop_front();
            let Some(waker) = next else {
                return;
            };
            call(waker);
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            queue.state.lock().is_closed = true;
            queue.changed.notify_one();
        }
    }
}

fn call(waker: Waker) {
    if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
        tracing::error!("a waker panicked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{SyncSender, sync_channel};
    use std::task::Wake;
    use std::thread::ThreadId;
    use std::time::Duration;

    struct Tell(SyncSender<ThreadId>, bool);

    impl Wake for Tell {
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
            wakers.post(Waker::from(Arc::new(Tell(sent.clone(), panics))));
        }
        let told: Vec<ThreadId> = (0..3)
            .map(|_| received.recv_timeout(Duration::from_secs(60)).unwrap())
            .collect();
        assert!(told.iter().all(|thread| thread == told.first().unwrap()));
        assert_ne!(told.first(), Some(&std::thread::current().id()));
        // What is posted last is still called when the handle is gone.
        wakers.post(Waker::from(Arc::new(Tell(sent, false))));
        drop(wakers);
        received.recv_timeout(Duration::from_secs(60)).unwrap();
    }

    #[test]
    fn without_a_thread_they_are_called_at_once() {
        let (sent, received) = sync_channel(1);
        Wakers::inline().post(Waker::from(Arc::new(Tell(sent, true))));
        assert_eq!(received.try_recv().unwrap(), std::thread::current().id());
    }
}
