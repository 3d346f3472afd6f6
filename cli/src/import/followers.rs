//! Runs followers and a tail of the store while an import writes to it.

use crate::args::ImportArgs;
use crate::follow::{self, FinishOnDrop, FollowControl, FollowerReport};
use crate::output::{CommandError, PROBLEM};
use crate::store;
use crate::tail::VbFiles;
use serde_json::{Value, json};
use std::sync::atomic::AtomicBool;
use std::thread::Builder;
use vbstore::{Engine, Streams, StreamsConfig, VbId};

/// The consumers that run during an import.
pub(super) struct ImportFollowers {
    streams: Streams,
    signals: FollowControl,
    is_over: AtomicBool,
    /// The offset of the input at which some of them freeze.
    half: u64,
}

/// The outcome of the consumers.
#[derive(Debug, Default)]
pub(super) struct FollowersOutcome {
    followed: Vec<FollowerReport>,
    tailed: Option<u64>,
    wrong: Vec<String>,
}

impl ImportFollowers {
    /// Returns `None` if the arguments request neither a tail nor followers.
    pub(super) fn of(engine: &Engine, args: &ImportArgs) -> Result<Option<Self>, CommandError> {
        if args.tail.is_none() && args.follow.streams == 0 {
            return Ok(None);
        }
        // 0 for a pipe, whose size is unknown.
        let size = std::fs::metadata(&args.file).map_or(0, |meta| meta.len());
        Ok(Some(Self {
            streams: Streams::start(engine, &StreamsConfig::default())?,
            signals: FollowControl::default(),
            is_over: AtomicBool::new(false),
            half: size / 2,
        }))
    }

    /// Notes that the import has reached `offset` of the input.
    ///
    /// # Errors
    /// A consumer failed.
    pub(super) fn note(&self, offset: u64) -> Result<(), CommandError> {
        if offset >= self.half {
            self.signals.freeze();
        }
        self.signals.check()
    }

    /// Runs `import` together with all consumers, and returns the outcome of the consumers.
    ///
    /// # Errors
    /// The import or a consumer failed.
    pub(super) fn run(
        &self,
        args: &ImportArgs,
        import: impl FnOnce() -> Result<(), CommandError>,
    ) -> Result<FollowersOutcome, CommandError> {
        let engine = self.streams.engine();
        let all: Vec<VbId> = (0..engine.vbuckets()).map(VbId::new).collect();
        std::thread::scope(|scope| {
            let ending = FinishOnDrop::new(&self.signals, &self.is_over);
            let files = match &args.tail {
                None => None,
                Some(dir) => {
                    let vbs = store::vbuckets(engine, None)?;
                    let files = VbFiles::create(dir, &self.streams, vbs)?;
                    let thread = Builder::new().name("tail".to_owned());
                    Some(thread.spawn_scoped(scope, || files.follow(&self.is_over))?)
                }
            };
            let all = |_| all.clone();
            let (follow, signals) = (&args.follow, &self.signals);
            let at_work = follow::start(scope, &self.streams, follow, 1, signals, None, all)?;
            let imported = import();
            // Streams deliver only synced changes. Without the flush, the consumers would wait for
            // the last changes indefinitely.
            if let Err(error) = engine.flush() {
                self.signals.fail(error);
            }
            drop(ending);
            let followed = at_work.join()?;
            if self.signals.has_failed() {
                // The tail waits for all changes. Closing the engine ends its streams.
                drop(engine.close());
            }
            let tailed = match files {
                None => None,
                Some(thread) => {
                    let joined = thread.join();
                    let panicked = |_| CommandError::new(PROBLEM, "panic", "the tail panicked");
                    Some(joined.map_err(panicked)?)
                }
            };
            // ORDER: the error of the import first, because it may be the cause of the others.
            imported?;
            self.signals.check()?;
            let tailed = tailed.transpose()?;
            let mut wrong = follow::compare(engine, &followed)?;
            wrong.extend(followed.iter().flat_map(|one| one.wrong.iter().cloned()));
            let outcome = FollowersOutcome {
                followed,
                tailed,
                wrong,
            };
            Ok(outcome)
        })
    }
}

impl FollowersOutcome {
    pub(super) fn is_ok(&self) -> bool {
        self.wrong.is_empty()
    }

    pub(super) fn to_json(&self) -> Value {
        let sum = |of: fn(&FollowerReport) -> u64| {
            let sum: u64 = self.followed.iter().map(of).sum();
            sum
        };
        json!({
            "followers": self.followed.len(),
            "equal": self.is_ok(),
            "events": sum(|one| one.events),
            "reconnects": sum(|one| one.reconnects),
            "stayed_away": sum(|one| one.stayed_away),
            "forgot": sum(|one| one.forgot),
            "tailed_events": self.tailed,
            "wrong": self.wrong,
        })
    }
}
