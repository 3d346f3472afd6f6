//! Waking and stopping the background tasks.
//!
//! The lock of a signal is a leaf: a thread that wakes a task may hold any lock that is not a leaf.

use parking_lot::{Condvar, Mutex};
use std::time::Duration;

/// When a task wants to be called next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// After this time, or earlier if it is signalled.
    In(Duration),
    /// Not before this time, even if it is signalled.
    NotBefore(Duration),
    /// When it is signalled.
    OnSignal,
}

#[derive(Debug, Default)]
struct State {
    is_signalled: bool,
    /// Set while the task waits with [`Next::In`], so that it wakes by itself.
    is_timed: bool,
    is_stopped: bool,
}

/// Wakes one task. A signal sent while the task runs is kept until the task waits.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

impl Signal {
    pub(crate) fn wake(&self) {
        let mut state = self.state.lock();
        if !state.is_signalled {
            state.is_signalled = true;
            self.changed.notify_one();
        }
    }

    /// Wakes the task, unless it will wake by itself after a time. Meant for events that only begin
    /// an interval: the task looks again at its end. The first write after a flush calls this, so
    /// it must not cost a context switch.
    pub(crate) fn wake_unless_timed(&self) {
        let is_timed = self.state.lock().is_timed;
        if !is_timed {
            self.wake();
        }
    }

    fn stop(&self) {
        self.state.lock().is_stopped = true;
        self.changed.notify_one();
    }

    /// Blocks until the time is over or the signal is sent. Returns false if the task must stop.
    pub(crate) fn wait(&self, next: Next) -> bool {
        let mut state = self.state.lock();
        let idle = |state: &mut State| !state.is_signalled && !state.is_stopped;
        state.is_timed = matches!(next, Next::In(_));
        match next {
            Next::OnSignal => self.changed.wait_while(&mut state, idle),
            Next::In(time) => {
                self.changed.wait_while_for(&mut state, idle, time);
            }
            Next::NotBefore(time) => {
                let not_stopped = |state: &mut State| !state.is_stopped;
                self.changed.wait_while_for(&mut state, not_stopped, time);
            }
        }
        // The step that follows serves every signal sent so far.
        state.is_signalled = false;
        state.is_timed = false;
        !state.is_stopped
    }
}

/// The signals of all tasks.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    pub(crate) flusher: Signal,
    pub(crate) syncer: Signal,
    pub(crate) witness: Signal,
    pub(crate) pacer: Signal,
    pub(crate) directory: Signal,
    pub(crate) compactor: Signal,
}

impl Signals {
    fn all(&self) -> [&Signal; 6] {
        [
            &self.flusher,
            &self.syncer,
            &self.witness,
            &self.pacer,
            &self.directory,
            &self.compactor,
        ]
    }

    pub(crate) fn wake_all(&self) {
        self.all().into_iter().for_each(Signal::wake);
    }

    pub(crate) fn stop_all(&self) {
        self.all().into_iter().for_each(Signal::stop);
    }
}
