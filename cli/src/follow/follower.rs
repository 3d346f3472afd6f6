//! One follower.

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

/// How long a follower waits at once before it looks at its signals.
const PATIENCE: Duration = Duration::from_millis(50);
/// How long a slow follower takes for an event: so long that it falls behind, loses its cursor, and
/// reads the disk again and again.
const SLOWNESS: Duration = Duration::from_millis(20);
/// How often a follower that stays away looks how much was written meanwhile.
const AWAY_LOOK: Duration = Duration::from_millis(10);
/// Violations that are described.
const WRONG_MAX: usize = 5;

/// What a follower does on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FollowerMode {
    /// Takes what comes.
    Steady,
    /// Takes nothing from half of the time on until nothing more is written.
    Frozen,
    /// Takes an event now and then, until nothing more is written.
    Slow,
}

/// What a follower does when it was cut. Who goes on at once mostly finds memory where it was; the
/// others must read the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CutAction {
    /// Goes on from its positions.
    GoOn,
    /// The same when up to as many changes were made as it takes between two cuts: by then, not by
    /// the clock, so that it comes back within a short run too.
    StayAway,
    /// Has forgotten everything and begins with nothing.
    Forget,
}

impl CutAction {
    /// They take turns, so that a run with few cuts has all of them; who begins with which is
    /// decided by the seed, which followers that stand beside each other have one apart.
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

/// Why a follower left its consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeaveReason {
    /// It was cut on purpose, and comes back.
    Cut,
    /// Nothing more is written and it has everything.
    HasEverything,
    /// One of its streams has ended, which is noted as wrong.
    StreamEnded,
    /// Somebody met an error: what it waits for may never come.
    RunFailed,
}

/// What a follower is to do.
#[derive(Clone, Debug)]
pub(crate) struct FollowerPlan {
    pub(crate) name: String,
    pub(crate) vbs: Vec<VbId>,
    pub(crate) mode: FollowerMode,
    /// It is cut after this many events on average.
    pub(crate) reconnect_every: Option<u64>,
    pub(crate) seed: u64,
}

/// What a follower has found.
#[derive(Debug, Default)]
pub(crate) struct FollowerReport {
    pub(crate) name: String,
    pub(crate) copies: BTreeMap<VbId, Replica>,
    pub(crate) events: u64,
    /// Changes among them.
    pub(crate) changes: u64,
    pub(crate) reconnects: u64,
    /// Times among them that it had stayed away.
    pub(crate) stayed_away: u64,
    /// Times among them that it had forgotten everything.
    pub(crate) forgot: u64,
    /// Complete markers at which the copy was compared with the journal.
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
    /// Complete states that the journal does not reach yet.
    unproved: VecDeque<(VbId, Seqno, u64)>,
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
            unproved: VecDeque::new(),
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

    /// Follows until nothing more is written and it has everything, or the run fails. An error of
    /// its own, or a stream that ended with one, fails the run: opening the stream again would end
    /// the same way, again and again.
    pub(crate) fn run(mut self, signals: &FollowControl) -> FollowerReport {
        loop {
            let left = match self.follow(signals) {
                Ok(LeaveReason::Cut) => self.come_back(signals).map(|()| LeaveReason::Cut),
                left => left,
            };
            match left {
                Ok(LeaveReason::Cut) => {}
                Ok(LeaveReason::HasEverything | LeaveReason::StreamEnded) => break,
                Ok(LeaveReason::RunFailed) => return self.found,
                Err(error) => {
                    signals.fail(error);
                    return self.found;
                }
            }
        }
        self.prove();
        if !self.unproved.is_empty() && self.journal.is_some() {
            self.wrong("complete states beyond what was written");
        }
        self.found
    }

    /// It was cut.
    fn come_back(&mut self, signals: &FollowControl) -> Result<(), Error> {
        self.found.reconnects += 1;
        let cut = self.next_cut;
        self.next_cut = cut.next();
        match cut {
            CutAction::GoOn => {}
            CutAction::StayAway => {
                self.found.stayed_away += 1;
                let most = self.plan.reconnect_every.unwrap_or(0);
                let missed = self.random.random_range(0..=most);
                // As many as the command line says, which may be any number.
                let until = self.high_seqnos()?.saturating_add(missed);
                while !signals.is_over() && self.high_seqnos()? < until {
                    std::thread::park_timeout(AWAY_LOOK);
                }
            }
            CutAction::Forget => {
                self.found.forgot += 1;
                for vb in self.plan.vbs.clone() {
                    self.begin_again(vb);
                }
            }
        }
        Ok(())
    }

