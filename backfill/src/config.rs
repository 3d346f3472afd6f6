//! What can be configured.

mod order;

pub use order::Order;

use std::time::Duration;
use vbstore_engine::{Error, Result};

/// Limits of all streams of an engine.
#[derive(Clone, Debug)]
pub struct StreamsConfig {
    /// Threads that read slices, from 1 to 64. Default: 2. At most so many db snapshots are open.
    pub workers: usize,
    /// Backfills of one consumer that are read through one db snapshot, if those before came to their
    /// ends within the time of a slice, from 1 to 1,024. Default: 16. More means fewer db snapshots for
    /// a consumer of many small vBuckets; each is still held for the time of one slice at most.
    pub backfills_per_snapshot: usize,
    /// How much less the workers count than other threads when processors are short, from 0 to 19
    /// (the system's niceness). Default: 10: catching up must not be felt by who writes. Raising it
    /// makes db snapshots live longer on a machine that is overloaded.
    pub workers_nice: u8,
    /// Backfills under way at once, over all consumers, from 1. Default: 256. More wait, and hold
    /// nothing. A backfill that waits for room in its consumer's buffer does not count, nor one that
    /// waits for a sync while the disk is full; when they come back there may be more for a while.
    pub backfills_max: usize,
    /// Backfills that may wait for a place, from 0. Default: 10,000. With more, opening a stream is
    /// refused with [`Error::Busy`]. A stream that falls back to the disk is never refused.
    pub pending_max: usize,
    /// Bytes in the buffers of all consumers, from 1. Default: 256 MiB. Each consumer may use an equal
    /// share of it. The first item of a slice passes whatever its size. When it is used up, what is buffered for consumers
    /// that have taken nothing for a second is dropped, and read again when they come back.
    pub buffer_bytes_max: u64,
    /// A consumer that takes nothing for so long, though there is something to take, is stalled, from
    /// 1 ms. Default: 720 s, as in Couchbase Server.
    pub stall_limit: Duration,
    /// A stalled stream is ended if less than this share of the disk is free, in percent, or the
    /// disk is full. Default: 10.
    pub disk_free_min_percent: u8,
    /// A backfill whose distance to its end has not shrunk for so long is reported as diverging,
    /// from 0. Default: 60 s.
    pub diverging_after: Duration,
    /// Bytes of slices that are kept for other streams of the same vBucket, from 0. Default: 16 MiB.
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
    /// Bytes read and not taken yet, from 1. Default: 20 MiB. The first item of a slice passes whatever
    /// its size.
    pub buffer_bytes_max: u64,
    /// Share of the buffer, in percent, that must be drained after it was full before reading goes
    /// on, from 0 to 100. Default: 25.
    pub drain_percent: u8,
    /// Backfills of this consumer under way at once, from 1. Default: 64.
    pub backfills_max: usize,
    /// Slices of this consumer read at once, from 1. Default: `None`, which means one less than
    /// there are workers, and at least one: no consumer can occupy them all.
    pub slices_max: Option<usize>,
    /// In which order its backfills run. Default: round robin.
    pub order: Order,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            buffer_bytes_max: 20 << 20,
            drain_percent: 25,
            backfills_max: 64,
            slices_max: None,
            order: Order::RoundRobin,
        }
    }
}

fn at_least_one(field: &'static str, is_one: bool) -> Result<()> {
    if is_one {
        Ok(())
    } else {
        Err(Error::invalid(field, "0 is below 1"))
    }
}

impl StreamsConfig {
    /// Checks every field.
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
                format!("{} is above 19", self.workers_nice),
            ));
        }
        at_least_one("backfills_max", self.backfills_max > 0)?;
        at_least_one("buffer_bytes_max", self.buffer_bytes_max > 0)?;
        if self.stall_limit < Duration::from_millis(1) {
            return Err(Error::invalid(
                "stall_limit",
                format!("{:?} is below 1 ms", self.stall_limit),
            ));
        }
        if self.disk_free_min_percent > 100 {
            return Err(Error::invalid(
                "disk_free_min_percent",
                format!("{} is above 100", self.disk_free_min_percent),
            ));
        }
        Ok(())
    }
}

impl ConsumerConfig {
    /// Checks every field.
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
                format!("{} is above 100", self.drain_percent),
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
