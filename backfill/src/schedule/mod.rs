//! Which backfill runs next.

mod queues;
mod scheduler;
mod tally;

pub(crate) use queues::Limits;
pub(crate) use scheduler::{Group, NextGroup, Scheduler};
