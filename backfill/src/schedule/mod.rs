//! Scheduling of backfills: decides which one runs next.
//!
//! This module does not depend on the engine, so that a model checker can run these very sources
//! (`core/tests/scheduling.rs`).

mod queues;
mod scheduler;
mod tally;
mod task;

pub(crate) use queues::ConsumerLimits;
pub(crate) use scheduler::{Group, NextGroup, Scheduler};
pub(crate) use task::{InvocationOutcome, ScheduledTask, Snooze};
