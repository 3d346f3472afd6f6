//! Waking and stopping the background tasks.
//!
//! The lock of a signal is a leaf: whoever wakes a task may hold any lock that comes before.

use parking_lot::{Condvar, Mutex};
use std::time::Duration;

/// When a task wants to be called next; earlier if it is signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// After this time.
    In(Duration),
    /// Not before this time, signalled or not.
    NotBefore(Duration),
    /// When it is signalled.
    OnSignal,
}

#[derive(Debug, Default)]
struct State {
    is_signalled: bool,
    /// The task waits, and not for longer than it said itself.
    is_timed: bool,
    is_stopped: bool,
}

/// Wakes one task. A signal that comes while the task runs is kept until it waits.
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

    /// Wakes the task unless it waits for a time of its own already: for what only begins an interval,
    /// at whose end the task looks anyway. Every write does this, so it must not cost a switch.
    pub(crate) fn wake_from_rest(&self) {
        let is_timed = self.state.lock().is_timed;
        if !is_timed {
            self.wake();
        }
    }

    fn stop(&self) {
        self.state.lock().is_stopped = true;
        self.changed.notify_one();
    }

    /// Waits until it is time or the signal comes. Returns false if the task must stop.
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
