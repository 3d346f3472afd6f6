//! Which backfill runs next.
//!
//! Nothing here knows the engine, so that a model checker tries these very sources
//! (`core/tests/scheduling.rs`).

mod queues;
mod scheduler;
mod tally;
mod task;

pub(crate) use queues::Limits;
pub(crate) use scheduler::{Group, NextGroup, Scheduler};
pub(crate) use task::{Outcome, Snooze, Task};
