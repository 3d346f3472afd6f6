//! The failover log: the branches of a vBucket's history, and their record on disk.

use crate::ids::{Seqno, VbId, VbUuid};
use crate::record::{RecordError, RecordLocation, RecordReader, RecordWriter};

/// Maximum number of entries in a log; the oldest is removed first. Couchbase Server keeps 25 too.
pub const ENTRIES_MAX: usize = 25;

/// Version 2 added the number of unclean stops at which the newest branch began.
const VERSION: u8 = 2;

/// One branch: changes above `seqno` belong to `uuid`, up to the next newer branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailoverEntry {
    /// Identifies the branch.
    pub uuid: VbUuid,
    /// The vBucket's high seqno when the branch began.
    pub seqno: Seqno,
}

/// The branches of one vBucket, newest first. Has at least one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailoverLog {
    entries: Vec<FailoverEntry>,
    /// The store's count of unclean stops when the newest branch began.
    unclean_stops: u64,
}

impl FailoverLog {
    /// Returns the log of a new vBucket, whose only branch begins at seqno 0. `unclean_stops` is
    /// the store's count at that moment.
    #[must_use]
    pub fn new(uuid: VbUuid, unclean_stops: u64) -> Self {
        Self {
            entries: vec![FailoverEntry {
                uuid,
                seqno: Seqno::ZERO,
            }],
            unclean_stops,
        }
    }

    /// Returns whether a new branch must begin before the next change.
    ///
    /// That is so if the store, with `unclean_stops` in all, has had an unclean stop since the
    /// newest branch began: a consumer may have seen lost changes above the vBucket's high seqno.
    #[must_use]
    pub const fn is_branch_due(&self, unclean_stops: u64) -> bool {
        self.unclean_stops < unclean_stops
    }

    /// Returns the entries, newest first.
    #[must_use]
    pub fn entries(&self) -> &[FailoverEntry] {
        &self.entries
    }

    /// Begins a branch at `seqno` and removes the entries above it. Removes the oldest entry too if
    /// there would be more than [`ENTRIES_MAX`]. `unclean_stops` is the store's present count.
    pub fn begin(&mut self, uuid: VbUuid, seqno: Seqno, unclean_stops: u64) {
        self.unclean_stops = unclean_stops;
        self.entries.retain(|entry| entry.seqno <= seqno);
        self.entries.insert(0, FailoverEntry { uuid, seqno });
        self.entries.truncate(ENTRIES_MAX);
    }

    /// Returns the storage key of the record.
    #[must_use]
    pub fn storage_key(vb: VbId) -> Vec<u8> {
        format!("vb/{:04}/failover", vb.get()).into_bytes()
    }

    /// Writes the record into `out`, which is cleared first.
    pub fn encode(&self, vb: VbId, out: &mut Vec<u8>) {
        // Counts without a conversion that could fail; there are at most `ENTRIES_MAX` entries.
        let count = self.entries.iter().fold(0_u16, |count, _| count + 1);
        let mut writer =
            RecordWriter::versioned(out, self.entries.len() * 16 + 8, VERSION).u16(count);
        for entry in &self.entries {
            writer = writer.u64(entry.uuid.get()).u64(entry.seqno.get());
        }
        writer
            .u64(self.unclean_stops)
            .seal(RecordLocation::Named(&Self::storage_key(vb)));
    }

