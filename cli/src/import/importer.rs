//! Writing records with a window of writes under way.
//!
//! Records are acknowledged in their order: the oldest ticket is waited for first, so "up to line
//! N" says all there is to say. It is written down after every window, so that after a kill the
//! records of about two windows are read again. With a durability below `Synced` it is written down
//! once a second, after a flush. Of what is read again, records that are stored already are
//! recognised by their value.

use super::followers::{FollowersOutcome, ImportFollowers};
use super::place::Place;
use super::progress::{ImportProgress, ProgressFile};
use super::records::{Record, Records};
use super::report::{Counts, Ended};
use crate::args::{Format, ImportArgs};
use crate::number::usize_from;
use crate::output::{CommandError, IO, Output, PROBLEM, progress as progress_bar};
use crate::stop::StopFlag;
use std::collections::VecDeque;
use std::time::Duration;
use vbstore::{Change, Clock, Durability, Engine, Error, SystemClock, Ticket};

/// How often the progress is synced, so that it survives a power cut.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

struct PendingWrite {
    /// `None` for a record that needs no write.
    ticket: Option<Ticket>,
    last_line: u64,
    place: Place,
    is_whole: bool,
    is_rejected: bool,
}

pub(super) struct Importer<'a> {
    args: &'a ImportArgs,
    engine: &'a Engine,
    file: ProgressFile,
    /// What is written down.
    progress: ImportProgress,
    /// A record was acknowledged that may be read again once the input has grown: what is written
    /// down stays before it.
    is_held: bool,
    /// Up to which byte all is acknowledged.
    offset: u64,
    window: VecDeque<PendingWrite>,
    window_max: usize,
    clock: SystemClock,
    synced_at: Duration,
    /// Records acknowledged since the progress was written down.
    unsaved: usize,
    counts: Counts,
    /// Records in a row that were not there; once a window of them was seen the rest is new.
    catching_up: Option<u64>,
    bar: indicatif::ProgressBar,
}

impl<'a> Importer<'a> {
    /// Goes on where `progress` says, and writes it down: a file that cannot be written is noticed
    /// before anything is imported.
    pub(super) fn new(
        args: &'a ImportArgs,
        engine: &'a Engine,
        file: ProgressFile,
        mut progress: ImportProgress,
    ) -> Result<Self, CommandError> {
        if progress.is_finished {
            // These were reported.
            progress.rejected = 0;
        }
        progress.is_finished = false;
        file.save(&progress, true)?;
        let counts = Counts::behind(progress.last_line(), progress.rejected);
        Ok(Self {
            args,
            engine,
            file,
            is_held: false,
            offset: progress.offset,
            catching_up: args.resume.then_some(0),
            progress,
            window: VecDeque::new(),
            window_max: usize_from(args.window),
            clock: SystemClock::new(),
            synced_at: Duration::ZERO,
            unsaved: 0,
            counts,
            bar: progress_bar(),
        })
    }

    /// Imports everything, and writes down how far that came, whatever it ended with.
    pub(super) fn run(
        &mut self,
        records: &mut Records,
        stop: &StopFlag,
        beside: Option<&ImportFollowers>,
    ) -> Result<(), CommandError> {
        let ended = self.read(records, stop, beside);
        // Also when it failed: what is under way is waited for and counted.
        let settled = self.settle();
        match ended {
            Ok(true) => {
                settled?;
                self.progress.is_finished = true;
                self.file.save(&self.progress, true)
            }
            Ok(false) => settled,
            Err(failure) => Err(failure),
        }
    }

    /// Returns whether the end of the input was reached.
    fn read(
        &mut self,
        records: &mut Records,
        stop: &StopFlag,
        beside: Option<&ImportFollowers>,
    ) -> Result<bool, CommandError> {
        loop {
            let next = records.next();
            if stop.is_asked() {
                // The record may be cut where the input was left, and so may be what is compressed.
                return Ok(false);
            }
            self.progress.layout = records.layout();
            let record = match next {
                Ok(Some(record)) => record,
                Ok(None) => return Ok(true),
                // The input names itself.
                Err(error) => return Err(CommandError::new(IO, "io", error.to_string())),
            };
            if let Some(beside) = beside {
                beside.note(record.place.offset)?;
            }
            self.take(record)?;
            while self.window.len() >= self.window_max {
                self.acknowledge_oldest()?;
            }
        }
    }

