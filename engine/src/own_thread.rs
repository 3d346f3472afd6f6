//! The engine's own threads, and what must not be done on them.
//!
//! A close waits until the engine's threads have ended, so a thread of an engine cannot run one while
//! it is in the middle of a step: it would wait for itself, or for the step. Program code that runs on
//! such a thread (a subscriber of `tracing`, for example one that shuts down after an error; wakers run
//! elsewhere, and values are copied) may all the same close the engine or drop its last handle. What
//! must not be done there is put off until the step is over, when the thread holds nothing.

use std::cell::{Cell, RefCell};

type Work = Box<dyn FnOnce()>;

thread_local! {
    static IS_IN_STEP: Cell<bool> = const { Cell::new(false) };
    static PUT_OFF: RefCell<Vec<Work>> = const { RefCell::new(Vec::new()) };
}

/// Runs one step of a background task on its thread, and then what was put off meanwhile.
pub(crate) fn step<R>(step: impl FnOnce() -> R) -> R {
    IS_IN_STEP.set(true);
    let result = step();
    IS_IN_STEP.set(false);
    for work in PUT_OFF.take() {
        work();
    }
    result
}

/// Returns whether this thread is in the middle of a step of an engine.
pub(crate) fn is_in_step() -> bool {
    IS_IN_STEP.get()
}

/// Puts work off until the step that this thread is in the middle of is over.
pub(crate) fn put_off(work: Work) {
    debug_assert!(is_in_step(), "put off outside a step");
    PUT_OFF.with_borrow_mut(|put_off| put_off.push(work));
}
