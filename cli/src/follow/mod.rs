//! Consumers that keep a copy of what they follow, are frozen, slowed down or cut on purpose, and
//! know what their copy must be.

mod control;
mod follower;
mod journal;
mod replica;

pub(crate) use control::{FinishOnDrop, FollowControl};
pub(crate) use follower::{Follower, FollowerMode, FollowerPlan, FollowerReport};
pub(crate) use journal::Journal;
pub(crate) use replica::{Replica, key_hash};

use crate::args;
use crate::output::{CommandError, PROBLEM};
use std::thread::{Builder, Scope, ScopedJoinHandle};
use vbstore::{Engine, Streams, VbId};

/// Followers at work.
pub(crate) struct RunningFollowers<'scope> {
    threads: Vec<ScopedJoinHandle<'scope, FollowerReport>>,
}

/// Starts followers: the first `frozen` of them freeze, the next `slow` are slow, and those after
/// them, or all if none is left, are cut at random. `vbs_of` says what each follows.
pub(crate) fn start<'scope, 'env: 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    streams: &'env Streams,
    args: &args::FollowArgs,
    seed: u64,
    signals: &'env FollowControl,
    journal: Option<&'env Journal>,
    vbs_of: impl Fn(u16) -> Vec<VbId>,
) -> Result<RunningFollowers<'scope>, CommandError> {
    let mut threads = Vec::new();
    for number in 0..args.streams {
        let mode = if number < args.frozen {
            FollowerMode::Frozen
        } else if number < args.frozen.saturating_add(args.slow) {
            FollowerMode::Slow
        } else {
            FollowerMode::Steady
        };
        let may_be_cut = args
            .reconnecting
            .is_none_or(|count| number >= args.streams.saturating_sub(count));
        let plan = FollowerPlan {
            name: format!("follower-{number:03}"),
            vbs: vbs_of(number),
            mode,
            reconnect_every: args.reconnect_every.filter(|_| may_be_cut),
            seed: seed.wrapping_mul(31).wrapping_add(u64::from(number)),
        };
        let work = move || Follower::new(streams, plan, journal).run(signals);
        let thread = Builder::new().name(format!("follower-{number}"));
        let thread = thread.spawn_scoped(scope, work);
        threads.push(thread.map_err(|error| CommandError::thread(&error))?);
    }
    Ok(RunningFollowers { threads })
}

impl RunningFollowers<'_> {
    /// Waits until all have everything, or the run has failed.
    pub(crate) fn join(self) -> Result<Vec<FollowerReport>, CommandError> {
        let joined = self.threads.into_iter().map(ScopedJoinHandle::join);
        joined
            .map(|thread| {
                thread.map_err(|_| CommandError::new(PROBLEM, "panic", "a follower panicked"))
            })
            .collect()
    }
}

/// Compares what followers have with what the store has, as it is now. Returns what is wrong.
pub(crate) fn compare(
    engine: &Engine,
    followed: &[FollowerReport],
) -> Result<Vec<String>, CommandError> {
    let mut wrong = Vec::new();
    let mut truth: std::collections::HashMap<VbId, u64> = std::collections::HashMap::new();
    for one in followed {
        for (vb, copy) in &one.copies {
            let expected = if let Some(digest) = truth.get(vb) {
                *digest
            } else {
                let digest = Replica::of(&engine.vbucket(*vb)?)?.digest();
                truth.insert(*vb, digest);
                digest
            };
            if copy.digest() != expected {
                wrong.push(format!("{}: its copy of {vb} is not the vBucket", one.name));
            }
        }
    }
    Ok(wrong)
}
