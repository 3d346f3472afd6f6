//! Opening streams, and resuming paused streams.

use super::Consumer;
use crate::backfill::Backfill;
use crate::delivery::{ReadState, Tail, TailWaker};
use crate::schedule::ScheduledTask;
use crate::stream::{EndReason, OpenOutcome, Stream, StreamId, StreamMetrics, StreamRequest, set};
use std::sync::Arc;
use vbstore_core::{FilterDigest, Position, ResumeDecision, StreamProgress, VbId};
use vbstore_engine::{CursorGuard, Error, Feed, ReaderGuard, Result, StreamAdmission, StreamStart};

impl Consumer {
    /// Opens a stream. If memory holds everything above the position, the stream never reads from
    /// disk. Returns without waiting or reading from disk; takes the vBucket's lock for a moment.
    ///
    /// # Errors
    /// - [`Error::Invalid`] with the name of a malformed field, for an unknown vBucket, and if this
    ///   consumer has a stream of the vBucket that is open or whose `End` is not taken yet.
    /// - [`Error::Busy`] if too many backfills are pending; see
    ///   [`crate::StreamsConfig::pending_max`].
    /// - [`Error::ReadOnly`] for a copied store that was opened read-only; see
    ///   [`vbstore_engine::Builder::read_only`].
    /// - [`Error::Closed`], and [`Error::Forked`] in a forked child process.
    ///
    /// Nothing is changed in any of these cases.
    pub fn open(&mut self, request: &StreamRequest) -> Result<OpenOutcome> {
        self.work().context.engine.check_process()?;
        let vb = request.vb;
        let feed = self.work().context.engine.feed(vb)?;
        self.check_no_stream(vb)?;
        let context = &self.work().context;
        // ORDER: read the number of views before the stream is admitted. A view with a higher
        // number was then begun after admission, so the stream may use its slices.
        let views_at_open = context.slices.views();
        let filter = request.options.filter();
        let activity = self.mailbox.activity();
        let admitted = feed.admit(&request.position, filter, request.end, activity)?;
        let (start, reader) = match admitted {
            StreamAdmission::Continue { start, reader } => (start, reader),
            StreamAdmission::Rollback(ResumeDecision::Rollback { to, reason }) => {
                context.counters.rollbacks.of(reason.name()).add(1);
                tracing::info!(%vb, %to, reason = reason.name(), "stream request needs a rollback");
                return Ok(OpenOutcome::Rollback { to, reason });
            }
            // Unreachable: a refusal never carries `Continue`. Treated like a closed engine.
            StreamAdmission::Rollback(ResumeDecision::Continue) => return Err(Error::Closed),
        };
        let StreamStart {
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
            metrics: StreamMetrics::default(),
        });
        // Set before the stream is visible to others, since metrics are computed from it.
        set(&stream.metrics.read_seqno, progress.position());
        let reading = ReadState {
            stream: Arc::clone(&stream),
            feed,
            progress,
            views_at_open,
        };
        self.begin(reading, cursor, reader)?;
        let position = starting_position(request.position, &progress, filter);
        self.positions.0.insert(vb, position);
        Ok(OpenOutcome::Continue)
    }

    /// Checks that this consumer has no stream of a vBucket, open or ended.
    fn check_no_stream(&self, vb: VbId) -> Result<()> {
        match self.mailbox.stream_of(vb) {
            None => Ok(()),
            Some((_, false)) => {
                let detail = format!("this consumer already has an open stream of {vb}");
                Err(Error::invalid("vb", detail))
            }
            Some((_, true)) => {
                // Both streams' events would carry the same vBucket, and the consumer could not
                // tell them apart.
                let detail =
                    format!("the previous stream of {vb} has ended: take its End event first");
                Err(Error::invalid("vb", detail))
            }
        }
    }

    /// Starts an admitted stream: at its end, from memory, or by a backfill.
    ///
    /// # Errors
    /// [`Error::Busy`] if the backfill is refused, because too many are pending. The stream is
    /// removed again.
    fn begin(
        &self,
        reading: ReadState,
        cursor: Option<CursorGuard>,
        reader: ReaderGuard,
    ) -> Result<()> {
        let counters = &self.work().context.counters;
        let stream = Arc::clone(&reading.stream);
        counters.opened.add(1);
        if reading.progress.is_at_end() {
            let reason = EndReason::ReachedEnd;
            self.mailbox.begin_ended(&stream, reader, reason);
        } else if let Some(cursor) = cursor.filter(|_| !omits_deletions(&reading)) {
            let tail = self.tail(reading, cursor);
            self.mailbox.begin_in_memory(tail, reader);
        } else {
            let backfill = self.backfill(reading);
            // ORDER: add the stream to the mailbox first. Once submitted, a worker may deliver at
            // once.
            self.mailbox.begin_on_disk(&stream, reader, backfill.id());
            if !self.submit(stream.id, backfill, true) {
                self.mailbox.refuse(stream.id);
                return Err(Error::Busy {
                    what: "the number of pending backfills has reached pending_max",
                });
            }
        }
        Ok(())
    }

    /// Submits the backfill of a stream that is in the mailbox. Returns false if it is refused.
    fn submit(&self, stream: StreamId, backfill: Box<Backfill>, may_be_refused: bool) -> bool {
        let (id, scheduler) = (backfill.id(), &self.work().scheduler);
        if scheduler.submit(backfill, may_be_refused).is_err() {
            return false;
        }
        // ORDER: submit first, check second. The watchdog may have ended or paused the stream since
        // it entered the mailbox. It then removes the backfill from the scheduler, but finds
        // nothing if that happened before the submission. The check below covers that case.
        if !self.mailbox.is_awaited(stream, id) {
            scheduler.remove(id, self.id);
        }
        true
    }

    /// Creates the part of a stream that reads from memory.
    pub(super) fn tail(&self, reading: ReadState, cursor: CursorGuard) -> Tail {
        let mailbox = Arc::downgrade(&self.mailbox);
        let waker = TailWaker::waker(&mailbox, reading.stream.id);
        Tail::new(reading, cursor, waker)
    }

    pub(super) fn backfill(&self, reading: ReadState) -> Box<Backfill> {
        let work = self.work();
        let mailbox = Arc::downgrade(&self.mailbox);
        Backfill::new(work.ids.backfill(), reading, mailbox, &work.context)
    }

    /// Continues a stream of the mailbox with a backfill.
    pub(super) fn go_to_disk(&self, reading: ReadState) {
        let stream = reading.stream.id;
        let backfill = self.backfill(reading);
        // ORDER: register the backfill in the mailbox first. Once submitted, a worker may deliver
        // at once.
        if self.mailbox.go_to_disk(stream, backfill.id()) {
            // Refused only if the workers have stopped, and then nothing is read any more.
            self.submit(stream, backfill, false);
        }
    }

    /// Resumes a paused stream from the consumer's position. This is like a reconnect, except that
    /// the end of a marker already taken must not move back.
    pub(super) fn resume(&self, stream: &Arc<Stream>) {
        let resumed = self.readmit(stream);
        match resumed {
            Ok((reading, Some(cursor))) if !omits_deletions(&reading) => {
                self.mailbox.go_to_memory(self.tail(reading, cursor));
            }
            Ok((reading, _)) => self.go_to_disk(reading),
            Err(reason) => self.mailbox.end_paused(stream.id, reason),
        }
    }

    /// Asks the vBucket whether a paused stream can continue from the consumer's position, and
    /// whether from memory or disk.
    fn readmit(
        &self,
        stream: &Arc<Stream>,
    ) -> std::result::Result<(ReadState, Option<CursorGuard>), EndReason> {
        let context = &self.work().context;
        let feed: Feed = context.engine.feed(stream.vb)?;
        let position = self.positions.0.get(&stream.vb).copied();
        let position = position.unwrap_or_default();
        // ORDER: read the number of views before the vBucket answers, as in `open`.
        let views_at_open = context.slices.views();
        // No new reader is registered: the stream has been registered since it was opened.
        let answer = feed.readmit(&position, stream.options.filter())?;
        match answer {
            Ok(start) if start.generation != stream.generation => Err(EndReason::VbucketGone),
            Ok(StreamStart {
                mut progress,
                cursor,
                ..
            }) => {
                progress.require_end(position.snap_end);
                progress.want_end(stream.end);
                let reading = ReadState {
                    stream: Arc::clone(stream),
                    feed,
                    progress,
                    views_at_open,
                };
                Ok((reading, cursor))
            }
            Err(ResumeDecision::Rollback { to, reason }) => {
                if feed.is_gone(stream.generation) {
                    return Err(EndReason::VbucketGone);
                }
                Err(EndReason::Rollback { to, reason })
            }
            Err(ResumeDecision::Continue) => Err(Error::Closed.into()),
        }
    }
}

/// Returns the consumer's position once its stream is open. Until the consumer takes the first
/// marker, this is the position of the request, on the branch on which the stream was opened.
fn starting_position(from: Position, progress: &StreamProgress, filter: FilterDigest) -> Position {
    let is_untouched = from.seqno == from.snap_start;
    Position {
        vb_uuid: progress.vb_uuid(),
        snap_end: if is_untouched {
            from.seqno
        } else {
            from.snap_end
        },
        purge_seqno: progress.purge_seqno(),
        filter: Some(filter),
        ..from
    }
}

/// Returns whether a stream may omit deletions, so that it must begin on disk; see
/// [`crate::StreamOptions::skips_first_deletions`].
fn omits_deletions(reading: &ReadState) -> bool {
    reading.stream.options.skips_first_deletions && reading.progress.begins_from_zero()
}
