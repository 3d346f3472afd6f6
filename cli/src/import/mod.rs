//! `import`: records into a store, with a window of writes under way.
//!
//! Lines are acknowledged in their order: the oldest ticket is waited for first, so "up to line N"
//! says all there is to say. It is written down after every window, so a kill loses at most the
//! lines of about two windows; of these, the ones that are stored already are recognised by their
//! value when the import goes on.

mod followers;
mod progress;
mod quotes;
mod reader;

use crate::args::{Format, ImportArgs};
use crate::input;
use crate::number::usize_from;
use crate::output::{CommandError, CommandResult, DONE, Output, PROBLEM, progress as progress_bar};
use crate::stop::StopFlag;
use crate::store;
use clap::ValueEnum;
use followers::{FollowersOutcome, ImportFollowers};
use progress::{ImportProgress, InputIdentity, ProgressFile};
use reader::{InputLine, InputReader};
use serde_json::json;
use std::collections::VecDeque;
use std::io::BufRead;
use std::time::Duration;
use vbstore::{Change, Clock, Durability, Engine, Error, SystemClock, Ticket};

/// Rejected lines that are listed one by one.
const REJECTED_MAX: usize = 100;
/// How often the progress is synced, so that it survives a power cut.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) fn run(args: &ImportArgs, out: &mut Output, stop: &StopFlag) -> CommandResult {
    let format = args
        .format
        .to_possible_value()
        .map_or_else(String::new, |v| v.get_name().to_owned());
    let source = InputIdentity::of(&args.file, &format, &args.key).map_err(|e| {
        CommandError::new(
            crate::output::IO,
            "io",
            format!("{}: {e}", args.file.display()),
        )
    })?;
    let file = ProgressFile::beside(&args.dir);
    let earlier = if args.resume { file.load()? } else { None };
    if earlier
        .as_ref()
        .is_some_and(|earlier| earlier.input != source)
    {
        return Err(CommandError::usage(
            "the import that was cut short was of another input",
        ));
    }
    let mut reader = InputReader::new(input::open(&args.file, stop)?, args.format, &args.key);
    reader.header().map_err(CommandError::usage)?;
    if let Some(earlier) = &earlier {
        reader.skip_to(earlier.line, earlier.offset)?;
    }
    let engine = store::open_or_create(&args.dir, args.vbuckets)?;
    let store = engine.store_uuid().to_string();
    if earlier
        .as_ref()
        .is_some_and(|earlier| earlier.store != store)
    {
        return Err(CommandError::usage(
            "the import that was cut short went into another store",
        ));
    }
    let start = earlier.unwrap_or(ImportProgress {
        input: source,
        store,
        line: 0,
        offset: 0,
        is_finished: false,
    });
    let mut importer = Importer::new(args, &engine, file, start);
    let beside = ImportFollowers::of(&engine, args)?;
    let mut import = || {
        let ended = importer.run(&mut reader, stop, beside.as_ref());
        // Also when it failed: what is under way is waited for and counted.
        ended.and(importer.settle())
    };
    let ended = match &beside {
        None => import().map(|()| None),
        Some(beside) => beside.run(args, import).map(Some),
    };
    drop(beside);
    let closed = engine.close();
    // What the import ended with comes first: a failed engine cannot be closed well either.
    let followed = ended?;
    closed?;
    importer.report(out, followed.as_ref())?;
    let is_fine = importer.progress.is_finished && followed.is_none_or(|outcome| outcome.is_ok());
    Ok(if is_fine { DONE } else { PROBLEM })
}

struct PendingWrite {
    /// `None` for a line that needs no write.
    ticket: Option<Ticket>,
    line: u64,
    offset: u64,
}

struct Importer<'a> {
    args: &'a ImportArgs,
    engine: &'a Engine,
    file: ProgressFile,
    progress: ImportProgress,
    window: VecDeque<PendingWrite>,
    window_max: usize,
    clock: SystemClock,
    synced_at: Duration,
    saved_line: u64,
    records: u64,
    bytes: u64,
    already_there: u64,
    rejected: Vec<(u64, String)>,
    rejected_count: u64,
    /// Lines in a row that were not there; once a window of them was seen the rest is new.
    catching_up: Option<u64>,
    bar: indicatif::ProgressBar,
}

