//! A follower: a consumer that checks all it receives.

use super::control::FollowControl;
use super::journal::Journal;
use super::replica::{Replica, key_hash};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use vbstore::{
    Consumer, ConsumerConfig, EndReason, Error, Event, OpenOutcome, Position, Seqno, StreamRequest,
    Streams, TryRecv, VbId,
};

/// How long a follower waits for an event before it checks the state of the run.
const POLL: Duration = Duration::from_millis(50);
/// Pause of a slow follower before each event. Long enough that it falls behind, loses its cursor,
/// and must read from disk repeatedly.
const SLOW_PAUSE: Duration = Duration::from_millis(20);
/// How often a disconnected follower checks how much was written meanwhile.
const AWAY_POLL: Duration = Duration::from_millis(10);
/// Violations that are described; further ones are only counted.
const WRONG_MAX: usize = 5;

/// The speed of a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FollowerMode {
    /// Takes each event at once.
    Steady,
    /// Takes no events from halfway through the run until nothing more is written.
    Frozen,
    /// Pauses before each event, until nothing more is written.
    Slow,
}

/// What a follower does after it was disconnected. One that continues at once mostly finds the next
/// changes in memory; the others must read from disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CutAction {
    /// Continues from its positions.
    GoOn,
    /// Continues from its positions after up to `reconnect_every` more changes were written.
    /// Counted in changes, not in seconds, so that it comes back within a short run too.
    StayAway,
    /// Drops its copy and its positions, and starts from nothing.
    Forget,
}

impl CutAction {
    /// Returns the first action of a follower. The actions take turns, so that even a run with few
    /// disconnections has all of them. Neighbouring followers have seeds one apart, so they begin
    /// with different actions.
    fn first(seed: u64) -> Self {
        match seed % 3 {
            0 => Self::GoOn,
            1 => Self::StayAway,
            _ => Self::Forget,
        }
    }

    fn next(self) -> Self {
        match self {
            Self::GoOn => Self::StayAway,
            Self::StayAway => Self::Forget,
            Self::Forget => Self::GoOn,
        }
    }
}

/// Why a follower dropped its consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeaveReason {
    /// It was disconnected on purpose, and will reconnect.
    Cut,
    /// Nothing more is written, and it has every change.
    HasEverything,
    /// One of its streams has ended, which is recorded as a violation.
    StreamEnded,
    /// Some thread failed the run: the changes that it waits for may never come.
    RunFailed,
}

/// The instructions for a follower.
#[derive(Clone, Debug)]
pub(crate) struct FollowerPlan {
    pub(crate) name: String,
    pub(crate) vbs: Vec<VbId>,
    pub(crate) mode: FollowerMode,
    /// Events between two disconnections, on average; `None` for no disconnections.
    pub(crate) reconnect_every: Option<u64>,
    pub(crate) seed: u64,
}

/// What a follower counted and found.
#[derive(Debug, Default)]
pub(crate) struct FollowerReport {
    pub(crate) name: String,
    pub(crate) copies: BTreeMap<VbId, Replica>,
    pub(crate) events: u64,
    /// The events that were changes.
    pub(crate) changes: u64,
    pub(crate) reconnects: u64,
    /// The reconnects after [`CutAction::StayAway`].
    pub(crate) stayed_away: u64,
    /// The reconnects after [`CutAction::Forget`].
    pub(crate) forgot: u64,
    /// Complete snapshots at which the copy was compared with the journal.
    pub(crate) compared: u64,
    pub(crate) wrong: Vec<String>,
    pub(crate) wrong_count: u64,
}

pub(crate) struct Follower<'a> {
    streams: &'a Streams,
    plan: FollowerPlan,
    journal: Option<&'a Journal>,
    random: SmallRng,
    positions: BTreeMap<VbId, Position>,
    /// Digests of the copy at complete snapshots whose seqnos the journal does not reach yet.
    unchecked: VecDeque<(VbId, Seqno, u64)>,
    /// Events until the next disconnection.
    cut_in: u64,
    next_cut: CutAction,
    found: FollowerReport,
}

