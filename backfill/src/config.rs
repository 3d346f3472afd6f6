//! Configuration of streams and of consumers.

mod order;

pub use order::BackfillOrder;

use std::time::Duration;
use vbstore_engine::{Error, Result};

/// Limits shared by all streams of an engine.
#[derive(Clone, Debug)]
pub struct StreamsConfig {
    /// Number of threads that read slices, from 1 to 64. Default: 2. Each holds at most one db
    /// snapshot.
    pub workers: usize,
    /// Maximum number of backfills of one consumer that share a db snapshot, from 1 to 1,024.
    /// Default: 16. A worker reads them one after another, and starts the next only if the previous
    /// ones reached their ends within the time budget of one slice. A larger number means fewer db
    /// snapshots for a consumer of many small vBuckets. No db snapshot is held longer than one
    /// slice takes.
    pub backfills_per_snapshot: usize,
    /// Niceness of the worker threads, from 0 to 19. Default: 10, so that catching up does not slow
    /// down writers when processors are short. A higher value lets db snapshots live longer on an
    /// overloaded machine.
    pub workers_nice: u8,
    /// Maximum number of backfills in progress over all consumers, at least 1. Default: 256. The
    /// others are pending, and hold no resources. A backfill that waits for buffer room does not
    /// count, nor does one that waits for a sync while the disk is full. When those resume, the
    /// number can exceed the limit for a while.
    pub backfills_max: usize,
    /// Maximum number of pending backfills, from 0. Default: 10,000. When it is reached, opening a
    /// stream that must wait fails with [`Error::Busy`]. A stream that falls back from memory to
    /// disk is never refused.
    pub pending_max: usize,
    /// Bytes buffered for all consumers together, at least 1. Default: 256 MiB. Each consumer may
    /// use an equal share. The first item of a slice is accepted whatever its size. When the total
    /// is used up, the batches of consumers that have taken nothing for a second are dropped. They
    /// are read again when those consumers resume.
    pub buffer_bytes_max: u64,
    /// Time after which a consumer counts as stalled if it takes nothing although events are
    /// available. At least 1 ms. Default: 720 s, as in Couchbase Server.
    pub stall_limit: Duration,
    /// Free share of the disk, in percent, below which stalled streams are ended. They are also
    /// ended if the disk is full. From 0 to 100. Default: 10.
    pub disk_free_min_percent: u8,
    /// Time after which a backfill is reported as diverging if its distance to its end has not
    /// shrunk, from 0. Default: 60 s.
    pub diverging_after: Duration,
    /// Bytes of slices cached for other streams of the same vBucket, from 0. Default: 16 MiB.
    pub shared_bytes_max: u64,
}

impl Default for StreamsConfig {
    fn default() -> Self {
        Self {
            workers: 2,
            backfills_per_snapshot: 16,
            workers_nice: 10,
            backfills_max: 256,
            pending_max: 10_000,
            buffer_bytes_max: 256 << 20,
            stall_limit: Duration::from_secs(720),
            disk_free_min_percent: 10,
            diverging_after: Duration::from_secs(60),
            shared_bytes_max: 16 << 20,
        }
    }
}

/// Limits of one consumer.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// Bytes that were read and that the consumer has not taken yet, at least 1. Default: 20 MiB.
    /// The first item of a slice is accepted whatever its size.
    pub buffer_bytes_max: u64,
    /// Share of a full buffer, in percent, that the consumer must drain before reading continues.
    /// From 0 to 100. Default: 25.
    pub drain_percent: u8,
    /// Maximum number of backfills of this consumer in progress, at least 1. Default: 64.
    pub backfills_max: usize,
    /// Maximum number of slices read at once for this consumer, at least 1. The default, `None`,
    /// means one less than the number of workers, but at least one. So no consumer can occupy all
    /// workers.
    pub slices_max: Option<usize>,
    /// Order in which the backfills of this consumer run. Default: round robin.
    pub order: BackfillOrder,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            buffer_bytes_max: 20 << 20,
            drain_percent: 25,
            backfills_max: 64,
            slices_max: None,
            order: BackfillOrder::RoundRobin,
        }
    }
}

