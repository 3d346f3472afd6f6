//! `tail`: prints the changes of a store as JSON lines, and keeps its positions in a file.

mod events;
mod files;
mod state;

pub(crate) use events::object;
pub(crate) use files::VbFiles;

use crate::args::TailArgs;
use crate::output::{CommandError, CommandResult, DONE, Output, PROBLEM, USAGE};
use crate::stop::StopFlag;
use crate::store;
use serde_json::json;
use state::TailStateFile;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;
use vbstore::{
    Clock, Consumer, ConsumerConfig, EndReason, Engine, Event, OpenOutcome, Position, Positions,
    RollbackReason, Seqno, StreamOptions, StreamRequest, Streams, StreamsConfig, SystemClock,
    TryRecv, VBucket,
};

/// How often a stop is checked for while there are no events.
const POLL: Duration = Duration::from_millis(100);
/// Longest time between two saves of the positions while events arrive.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) fn run(args: &TailArgs, out: &mut Output, stop: &StopFlag) -> CommandResult {
    let engine = store::open_to_read(&args.dir, args.reading)?;
    let streams = Streams::start(&engine, &StreamsConfig::default())?;
    let consumer = streams.consumer("tail", &ConsumerConfig::default())?;
    let state = args
        .resume
        .as_ref()
        .map(|path| TailStateFile::new(path, engine.store_uuid()));
    let mut tail = TailRun {
        consumer,
        state,
        saved: Positions::default(),
        is_keys_only: args.keys_only,
        clock: SystemClock::new(),
        saved_at: Duration::ZERO,
        unsaved: UnsavedOutput::Nothing,
        is_cut_off: false,
    };
    tail.open(args, &engine, out)?;
    let is_whole = tail.follow(out, stop)?;
    let is_fine = is_whole && !tail.is_cut_off;
    drop(tail);
    drop(streams);
    engine.close()?;
    Ok(if is_fine { DONE } else { PROBLEM })
}

/// What was printed since the positions were saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UnsavedOutput {
    Nothing,
    /// Part of a snapshot.
    Part,
    /// The end of a snapshot: saved as soon as no event is waiting.
    Complete,
}

struct TailRun {
    consumer: Consumer,
    state: Option<TailStateFile>,
    /// The positions in the state file at the start. Those of vBuckets that are not followed now
    /// stay in the file.
    saved: Positions,
    is_keys_only: bool,
    clock: SystemClock,
    saved_at: Duration,
    unsaved: UnsavedOutput,
    /// A stream was refused, or ended before its end was reached.
    is_cut_off: bool,
}

impl TailRun {
    fn open(
        &mut self,
        args: &TailArgs,
        engine: &Engine,
        out: &mut Output,
    ) -> Result<(), CommandError> {
        let saved = match &self.state {
            Some(state) => state.load()?,
            None => None,
        };
        self.saved = saved.clone().unwrap_or_default();
        if let Some(state) = &self.state {
            // Fails before anything is printed if the file cannot be written.
            state.save(&self.saved)?;
        }
        for vb in store::vbuckets(engine, args.vb)? {
            let position = match (&saved, args.from) {
                (Some(positions), _) => positions.0.get(&vb.id()).copied().unwrap_or_default(),
                (None, Some(from)) => after(&vb, from)?,
                (None, None) => Position::default(),
            };
            let options = StreamOptions {
                prefix: args.prefix.as_bytes().to_vec().into(),
                is_keys_only: args.keys_only,
                ..StreamOptions::default()
            };
            let mut request = StreamRequest::resume(vb.id(), position).options(options);
            if args.until_high {
                request = request.until(vb.seqnos()?.high);
            }
            if let OpenOutcome::Rollback { to, reason } = self.consumer.open(&request)? {
                if reason == RollbackReason::FilterChanged {
                    return Err(filter_changed(args));
                }
                // What was printed cannot be undone here: the reader of the output must roll back.
                self.is_cut_off = true;
                out.line(json!({
                    "kind": "end", "vb": vb.id().get(), "reason": "rollback",
                    "to": to.get(), "rollback_reason": reason.name(),
                }))?;
            }
        }
        Ok(())
    }

    /// Prints events until all streams have ended, and then returns `true`; after a signal,
    /// `false`.
    fn follow(&mut self, out: &mut Output, stop: &StopFlag) -> Result<bool, CommandError> {
        let is_whole = loop {
            if stop.is_asked() {
                break false;
            }
            let event = match self.consumer.try_recv() {
                Err(TryRecv::Empty) => {
                    // No event is waiting: flush, so that the reader sees what was printed.
                    self.save(out)?;
                    self.consumer.recv_timeout(POLL)
                }
                event => event,
            };
            let event = match event {
                Ok(event) => event,
                Err(TryRecv::Ended) => break true,
                Err(TryRecv::Empty) => continue,
            };
            if let Event::End(reason) = &event.event {
                self.is_cut_off |= !matches!(reason, EndReason::ReachedEnd);
            }
            out.line(object(event.vb, &event.event, self.is_keys_only))?;
            let position = self.consumer.position(event.vb);
            if position.is_some_and(|p| p.is_complete()) {
                self.unsaved = UnsavedOutput::Complete;
            } else if self.unsaved == UnsavedOutput::Nothing {
                self.unsaved = UnsavedOutput::Part;
            }
            if self.is_save_due() {
                self.save(out)?;
            }
        };
        // The last save does not wait for the end of a snapshot.
        if self.unsaved == UnsavedOutput::Part {
            self.unsaved = UnsavedOutput::Complete;
        }
        self.save(out)?;
        Ok(is_whole)
    }

    fn is_save_due(&self) -> bool {
        let now = self.clock.monotonic();
        now.saturating_sub(self.saved_at) >= SAVE_INTERVAL
    }

    /// Flushes the output, then saves the positions if they are due.
    ///
    /// ORDER: output first. A position must never be ahead of what was printed, or a kill in
    /// between would lose events.
    fn save(&mut self, out: &mut Output) -> Result<(), CommandError> {
        if self.unsaved == UnsavedOutput::Nothing {
            return Ok(());
        }
        out.flush()?;
        if self.unsaved == UnsavedOutput::Complete || self.is_save_due() {
            if let Some(state) = &self.state {
                let mut positions = self.saved.clone();
                positions.0.extend(&self.consumer.positions().0);
                state.save(&positions)?;
            }
            self.saved_at = self.clock.monotonic();
            self.unsaved = UnsavedOutput::Nothing;
        }
        Ok(())
    }
}

/// Returns the error of a state file whose positions were reached with other options.
fn filter_changed(args: &TailArgs) -> CommandError {
    let file = args.resume.as_deref().unwrap_or_else(|| Path::new(""));
    let text = format!(
        "{}: its positions were reached with another --prefix or --keys-only, so what this tail \
         wants may have been skipped; give the same options, or a new file to start from the \
         beginning",
        file.display()
    );
    CommandError::new(USAGE, "filter_changed", text)
}

/// Returns the position of a consumer that has every change before seqno `from`.
pub(crate) fn after(vb: &VBucket, from: u64) -> Result<Position, CommandError> {
    let seqno = Seqno::new(from.saturating_sub(1));
    let seqnos = vb.seqnos()?;
    Ok(Position {
        vb_uuid: seqnos.vb_uuid,
        seqno,
        snap_start: seqno,
        snap_end: seqno,
        purge_seqno: seqnos.purge,
        filter: None,
    })
}
