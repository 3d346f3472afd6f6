//! The engine's own threads, and how the close of an engine is deferred on them.
//!
//! A close joins the engine's threads. A thread of the engine must not run a close in the middle of
//! a step, because the close would wait for that very thread. But program code may run there and
//! close the engine or drop its last handle: a `tracing` subscriber, for example one that shuts
//! down after an error. (Wakers run on another thread, and values are copied, so their destructors
//! do not run there.) What must not run inside the step is deferred until the step is over. The
//! thread holds no lock then.

use std::cell::{Cell, RefCell};

type DeferredCall = Box<dyn FnOnce()>;

thread_local! {
    static IS_IN_STEP: Cell<bool> = const { Cell::new(false) };
    static PUT_OFF: RefCell<Vec<DeferredCall>> = const { RefCell::new(Vec::new()) };
}

/// Runs one step of a background task on its thread, and then the work that was deferred meanwhile.
pub(crate) fn step<R>(step: impl FnOnce() -> R) -> R {
    IS_IN_STEP.set(true);
    let result = step();
    // Before the deferred work, which may be a close: a close refuses to run in a step.
    IS_IN_STEP.set(false);
    for work in PUT_OFF.take() {
        work();
    }
    result
}

/// Returns whether this thread is in the middle of a step of a background task.
pub(crate) fn is_engine_thread() -> bool {
    IS_IN_STEP.get()
}

/// Defers work until the current step of this thread is over. Must be called in a step.
pub(crate) fn defer(work: DeferredCall) {
    debug_assert!(is_engine_thread(), "work deferred outside a step");
    PUT_OFF.with_borrow_mut(|defer| defer.push(work));
}
