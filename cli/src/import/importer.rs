//! Writes records to the store, with a window of pending writes.
//!
//! Records are acknowledged in input order: the importer waits for the oldest ticket first, so one
//! position describes the progress completely. The progress is saved after every window, so that
//! after a kill about two windows of records are read again. With a durability below `Synced`, it
//! is saved once a second, after a flush. Among the records that are read again, those already
//! stored are recognised by their value.

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

/// The interval at which the progress is synced, so that it survives a power failure.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

struct PendingWrite {
    /// `None` for a record that needs no write: it is already stored, or it was rejected.
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
    /// The progress that the file holds or will hold after the next save.
    progress: ImportProgress,
    /// A record was acknowledged that must be read again if the input grows. The saved progress
    /// stays before that record.
    is_held: bool,
    /// The offset up to which all records are acknowledged.
    offset: u64,
    window: VecDeque<PendingWrite>,
    window_max: usize,
    clock: SystemClock,
    synced_at: Duration,
    /// The number of records acknowledged since the progress was saved.
    unsaved: usize,
    counts: Counts,
    /// The number of consecutive records that were not stored yet. `None` once it exceeds a window:
    /// all later records are new.
    catching_up: Option<u64>,
    bar: indicatif::ProgressBar,
}

impl<'a> Importer<'a> {
    /// Creates an importer that continues at `progress`. Saves the progress at once, so that a file
    /// that cannot be written fails before any record is imported.
    pub(super) fn new(
        args: &'a ImportArgs,
        engine: &'a Engine,
        file: ProgressFile,
        mut progress: ImportProgress,
    ) -> Result<Self, CommandError> {
        if progress.is_finished {
            // The earlier import reported these rejections.
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

    /// Imports all records, and saves the progress, even if the import fails.
    pub(super) fn run(
        &mut self,
        records: &mut Records,
        stop: &StopFlag,
        beside: Option<&ImportFollowers>,
    ) -> Result<(), CommandError> {
        let ended = self.read(records, stop, beside);
        // Even after a failure, wait for the pending writes and count them.
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

    /// Reads and writes records. Returns whether the end of the input was reached.
    fn read(
        &mut self,
        records: &mut Records,
        stop: &StopFlag,
        beside: Option<&ImportFollowers>,
    ) -> Result<bool, CommandError> {
        loop {
            let next = records.next();
            if stop.is_asked() {
                // After a stop the input ends early, so the last record or the compressed data may
                // be incomplete.
                return Ok(false);
            }
            self.progress.layout = records.layout();
            let record = match next {
                Ok(Some(record)) => record,
                Ok(None) => return Ok(true),
                // The error already names the input.
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

    /// Starts a write. The inner error is the reason to reject the record.
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

    /// Returns whether the interrupted import already stored this record. Reads the store only
    /// until more than a window of consecutive records was new, because that import had at most a
    /// window of pending writes.
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

    /// Saves the progress. The records that it covers must survive every failure that the file
    /// survives, so the store is flushed first if its writes were not synced.
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

    /// Waits for the pending writes, and saves the resulting progress.
    fn settle(&mut self) -> Result<(), CommandError> {
        let mut acknowledged = Ok(());
        while !self.window.is_empty() && acknowledged.is_ok() {
            acknowledged = self.acknowledge_oldest();
        }
        // After a failed write, the later ones are not waited for. The next import repeats them.
        self.window.clear();
        let saved = self.save();
        acknowledged.and(saved)
    }

    /// Returns whether the whole input was read, and no record was rejected or `--skip-bad` allows
    /// rejections.
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
