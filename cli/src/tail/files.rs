//! Follows all vBuckets, and writes the events of each to a file of its own.

use super::object;
use crate::output::{CommandError, PROBLEM};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use vbstore::{
    Consumer, ConsumerConfig, Event, OpenOutcome, StreamRequest, Streams, TryRecv, VBucket, VbId,
};

/// How often it is checked whether writing has ended.
const POLL: Duration = Duration::from_millis(50);

/// A consumer of all vBuckets, with a file for each.
pub(crate) struct VbFiles {
    consumer: Consumer,
    writers: BTreeMap<VbId, Writing>,
    vbs: Vec<VBucket>,
}

struct Writing {
    path: PathBuf,
    file: BufWriter<File>,
}

impl VbFiles {
    /// Creates the files, and opens a stream of each vBucket from its beginning.
    pub(crate) fn create(
        dir: &Path,
        streams: &Streams,
        vbs: Vec<VBucket>,
    ) -> Result<Self, CommandError> {
        fs::create_dir_all(dir).map_err(|e| CommandError::file("create the directory", dir, &e))?;
        let mut consumer = streams.consumer("import", &ConsumerConfig::default())?;
        let mut writers = BTreeMap::new();
        for vb in &vbs {
            let path = dir.join(format!("{}.jsonl", vb.id()));
            let file = File::create(&path).map_err(|e| CommandError::file("write", &path, &e))?;
            let file = BufWriter::new(file);
            writers.insert(vb.id(), Writing { path, file });
            if let OpenOutcome::Rollback { .. } =
                consumer.open(&StreamRequest::from_start(vb.id()))?
            {
                return Err(CommandError::new(
                    PROBLEM,
                    "rollback",
                    format!("{} cannot be followed from its beginning", vb.id()),
                ));
            }
        }
        Ok(Self {
            consumer,
            writers,
            vbs,
        })
    }

    /// Writes events to the files until `is_over` is set and every change is written. Returns the
    /// number of events.
    pub(crate) fn follow(mut self, is_over: &AtomicBool) -> Result<u64, CommandError> {
        let mut events: u64 = 0;
        loop {
            let was_over = is_over.load(Ordering::Acquire);
            let event = match self.consumer.recv_timeout(POLL) {
                Ok(event) => event,
                Err(TryRecv::Empty) if was_over && self.has_everything()? => break,
                Err(TryRecv::Empty) => continue,
                Err(TryRecv::Ended) => break,
            };
            events = events.saturating_add(1);
            if let Some(writing) = self.writers.get_mut(&event.vb) {
                let line = object(event.vb, &event.event, false);
                let written = writeln!(writing.file, "{line}");
                written.map_err(|e| CommandError::file("write", &writing.path, &e))?;
            }
            if let Event::End(reason) = &event.event {
                let what = format!("the stream of {} ended: {}", event.vb, reason.name());
                return Err(CommandError::new(PROBLEM, "stream", what));
            }
        }
        for Writing { path, file } in self.writers.values_mut() {
            file.flush()
                .map_err(|e| CommandError::file("write", path, &e))?;
        }
        Ok(events)
    }

    fn has_everything(&self) -> Result<bool, CommandError> {
        for vb in &self.vbs {
            let position = self.consumer.position(vb.id()).unwrap_or_default();
            if position.seqno < vb.seqnos()?.high {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