impl<'a> Follower<'a> {
    pub(crate) fn new(
        streams: &'a Streams,
        plan: FollowerPlan,
        journal: Option<&'a Journal>,
    ) -> Self {
        let mut follower = Self {
            streams,
            journal,
            random: SmallRng::seed_from_u64(plan.seed),
            positions: plan
                .vbs
                .iter()
                .map(|vb| (*vb, Position::default()))
                .collect(),
            unchecked: VecDeque::new(),
            cut_in: 0,
            next_cut: CutAction::first(plan.seed),
            found: FollowerReport {
                name: plan.name.clone(),
                copies: plan
                    .vbs
                    .iter()
                    .map(|vb| (*vb, Replica::default()))
                    .collect(),
                ..FollowerReport::default()
            },
            plan,
        };
        follower.draw_cut();
        follower
    }

    /// Follows until nothing more is written and it has every change, or the run fails. An error
    /// here, or a stream that ended with one, fails the run: a retry would only end the same way.
    pub(crate) fn run(mut self, control: &FollowControl) -> FollowerReport {
        loop {
            let left = match self.follow(control) {
                Ok(LeaveReason::Cut) => self.reconnect(control).map(|()| LeaveReason::Cut),
                left => left,
            };
            match left {
                Ok(LeaveReason::Cut) => {}
                Ok(LeaveReason::HasEverything | LeaveReason::StreamEnded) => break,
                Ok(LeaveReason::RunFailed) => return self.found,
                Err(error) => {
                    control.fail(error);
                    return self.found;
                }
            }
        }
        self.check_against_journal();
        if !self.unchecked.is_empty() && self.journal.is_some() {
            self.violation("a complete snapshot ends above the last written seqno");
        }
        self.found
    }

    /// Does what comes between a disconnection and the next connection.
    fn reconnect(&mut self, control: &FollowControl) -> Result<(), Error> {
        self.found.reconnects += 1;
        let cut = self.next_cut;
        self.next_cut = cut.next();
        match cut {
            CutAction::GoOn => {}
            CutAction::StayAway => {
                self.found.stayed_away += 1;
                let Some(max) = self.plan.reconnect_every else {
                    unreachable!("only a follower with reconnect_every is disconnected");
                };
                let missed = self.random.random_range(0..=max);
                // Saturating: `--reconnect-every` may be any number.
                let until = self.high_seqnos()?.saturating_add(missed);
                while !control.is_over() && self.high_seqnos()? < until {
                    std::thread::park_timeout(AWAY_POLL);
                }
            }
            CutAction::Forget => {
                self.found.forgot += 1;
                for vb in self.plan.vbs.clone() {
                    self.forget(vb);
                }
            }
        }
        Ok(())
    }

    /// Returns the sum of the high seqnos of its vBuckets.
    fn high_seqnos(&self) -> Result<u64, Error> {
        let mut sum: u64 = 0;
        for vb in &self.plan.vbs {
            let high = self.streams.engine().vbucket(*vb)?.seqnos()?.high;
            sum += high.get();
        }
        Ok(sum)
    }

    /// Follows with one consumer, and returns why it dropped it.
    fn follow(&mut self, control: &FollowControl) -> Result<LeaveReason, Error> {
        let config = ConsumerConfig::default();
        let mut consumer = self.streams.consumer(&self.plan.name, &config)?;
        for vb in self.plan.vbs.clone() {
            self.open(&mut consumer, vb)?;
        }
        loop {
            if control.has_failed() {
                return Ok(LeaveReason::RunFailed);
            }
            let is_over = control.is_over();
            if !is_over && self.plan.mode == FollowerMode::Frozen && control.is_frozen() {
                std::thread::park_timeout(POLL);
                continue;
            }
            if !is_over && self.plan.mode == FollowerMode::Slow {
                std::thread::park_timeout(SLOW_PAUSE);
            }
            let event = match consumer.recv_timeout(POLL) {
                Ok(event) => event,
                Err(TryRecv::Empty) if is_over && self.has_everything()? => {
                    return Ok(LeaveReason::HasEverything);
                }
                Err(TryRecv::Empty) => continue,
                // Its streams end by themselves only if the engine is closed.
                Err(TryRecv::Ended) => return Err(Error::Closed),
            };
            self.found.events += 1;
            if event.event.item().is_some() {
                self.found.changes += 1;
            }
            if let Event::End(reason) = event.event {
                return self.ended(event.vb, reason);
            }
            self.take(event.vb, &event.event, consumer.position(event.vb));
            // No disconnections once everything is written: a follower that starts from nothing too
            // often would never finish.
            if is_over {
                continue;
            }
            self.cut_in -= 1;
            if self.cut_in == 0 {
                self.draw_cut();
                return Ok(LeaveReason::Cut);
            }
        }
    }

