//! Followers: consumers that keep a copy of their vBuckets and check it. Some of them freeze, are
//! slow or are disconnected on purpose.

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

/// The threads of running followers.
pub(crate) struct RunningFollowers<'scope> {
    threads: Vec<ScopedJoinHandle<'scope, FollowerReport>>,
}

/// Starts the followers, each on a thread.
///
/// The first `frozen` of them freeze, and the next `slow` are slow. With `reconnect_every`, the
/// last `reconnecting` are disconnected at random times, or all if that is not given. `vbs_of`
/// returns the vBuckets of a follower.
pub(crate) fn start<'scope, 'env: 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    streams: &'env Streams,
    args: &args::FollowArgs,
    seed: u64,
    control: &'env FollowControl,
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
        let is_reconnecting = args
            .reconnecting
            .is_none_or(|count| number >= args.streams.saturating_sub(count));
        let plan = FollowerPlan {
            name: format!("follower-{number:03}"),
            vbs: vbs_of(number),
            mode,
            reconnect_every: args.reconnect_every.filter(|_| is_reconnecting),
            seed: seed.wrapping_mul(31).wrapping_add(u64::from(number)),
        };
        let work = move || Follower::new(streams, plan, journal).run(control);
        let thread = Builder::new().name(format!("follower-{number}"));
        let thread = thread.spawn_scoped(scope, work);
        threads.push(thread.map_err(|error| CommandError::thread(&error))?);
    }
    Ok(RunningFollowers { threads })
}

impl RunningFollowers<'_> {
    /// Waits until all followers have every change, or the run has failed.
    pub(crate) fn join(self) -> Result<Vec<FollowerReport>, CommandError> {
        let joined = self.threads.into_iter().map(ScopedJoinHandle::join);
        joined
            .map(|thread| {
                thread.map_err(|_| CommandError::new(PROBLEM, "panic", "a follower panicked"))
            })
            .collect()
    }
}

/// Compares the copies of the followers with the current contents of the store. Returns the
/// differences.
pub(crate) fn compare(
    engine: &Engine,
    followed: &[FollowerReport],
) -> Result<Vec<String>, CommandError> {
    let mut wrong = Vec::new();
    let mut digests: std::collections::HashMap<VbId, u64> = std::collections::HashMap::new();
    for one in followed {
        for (vb, copy) in &one.copies {
            let expected = if let Some(digest) = digests.get(vb) {
                *digest
            } else {
                let digest = Replica::of(&engine.vbucket(*vb)?)?.digest();
                digests.insert(*vb, digest);
                digest
            };
            if copy.digest() != expected {
                wrong.push(format!(
                    "{}: its copy of {vb} differs from the store",
                    one.name
                ));
            }
        }
    }
    Ok(wrong)
}
