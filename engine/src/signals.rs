//! Waking and stopping the background tasks.
//!
//! The lock of a signal is a leaf: a thread that wakes a task may hold any lock that is not a leaf.

use parking_lot::{Condvar, Mutex};
use std::time::Duration;

/// When a task wants to be called next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextRun {
    /// After this time, or earlier if it is signalled.
    In(Duration),
    /// Not before this time, even if it is signalled.
    NotBefore(Duration),
    /// When it is signalled.
    OnSignal,
}

#[derive(Debug, Default)]
struct SignalState {
    is_signalled: bool,
    /// Set while the task waits with [`NextRun::In`]. It then wakes by itself when the time is
    /// over.
    is_timed: bool,
    is_stopped: bool,
}

/// Wakes one task. A signal sent while the task runs is kept until the task waits.
#[derive(Debug, Default)]
pub(crate) struct TaskSignal {
    state: Mutex<SignalState>,
    changed: Condvar,
}

impl TaskSignal {
    pub(crate) fn wake(&self) {
        let mut state = self.state.lock();
        if !state.is_signalled {
            state.is_signalled = true;
            self.changed.notify_one();
        }
    }

    /// Wakes the task, unless it waits with a time-out and so wakes by itself. For events that only
    /// begin an interval, because the task checks for them when it wakes. The first write after a
    /// flush calls this, so it must not cost a context switch.
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
    pub(crate) fn wait(&self, next: NextRun) -> bool {
        let mut state = self.state.lock();
        let idle = |state: &mut SignalState| !state.is_signalled && !state.is_stopped;
        state.is_timed = matches!(next, NextRun::In(_));
        match next {
            NextRun::OnSignal => self.changed.wait_while(&mut state, idle),
            NextRun::In(time) => {
                self.changed.wait_while_for(&mut state, idle, time);
            }
            NextRun::NotBefore(time) => {
                let not_stopped = |state: &mut SignalState| !state.is_stopped;
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
pub(crate) struct TaskSignals {
    pub(crate) flusher: TaskSignal,
    pub(crate) syncer: TaskSignal,
    pub(crate) witness: TaskSignal,
    pub(crate) pacer: TaskSignal,
    pub(crate) directory: TaskSignal,
    pub(crate) compactor: TaskSignal,
}

impl TaskSignals {
    fn all(&self) -> [&TaskSignal; 6] {
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
        self.all().into_iter().for_each(TaskSignal::wake);
    }

    pub(crate) fn stop_all(&self) {
        self.all().into_iter().for_each(TaskSignal::stop);
    }
}
