//! Opening streams, and resuming those that were paused.

use super::Consumer;
use crate::backfill::Backfill;
use crate::delivery::{NewsWaker, Reading, Tail};
use crate::schedule::Task;
use crate::stream::{EndReason, Figures, Opened, Stream, StreamId, StreamRequest, set};
use std::sync::Arc;
use vbstore_core::{Position, Resume};
use vbstore_engine::{Admitted, CursorGuard, Error, Feed, ReaderGuard, Result, Start};

impl Consumer {
    /// Opens a stream. If memory holds everything above the position, it never reads the disk. Waits
    /// for nothing and reads no disk; takes the vBucket's lock for a moment.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field that no consumer can mean, for an unknown vBucket, and for
    /// one of which a stream is open here, or has ended and its end is not taken; [`Error::Busy`] if
    /// too many backfills wait; [`Error::ReadOnly`] for a copy of a store that was opened to read, see
    /// [`vbstore_engine::Builder::read_only`]; [`Error::Closed`];
    /// [`Error::Forked`]. Nothing was changed then.
    pub fn open(&mut self, request: &StreamRequest) -> Result<Opened> {
        self.work().context.engine.check_process()?;
        let vb = request.vb;
        let feed = self.work().context.engine.feed(vb)?;
        match self.mailbox.of_vb(vb) {
            None => {}
            Some((_, false)) => {
                return Err(Error::invalid("vb", format!("a stream of {vb} is open")));
            }
            Some((_, true)) => {
                // They would be mixed up with those of the new one.
                let detail = format!("take the End of the earlier stream of {vb} first");
                return Err(Error::invalid("vb", detail));
            }
        }
        let context = &self.work().context;
        // ORDER: before it is admitted, so that every view numbered later was begun after.
        let views_at_open = context.slices.views();
        let filter = request.options.filter();
        let taker = self.mailbox.taker();
        let admitted = feed.admit(&request.position, filter, request.end, taker)?;
        let (start, reader) = match admitted {
            Admitted::Continue { start, reader } => (start, reader),
            Admitted::Rollback(Resume::Rollback { to, reason }) => {
                context.counters.rollbacks.of(reason.name()).add(1);
                tracing::info!(%vb, %to, reason = reason.name(), "rollback answered");
                return Ok(Opened::Rollback { to, reason });
            }
            // Not an answer to refuse with.
            Admitted::Rollback(Resume::Continue) => return Err(Error::Closed),
        };
        let Start {
            progress,
            generation,
            cursor,
        } = start;
        let stream = Arc::new(Stream {
            id: self.work().ids.stream(),
            consumer: self.id,
            vb,
            generation,
            options: request.options.clone(),
            end: request.end,
            reader: Arc::clone(reader.reader()),
            metrics: Figures::default(),
        });
        // Before anybody sees it: figures go by them.
        set(&stream.metrics.read_seqno, progress.position());
        let reading = Reading {
            stream: Arc::clone(&stream),
            feed,
            progress,
            views_at_open,
        };
        self.begin(reading, cursor, reader)?;
        // Until its first marker is taken the position stays what it came with, on the branch that
        // the stream was opened on.
        let from = request.position;
        let is_untouched = from.seqno == from.snap_start;
        let position = Position {
            vb_uuid: progress.vb_uuid(),
            snap_end: if is_untouched {
                from.seqno
            } else {
                from.snap_end
            },
            purge_seqno: progress.purge_seqno(),
            filter: Some(filter),
            ..from
        };
        self.positions.0.insert(vb, position);
        Ok(Opened::Continue)
    }

    /// Begins a stream that was admitted.
    fn begin(
        &self,
        reading: Reading,
        cursor: Option<CursorGuard>,
        reader: ReaderGuard,
    ) -> Result<()> {
        let counters = &self.work().context.counters;
        let stream = Arc::clone(&reading.stream);
        counters.opened.add(1);
        if reading.progress.is_at_end() {
            let reason = EndReason::ReachedEnd;
            self.mailbox.begin_ended(&stream, reader, reason);
        } else if let Some(cursor) = cursor.filter(|_| !leaves_out_deletions(&reading)) {
            let tail = self.tail(reading, cursor);
            self.mailbox.begin_in_memory(tail, reader);
        } else {
            let backfill = self.backfill(reading);
            // ORDER: in the mailbox first: a worker may deliver at once.
            self.mailbox.begin_on_disk(&stream, reader, backfill.id());
            if !self.submit(stream.id, backfill, true) {
                self.mailbox.refuse(stream.id);
                return Err(Error::Busy {
                    what: "as many backfills wait as pending_max allows",
                });
            }
        }
        Ok(())
    }

