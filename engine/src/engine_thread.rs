//! The engine's own threads, and how the close of an engine is deferred on them.
//!
//! A close joins the engine's threads. A thread of the engine must not run a close in the middle of
//! a step, because the close would wait for that very thread. But program code may run there and
//! close the engine or drop its last handle: a `tracing` subscriber, for example one that shuts
//! down after an error. (Other code of the program does not run there: wakers run on another
//! thread, and the engine copies values, so their destructors run in the caller.) So a close that
//! begins in a step is deferred until the step is over, when the thread holds no lock.

use std::cell::{Cell, RefCell};

type DeferredCall = Box<dyn FnOnce()>;

thread_local! {
    static IS_IN_STEP: Cell<bool> = const { Cell::new(false) };
    static DEFERRED: RefCell<Vec<DeferredCall>> = const { RefCell::new(Vec::new()) };
}

/// Runs one step of a background task on its thread, and then the work that was deferred meanwhile.
pub(crate) fn step<R>(step: impl FnOnce() -> R) -> R {
    IS_IN_STEP.set(true);
    let result = step();
    // Cleared before the deferred work, which may be a close: a close refuses to run in a step.
    IS_IN_STEP.set(false);
    for work in DEFERRED.take() {
        work();
    }
    result
}

/// Returns whether this thread is in the middle of a step of a background task.
pub(crate) fn is_in_step() -> bool {
    IS_IN_STEP.get()
}

/// Defers work until the current step of this thread is over. Must be called in a step.
pub(crate) fn defer(work: DeferredCall) {
    debug_assert!(is_in_step(), "work deferred outside a step");
    DEFERRED.with_borrow_mut(|defer| defer.push(work));
}
