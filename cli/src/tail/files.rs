//! Following all vBuckets into a file each.

use super::object;
use crate::output::{Failure, IO, PROBLEM};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use vbstore::{
    Consumer, ConsumerConfig, Event, Opened, StreamRequest, Streams, TryRecv, VBucket, VbId,
};

/// How soon it is noticed that nothing more will be written.
const POLL: Duration = Duration::from_millis(50);

/// One file for each vBucket.
pub(crate) struct Files {
    consumer: Consumer,
    writers: BTreeMap<VbId, BufWriter<File>>,
    vbs: Vec<VBucket>,
}

impl Files {
    /// Makes the files and opens a stream of each vBucket, from the beginning.
    pub(crate) fn create(
        dir: &Path,
        streams: &Streams,
        vbs: Vec<VBucket>,
    ) -> Result<Self, Failure> {
        let named = |path: &Path, error: &io::Error| {
            Failure::new(IO, "io", format!("{}: {error}", path.display()))
        };
        fs::create_dir_all(dir).map_err(|error| named(dir, &error))?;
        let mut consumer = streams.consumer("import", &ConsumerConfig::default())?;
        let mut writers = BTreeMap::new();
        for vb in &vbs {
            let path = dir.join(format!("{}.jsonl", vb.id()));
            let file = File::create(&path).map_err(|error| named(&path, &error))?;
            writers.insert(vb.id(), BufWriter::new(file));
            if let Opened::Rollback { .. } = consumer.open(&StreamRequest::from_start(vb.id()))? {
                return Err(Failure::new(PROBLEM, "rollback", "refused from the start"));
            }
        }
        Ok(Self {
            consumer,
            writers,
            vbs,
        })
    }

    /// Writes what comes, until `is_over` and everything is there. Returns how many events.
    pub(crate) fn follow(mut self, is_over: &AtomicBool) -> Result<u64, Failure> {
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
            if let Some(file) = self.writers.get_mut(&event.vb) {
                writeln!(file, "{}", object(event.vb, &event.event, false))?;
            }
            if let Event::End(reason) = &event.event {
                let what = format!("the stream of {} ended: {}", event.vb, reason.name());
                return Err(Failure::new(PROBLEM, "stream", what));
            }
        }
        for file in self.writers.values_mut() {
            file.flush()?;
        }
        Ok(events)
    }

    fn has_everything(&self) -> Result<bool, Failure> {
        for vb in &self.vbs {
            let position = self.consumer.position(vb.id()).unwrap_or_default();
            if position.seqno < vb.seqnos()?.high {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