    /// Handles the end of a stream. None should end by itself.
    fn ended(&mut self, vb: VbId, reason: EndReason) -> Result<LeaveReason, Error> {
        match reason {
            EndReason::Error(error) => Err(error),
            EndReason::Shutdown => Err(Error::Closed),
            reason => {
                self.violation(&format!("{vb}: its stream ended: {}", reason.name()));
                Ok(LeaveReason::StreamEnded)
            }
        }
    }

    fn open(&mut self, consumer: &mut Consumer, vb: VbId) -> Result<(), Error> {
        let position = self.positions.get(&vb).copied().unwrap_or_default();
        let opened = consumer.open(&StreamRequest::resume(vb, position))?;
        if let OpenOutcome::Rollback { to, reason } = opened {
            // Nothing is lost or purged in a run, so no position may need a rollback.
            self.violation(&format!(
                "{vb}: was asked to roll back to seqno {to}: {}",
                reason.name()
            ));
            self.forget(vb);
            let _ = consumer.open(&StreamRequest::from_start(vb))?;
        }
        Ok(())
    }

    fn forget(&mut self, vb: VbId) {
        self.positions.insert(vb, Position::default());
        self.found.copies.insert(vb, Replica::default());
    }

    fn take(&mut self, vb: VbId, event: &Event, position: Option<Position>) {
        let before = self.positions.get(&vb).copied().unwrap_or_default();
        let position = position.unwrap_or_default();
        self.positions.insert(vb, position);
        match event {
            Event::SnapshotMarker(marker) => {
                if marker.start > marker.end || marker.end < before.snap_end {
                    self.violation(&format!("{vb}: invalid {marker:?} at {before:?}"));
                }
                return;
            }
            // An end has no seqno to check.
            Event::End(_) => return,
            Event::SeqnoAdvanced(_) => {}
            Event::Mutation(item) | Event::Deletion(item) | Event::Expiration(item) => {
                let copy = self.found.copies.entry(vb).or_default();
                copy.apply(
                    key_hash(&item.key),
                    item.meta.seqno,
                    item.meta.kind.is_live(),
                );
            }
        }
        let seqno = position.seqno;
        if seqno <= before.seqno || seqno > position.snap_end {
            self.violation(&format!(
                "{vb}: seqno {seqno} is not between {before:?} and the end of its snapshot"
            ));
        }
        if seqno == position.snap_end && self.journal.is_some() {
            let digest = self.found.copies.get(&vb).map_or(0, Replica::digest);
            self.unchecked.push_back((vb, seqno, digest));
            self.check_against_journal();
        }
    }

    /// Compares the copy at complete snapshots with the journal, as far as the journal reaches.
    fn check_against_journal(&mut self) {
        let Some(journal) = self.journal else {
            return;
        };
        let mut later = VecDeque::new();
        while let Some((vb, seqno, digest)) = self.unchecked.pop_front() {
            match journal.digest_at(vb, seqno) {
                None if journal.is_complete(vb) => later.push_back((vb, seqno, digest)),
                // The journal has a gap, so it will never reach this seqno.
                None => {}
                Some(expected) => {
                    self.found.compared += 1;
                    if expected != digest {
                        self.violation(&format!(
                            "{vb}: the copy at seqno {seqno} differs from what was written"
                        ));
                    }
                }
            }
        }
        self.unchecked = later;
    }

    fn has_everything(&self) -> Result<bool, Error> {
        for (vb, position) in &self.positions {
            if position.seqno < self.streams.engine().vbucket(*vb)?.seqnos()?.high {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn violation(&mut self, what: &str) {
        self.found.wrong_count += 1;
        if self.found.wrong.len() < WRONG_MAX {
            self.found.wrong.push(format!("{}: {what}", self.plan.name));
        }
    }

    fn draw_cut(&mut self) {
        self.cut_in = match self.plan.reconnect_every {
            None => u64::MAX,
            Some(mean) => self.random.random_range(1..=mean.max(1).saturating_mul(2)),
        };
    }
}