    /// Reads the record of `vb`.
    ///
    /// # Errors
    /// Fails if the version, checksum or length is wrong, the log is empty or too long, a uuid is
    /// 0, or a newer entry has a lower seqno than an older one.
    pub fn decode(vb: VbId, record: &[u8]) -> Result<Self, RecordError> {
        let place = Self::storage_key(vb);
        let (version, mut reader) =
            RecordReader::open_up_to(record, RecordLocation::Named(&place), VERSION)?;
        let count = usize::from(reader.u16()?);
        if count == 0 || count > ENTRIES_MAX {
            return Err(RecordError(
                "the failover log is empty or has more than 25 entries",
            ));
        }
        let mut entries: Vec<FailoverEntry> = Vec::with_capacity(count);
        for _ in 0..count {
            let entry = FailoverEntry {
                uuid: VbUuid::new(reader.u64()?),
                seqno: Seqno::new(reader.u64()?),
            };
            if entry.uuid.get() == 0 {
                return Err(RecordError("a failover log entry has the uuid 0"));
            }
            if entries
                .last()
                .is_some_and(|newer| newer.seqno < entry.seqno)
            {
                return Err(RecordError(
                    "a newer failover log entry has a lower seqno than an older one",
                ));
            }
            entries.push(entry);
        }
        // Stores of version 1 began a branch in every vBucket at each open after an unclean stop
        // and did not count the stops.
        let unclean_stops = if version >= VERSION { reader.u64()? } else { 0 };
        reader.end()?;
        Ok(Self {
            entries,
            unclean_stops,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VB: VbId = VbId::new(3);

    #[test]
    fn a_branch_forgets_entries_above_it_and_the_oldest_of_too_many() {
        let mut log = FailoverLog::new(VbUuid::new(1), 0);
        log.begin(VbUuid::new(2), Seqno::new(10), 1);
        log.begin(VbUuid::new(3), Seqno::new(20), 1);

        log.begin(VbUuid::new(4), Seqno::new(15), 1);

        let seen: Vec<_> = log
            .entries()
            .iter()
            .map(|e| (e.uuid.get(), e.seqno.get()))
            .collect();
        assert_eq!(seen, [(4, 15), (2, 10), (1, 0)]);

        for n in 0..40 {
            log.begin(VbUuid::new(100 + n), Seqno::new(15), 1);
        }
        assert_eq!(log.entries().len(), ENTRIES_MAX);
        assert_eq!(log.entries().first().map(|e| e.uuid.get()), Some(139));
    }

    #[test]
    fn the_record_round_trips_and_refuses_what_is_not_a_log() {
        let mut log = FailoverLog::new(VbUuid::new(1), 0);
        log.begin(VbUuid::new(2), Seqno::new(10), 1);
        let mut out = Vec::new();
        log.encode(VB, &mut out);

        assert_eq!(FailoverLog::decode(VB, &out), Ok(log.clone()));
        assert!(
            FailoverLog::decode(VbId::new(4), &out).is_err(),
            "a log of another vBucket"
        );

        log.entries.reverse();
        log.encode(VB, &mut out);
        assert_eq!(
            FailoverLog::decode(VB, &out),
            Err(RecordError(
                "a newer failover log entry has a lower seqno than an older one"
            ))
        );
        log.entries.clear();
        log.encode(VB, &mut out);
        assert!(FailoverLog::decode(VB, &out).is_err());
    }

    #[test]
    fn a_branch_is_due_from_an_unclean_stop_until_it_has_begun() {
        let mut log = FailoverLog::new(VbUuid::new(1), 3);
        assert!(!log.is_branch_due(3));
        assert!(log.is_branch_due(4));
        log.begin(VbUuid::new(2), Seqno::new(10), 5);
        assert!(!log.is_branch_due(5));
        let mut out = Vec::new();
        log.encode(VB, &mut out);
        let read = FailoverLog::decode(VB, &out).unwrap();
        assert!(!read.is_branch_due(5) && read.is_branch_due(6));
    }

    #[test]
    fn a_record_of_version_1_is_read() {
        let mut out = Vec::new();
        RecordWriter::versioned(&mut out, 0, 1)
            .u16(1)
            .u64(7)
            .u64(0)
            .seal(RecordLocation::Named(&FailoverLog::storage_key(VB)));
        assert_eq!(
            FailoverLog::decode(VB, &out),
            Ok(FailoverLog::new(VbUuid::new(7), 0))
        );
    }
}