    /// The sum of the high seqnos of what it follows.
    fn high_seqnos(&self) -> Result<u64, Error> {
        let mut sum: u64 = 0;
        for vb in &self.plan.vbs {
            let high = self.streams.engine().vbucket(*vb)?.seqnos()?.high;
            sum += high.get();
        }
        Ok(sum)
    }

    /// Follows with one consumer; returns why it left it.
    fn follow(&mut self, signals: &FollowControl) -> Result<LeaveReason, Error> {
        let config = ConsumerConfig::default();
        let mut consumer = self.streams.consumer(&self.plan.name, &config)?;
        for vb in self.plan.vbs.clone() {
            self.open(&mut consumer, vb)?;
        }
        loop {
            if signals.has_failed() {
                return Ok(LeaveReason::RunFailed);
            }
            let is_over = signals.is_over();
            if !is_over && self.plan.mode == FollowerMode::Frozen && signals.is_frozen() {
                std::thread::park_timeout(PATIENCE);
                continue;
            }
            if !is_over && self.plan.mode == FollowerMode::Slow {
                std::thread::park_timeout(SLOWNESS);
            }
            let event = match consumer.recv_timeout(PATIENCE) {
                Ok(event) => event,
                Err(TryRecv::Empty) if is_over && self.has_everything()? => {
                    return Ok(LeaveReason::HasEverything);
                }
                Err(TryRecv::Empty) => continue,
                // No stream of it ends unless the engine is closed.
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
            // Not any more when all is written: who forgets too often would never have everything.
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

    /// A stream of it has ended, which none does by itself.
    fn ended(&mut self, vb: VbId, reason: EndReason) -> Result<LeaveReason, Error> {
        match reason {
            EndReason::Error(error) => Err(error),
            EndReason::Shutdown => Err(Error::Closed),
            reason => {
                self.wrong(&format!("{vb}: ended: {}", reason.name()));
                Ok(LeaveReason::StreamEnded)
            }
        }
    }

    fn open(&mut self, consumer: &mut Consumer, vb: VbId) -> Result<(), Error> {
        let position = self.positions.get(&vb).copied().unwrap_or_default();
        let opened = consumer.open(&StreamRequest::resume(vb, position))?;
        if let OpenOutcome::Rollback { to, reason } = opened {
            // Nothing is lost or purged here, so nothing may have to be undone.
            self.wrong(&format!("{vb}: told to go back to {to}: {}", reason.name()));
            self.begin_again(vb);
            let _ = consumer.open(&StreamRequest::from_start(vb))?;
        }
        Ok(())
    }

    fn begin_again(&mut self, vb: VbId) {
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
                    self.wrong(&format!("{vb}: {marker:?} at {before:?}"));
                }
                return;
            }
            // An end says nothing of a position.
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
            self.wrong(&format!("{vb}: {seqno} after {before:?}"));
        }
        if seqno == position.snap_end && self.journal.is_some() {
            let digest = self.found.copies.get(&vb).map_or(0, Replica::digest);
            self.unproved.push_back((vb, seqno, digest));
            self.prove();
        }
    }

    /// Compares complete states with the journal, as far as it goes.
    fn prove(&mut self) {
        let Some(journal) = self.journal else {
            return;
        };
        let mut still = VecDeque::new();
        while let Some((vb, seqno, digest)) = self.unproved.pop_front() {
            match journal.digest_at(vb, seqno) {
                None if journal.is_complete(vb) => still.push_back((vb, seqno, digest)),
                None => {}
                Some(expected) => {
                    self.found.compared += 1;
                    if expected != digest {
                        self.wrong(&format!("{vb}: the copy at {seqno} is not the vBucket"));
                    }
                }
            }
        }
        self.unproved = still;
    }

    fn has_everything(&self) -> Result<bool, Error> {
        for (vb, position) in &self.positions {
            if position.seqno < self.streams.engine().vbucket(*vb)?.seqnos()?.high {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn wrong(&mut self, what: &str) {
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
