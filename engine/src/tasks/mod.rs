//! Background tasks. Each has its own named thread, or is stepped by the program.
//!
//! A task is a function that does the work that is due. Its result says when it wants to be called
//! next. It never sleeps and never waits for another task. A panic in it fails the engine and ends
//! its thread.
//!
//! ORDER at a close: all threads are stopped and joined *before* the close takes the lead for the
//! last flush. So no task runs during that flush.

mod compactor;
mod directory_watcher;
mod flusher;
mod pacer;
mod retry;
mod syncer;
mod task;
mod threads;
mod witness_syncer;

pub use task::BackgroundTask;
pub(crate) use threads::start;