    /// Takes a backfill into the scheduler, whose stream is in the mailbox. Returns false if it is
    /// refused.
    fn submit(&self, stream: StreamId, backfill: Box<Backfill>, may_be_refused: bool) -> bool {
        let (id, scheduler) = (backfill.id(), &self.work().scheduler);
        if scheduler.submit(backfill, may_be_refused).is_err() {
            return false;
        }
        // ORDER: submit first, check second. The watchdog may have ended or paused the stream since it
        // entered the mailbox, and then removes its backfill. If the backfill was not submitted by then,
        // there was nothing to remove, and the check below removes it.
        if !self.mailbox.is_awaited(stream, id) {
            scheduler.remove(id, self.id);
        }
        true
    }

    pub(super) fn tail(&self, reading: Reading, cursor: CursorGuard) -> Tail {
        let mailbox = Arc::downgrade(&self.mailbox);
        let waker = NewsWaker::waker(&mailbox, reading.stream.id);
        Tail::new(reading, cursor, waker)
    }

    pub(super) fn backfill(&self, reading: Reading) -> Box<Backfill> {
        let work = self.work();
        let mailbox = Arc::downgrade(&self.mailbox);
        Backfill::new(work.ids.backfill(), reading, mailbox, &work.context)
    }

    /// Goes on with a stream in the mailbox by a backfill.
    pub(super) fn go_to_disk(&self, reading: Reading) {
        let stream = reading.stream.id;
        let backfill = self.backfill(reading);
        // ORDER: in the mailbox first: a worker may deliver at once.
        if self.mailbox.go_to_disk(stream, backfill.id()) {
            // Refused only if the workers are gone, and then nothing is read any more.
            self.submit(stream, backfill, false);
        }
    }

    /// Goes on with a stream whose batches were dropped, from what was taken: as after a reconnect,
    /// but for the end of a marker that was taken, which must not move back.
    pub(super) fn resume(&self, stream: &Arc<Stream>) {
        let resumed = self.readmit(stream);
        match resumed {
            Ok((reading, Some(cursor))) if !leaves_out_deletions(&reading) => {
                self.mailbox.go_to_memory(self.tail(reading, cursor));
            }
            Ok((reading, _)) => self.go_to_disk(reading),
            Err(reason) => self.mailbox.end_paused(stream.id, reason),
        }
    }

    fn readmit(
        &self,
        stream: &Arc<Stream>,
    ) -> std::result::Result<(Reading, Option<CursorGuard>), EndReason> {
        let context = &self.work().context;
        let feed: Feed = context.engine.feed(stream.vb)?;
        let position = self.positions.0.get(&stream.vb).copied();
        let position = position.unwrap_or_default();
        // ORDER: as when it was opened.
        let views_at_open = context.slices.views();
        // It is a reader since it was opened.
        let answer = feed.readmit(&position, stream.options.filter())?;
        match answer {
            Ok(start) if start.generation != stream.generation => Err(EndReason::VbucketGone),
            Ok(Start {
                mut progress,
                cursor,
                ..
            }) => {
                progress.require_end(position.snap_end);
                progress.want_end(stream.end);
                let reading = Reading {
                    stream: Arc::clone(stream),
                    feed,
                    progress,
                    views_at_open,
                };
                Ok((reading, cursor))
            }
            Err(Resume::Rollback { to, reason }) => {
                if feed.is_gone(stream.generation) {
                    return Err(EndReason::VbucketGone);
                }
                Err(EndReason::Rollback { to, reason })
            }
            Err(Resume::Continue) => Err(Error::Closed.into()),
        }
    }
}

/// Returns whether a stream begins with leaving out deletions, which it does on disk only.
fn leaves_out_deletions(reading: &Reading) -> bool {
    reading.stream.options.skips_first_deletions && reading.progress.begins_from_zero()
}