impl<'a> Importer<'a> {
    fn new(
        args: &'a ImportArgs,
        engine: &'a Engine,
        file: ProgressFile,
        progress: ImportProgress,
    ) -> Self {
        Self {
            args,
            engine,
            file,
            saved_line: progress.line,
            catching_up: args.resume.then_some(0),
            progress: ImportProgress {
                is_finished: false,
                ..progress
            },
            window: VecDeque::new(),
            window_max: usize_from(args.window),
            clock: SystemClock::new(),
            synced_at: Duration::ZERO,
            records: 0,
            bytes: 0,
            already_there: 0,
            rejected: Vec::new(),
            rejected_count: 0,
            bar: progress_bar(),
        }
    }

    fn run(
        &mut self,
        reader: &mut InputReader<Box<dyn BufRead>>,
        stop: &StopFlag,
        beside: Option<&ImportFollowers>,
    ) -> Result<(), CommandError> {
        while let Some(line) = reader.next()? {
            if stop.is_asked() {
                // The line may be cut where the input was left.
                return Ok(());
            }
            if let Some(beside) = beside {
                beside.note(line.end)?;
            }
            self.take(line)?;
            while self.window.len() >= self.window_max {
                self.acknowledge_oldest()?;
            }
        }
        if stop.is_asked() {
            return Ok(());
        }
        self.settle()?;
        self.progress.is_finished = true;
        self.file.save(&self.progress, true)?;
        Ok(())
    }

    fn take(&mut self, line: InputLine) -> Result<(), CommandError> {
        let InputLine {
            number,
            end,
            change,
        } = line;
        let written = match change {
            Ok(change) if self.is_there(&change)? => {
                self.already_there += 1;
                Ok(None)
            }
            Ok(change) => self.write(&change)?.map(Some),
            Err(reason) => Err(reason),
        };
        let ticket = match written {
            Ok(ticket) => ticket,
            Err(reason) => {
                self.rejected_count += 1;
                if self.args.strict {
                    return Err(CommandError::new(
                        PROBLEM,
                        "rejected",
                        format!("line {number}: {reason}"),
                    ));
                }
                if self.rejected.len() < REJECTED_MAX {
                    self.rejected.push((number, reason));
                }
                None
            }
        };
        self.window.push_back(PendingWrite {
            ticket,
            line: number,
            offset: end,
        });
        Ok(())
    }

    /// Begins a write. The inner error is the line's own fault.
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

    /// Whether a line was imported before the import was cut short. Looked at only until a whole
    /// window of lines was new: no more can have been under way.
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
            self.records += 1;
        }
        let read = oldest.offset - self.progress.offset;
        self.bytes += read;
        self.progress.line = oldest.line;
        self.progress.offset = oldest.offset;
        if self.progress.line - self.saved_line >= u64::from(self.args.window) {
            self.save()?;
        }
        Ok(())
    }

    /// Writes down how far the import has come. What is written down must survive whatever the
    /// file itself survives, so lines that were not synced are, first.
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
        self.saved_line = self.progress.line;
        if sync {
            self.synced_at = now;
        }
        self.bar
            .set_message(format!("{} lines", self.progress.line));
        self.bar.tick();
        Ok(())
    }

    /// Waits for everything that is under way.
    fn settle(&mut self) -> Result<(), CommandError> {
        while !self.window.is_empty() {
            self.acknowledge_oldest()?;
        }
        self.save()
    }

    fn report(
        &self,
        out: &mut Output,
        followed: Option<&FollowersOutcome>,
    ) -> Result<(), CommandError> {
        self.bar.finish_and_clear();
        let seconds = self.clock.monotonic().as_secs_f64();
        let rejected: Vec<_> = self
            .rejected
            .iter()
            .map(|(line, reason)| json!({"line": line, "reason": reason}))
            .collect();
        let object = json!({
            "ok": self.progress.is_finished,
            "records": self.records,
            "already_there": self.already_there,
            "bytes": self.bytes,
            "seconds": seconds,
            "lines": self.progress.line,
            "rejected_count": self.rejected_count,
            "rejected": rejected,
            "followed": followed.map(FollowersOutcome::to_json),
        });
        if out.is_json {
            return out.line(object);
        }
        for (line, reason) in &self.rejected {
            out.line(format_args!("rejected line {line}: {reason}"))?;
        }
        let cut = if self.progress.is_finished {
            ""
        } else {
            ", cut short: go on with --resume"
        };
        if let Some(outcome) = followed {
            out.line(format_args!("followed: {}", outcome.to_json()))?;
        }
        out.line(format_args!(
            "imported {} records, {} bytes in {seconds:.2} s; {} already there, {} rejected{cut}",
            self.records, self.bytes, self.already_there, self.rejected_count
        ))
    }
}