    fn take(&mut self, mut record: Record) -> Result<(), CommandError> {
        let taken = std::mem::replace(&mut record.change, Err(String::new()));
        let written = match taken {
            Ok(change) if self.is_there(&change)? => {
                self.counts.already_there += 1;
                Ok(None)
            }
            Ok(change) => self.write(&change)?.map(Some),
            Err(reason) => Err(reason),
        };
        let is_rejected = written.is_err();
        let ticket = match written {
            Ok(ticket) => ticket,
            Err(reason) => {
                let text = format!("line {}: {reason}", record.first_line);
                self.counts.reject(&record, reason);
                if self.args.strict {
                    return Err(CommandError::new(PROBLEM, "rejected", text));
                }
                None
            }
        };
        self.window.push_back(PendingWrite {
            ticket,
            last_line: record.last_line,
            place: record.place,
            is_whole: record.is_whole,
            is_rejected,
        });
        Ok(())
    }

    /// Begins a write. The inner error is the record's own fault.
    fn write(&mut self, change: &Change) -> Result<Result<Ticket, String>, CommandError> {
        let durability = Durability::from(self.args.durability);
        let vb = self.engine.for_key(change.key());
        loop {
            match vb.write_nowait(change.clone(), durability) {
                Ok(ticket) => return Ok(Ok(ticket)),
                Err(Error::Busy { .. }) => self.acknowledge_oldest()?,
                Err(error @ (Error::Invalid { .. } | Error::TooLarge { .. })) => {
                    return Ok(Err(error.to_string()));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether a record was imported before the import was cut short. Looked at only until a whole
    /// window of records was new: no more can have been under way.
    fn is_there(&mut self, change: &Change) -> Result<bool, CommandError> {
        let Some(new_in_a_row) = self.catching_up else {
            return Ok(false);
        };
        let stored = self.engine.for_key(change.key()).get_meta(change.key())?;
        let is_there = match stored {
            None => false,
            Some(_) if self.args.format == Format::Dump => change
                .restored_cas()
                .is_some_and(|cas| stored.is_some_and(|meta| meta.cas == cas)),
            Some(_) => {
                let document = self.engine.for_key(change.key()).get(change.key())?;
                document.is_some_and(|document| document.value == change.value())
            }
        };
        let new_in_a_row = if is_there { 0 } else { new_in_a_row + 1 };
        let is_over = new_in_a_row > u64::from(self.args.window);
        self.catching_up = if is_over { None } else { Some(new_in_a_row) };
        Ok(is_there)
    }

    fn acknowledge_oldest(&mut self) -> Result<(), CommandError> {
        let Some(oldest) = self.window.pop_front() else {
            return Ok(());
        };
        if let Some(ticket) = oldest.ticket {
            ticket.wait()?;
            self.counts.records += 1;
        }
        self.counts.bytes += oldest.place.offset.saturating_sub(self.offset);
        self.counts.line = oldest.last_line;
        self.offset = oldest.place.offset;
        self.is_held |= !oldest.is_whole;
        if !self.is_held {
            self.progress.set_place(&oldest.place);
            self.progress.rejected += u64::from(oldest.is_rejected);
        }
        self.unsaved += 1;
        if self.unsaved >= self.window_max {
            self.save()?;
        }
        Ok(())
    }

    /// Writes down how far the import has come. What is written down must survive whatever the
    /// file itself survives, so records that were not synced are, first.
    fn save(&mut self) -> Result<(), CommandError> {
        let now = self.clock.monotonic();
        let is_due = now.saturating_sub(self.synced_at) >= SYNC_INTERVAL;
        let is_over = self.window.is_empty();
        let sync = is_due || is_over;
        if Durability::from(self.args.durability) != Durability::Synced {
            if !sync {
                return Ok(());
            }
            self.engine.flush()?;
        }
        self.file.save(&self.progress, sync)?;
        self.unsaved = 0;
        if sync {
            self.synced_at = now;
        }
        self.bar.set_message(format!("{} lines", self.counts.line));
        self.bar.tick();
        Ok(())
    }

    /// Waits for everything that is under way, and writes down what of it was done.
    fn settle(&mut self) -> Result<(), CommandError> {
        let mut acknowledged = Ok(());
        while !self.window.is_empty() && acknowledged.is_ok() {
            acknowledged = self.acknowledge_oldest();
        }
        // Once one has failed, those after it are not waited for, and are written again.
        self.window.clear();
        let saved = self.save();
        acknowledged.and(saved)
    }

    /// Whether the whole input was read, and how much of it was rejected is fine.
    pub(super) fn is_fine(&self) -> bool {
        let rejected = self.counts.rejected + self.counts.rejected_before;
        self.progress.is_finished && (rejected == 0 || self.args.skip_bad)
    }

    pub(super) fn report(
        &self,
        out: &mut Output,
        is_fine: bool,
        followed: Option<&FollowersOutcome>,
    ) -> Result<(), CommandError> {
        self.bar.finish_and_clear();
        let ended = Ended {
            is_finished: self.progress.is_finished,
            is_fine,
            is_pipe: self.progress.input.is_pipe(),
            seconds: self.clock.monotonic().as_secs_f64(),
            followed,
        };
        self.counts.print(ended, out)
    }
}