fn at_least_one(field: &'static str, is_one: bool) -> Result<()> {
    if is_one {
        Ok(())
    } else {
        Err(Error::invalid(field, "0 is below the minimum, 1"))
    }
}

impl StreamsConfig {
    /// Checks that every field is within its limits.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the name of the first field that is out of bounds.
    pub fn validate(&self) -> Result<()> {
        if !(1..=64).contains(&self.workers) {
            let detail = format!("{} is not between 1 and 64", self.workers);
            return Err(Error::invalid("workers", detail));
        }
        if !(1..=1_024).contains(&self.backfills_per_snapshot) {
            let detail = format!("{} is not between 1 and 1024", self.backfills_per_snapshot);
            return Err(Error::invalid("backfills_per_snapshot", detail));
        }
        if self.workers_nice > 19 {
            return Err(Error::invalid(
                "workers_nice",
                format!("{} is not between 0 and 19", self.workers_nice),
            ));
        }
        at_least_one("backfills_max", self.backfills_max > 0)?;
        at_least_one("buffer_bytes_max", self.buffer_bytes_max > 0)?;
        if self.stall_limit < Duration::from_millis(1) {
            return Err(Error::invalid(
                "stall_limit",
                format!("{:?} is below the minimum, 1 ms", self.stall_limit),
            ));
        }
        if self.disk_free_min_percent > 100 {
            return Err(Error::invalid(
                "disk_free_min_percent",
                format!("{} is not between 0 and 100", self.disk_free_min_percent),
            ));
        }
        Ok(())
    }
}

impl ConsumerConfig {
    /// Checks that every field is within its limits.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the name of the first field that is out of bounds.
    pub fn validate(&self) -> Result<()> {
        at_least_one("buffer_bytes_max", self.buffer_bytes_max > 0)?;
        at_least_one("backfills_max", self.backfills_max > 0)?;
        at_least_one("slices_max", self.slices_max != Some(0))?;
        if self.drain_percent > 100 {
            return Err(Error::invalid(
                "drain_percent",
                format!("{} is not between 0 and 100", self.drain_percent),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(checked: Result<()>) -> &'static str {
        match checked {
            Ok(()) => "",
            Err(Error::Invalid { field, .. }) => field,
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn every_bound_names_its_field() {
        let of = |change: fn(&mut StreamsConfig)| {
            let mut config = StreamsConfig::default();
            change(&mut config);
            field(config.validate())
        };
        assert_eq!(of(|_| ()), "");
        assert_eq!(of(|c| c.workers = 0), "workers");
        assert_eq!(of(|c| c.workers = 65), "workers");
        let per_snapshot = of(|c| c.backfills_per_snapshot = 0);
        assert_eq!(per_snapshot, "backfills_per_snapshot");
        assert_eq!(of(|c| c.workers_nice = 20), "workers_nice");
        assert_eq!(of(|c| c.backfills_max = 0), "backfills_max");
        assert_eq!(of(|c| c.buffer_bytes_max = 0), "buffer_bytes_max");
        assert_eq!(of(|c| c.stall_limit = Duration::ZERO), "stall_limit");
        let percent = of(|c| c.disk_free_min_percent = 101);
        assert_eq!(percent, "disk_free_min_percent");

        let of = |change: fn(&mut ConsumerConfig)| {
            let mut config = ConsumerConfig::default();
            change(&mut config);
            field(config.validate())
        };
        assert_eq!(of(|_| ()), "");
        assert_eq!(of(|c| c.buffer_bytes_max = 0), "buffer_bytes_max");
        assert_eq!(of(|c| c.backfills_max = 0), "backfills_max");
        assert_eq!(of(|c| c.slices_max = Some(0)), "slices_max");
        assert_eq!(of(|c| c.drain_percent = 101), "drain_percent");
    }
}
