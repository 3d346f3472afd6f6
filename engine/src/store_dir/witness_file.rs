//! The witness file: two slots, which are overwritten in place, alternately.

use super::identity::FilesDigest;
use super::lock::Access;
use super::names::{WITNESS, WITNESS_NEW, display_path};
use crate::error::{Error, Result};
use crate::numbers::count;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use vbstore_core::StoreUuid;
use vbstore_core::witness::{FILE_LEN, SLOT_LEN, Witness};

/// The open witness file. It is written by one thread at a time: the flush leader, or the thread
/// that opens or closes the store.
#[derive(Debug)]
pub(crate) struct WitnessFile {
    file: Arc<File>,
    newest: Witness,
    /// The generation up to which records are known to be synced.
    synced: u64,
}

/// A record that is not synced yet. Syncing it needs no access to the [`WitnessFile`], so another
/// thread can write the next record meanwhile.
#[derive(Debug)]
pub(crate) struct UnsyncedRecord {
    file: Arc<File>,
    generation: u64,
}

impl UnsyncedRecord {
    /// Syncs the file. The caller then calls [`WitnessFile::note_synced`].
    pub(crate) fn sync(&self) -> Result<()> {
        let synced = self.file.sync_data();
        synced.map_err(|e| Error::io(format!("sync {WITNESS}"), e))
    }
}

impl WitnessFile {
    /// Makes a new witness file, or replaces the existing one. Both slots are allocated at once, so
    /// that no later write needs space on a full disk.
    pub(crate) fn create(path: &Path, store: StoreUuid) -> Result<Self> {
        let newest = Witness {
            store,
            generation: 0,
            rocks_sequence: 0,
            clean_digest: 0,
            files_digest: 0,
        };
        let mut bytes = newest.encode().to_vec();
        bytes.resize(FILE_LEN, 0);
        write_synced(path, &bytes)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|e| Error::io(format!("open {WITNESS}"), e))?;
        Ok(Self::synced(file, newest))
    }

    /// Wraps a file whose whole content is synced.
    fn synced(file: File, newest: Witness) -> Self {
        Self {
            file: Arc::new(file),
            newest,
            synced: newest.generation,
        }
    }

    /// Opens an existing witness file. With [`Access::Read`] no record can be made.
    pub(crate) fn open(path: &Path, store: StoreUuid, access: Access) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(access == Access::Write);
        let mut file = match options.open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::corrupt_file(WITNESS, "the file is missing"));
            }
            Err(e) => return Err(Error::io(format!("open {WITNESS}"), e)),
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .map_err(|e| Error::io(format!("read {WITNESS}"), e))?;
        let newest = Witness::newest(&bytes)
            .ok_or_else(|| Error::corrupt_file(WITNESS, "neither of its two slots is valid"))?;
        if newest.store != store {
            return Err(Error::corrupt_file(
                WITNESS,
                "the file belongs to another store",
            ));
        }
        Ok(Self::synced(file, newest))
    }

    /// Replaces the file by a new one with the same content, synced. A copy of the store that was
    /// made of hard links keeps the old one, so that the two stores do not overwrite each other's
    /// records. The caller syncs the directory. A failure, on a full disk for example, changes
    /// nothing.
    pub(crate) fn renew(self, path: &Path) -> Result<Self> {
        let mut bytes = fs::read(path).map_err(|e| Error::io(format!("read {WITNESS}"), e))?;
        // Both slots are allocated, as in `create`.
        bytes.resize(FILE_LEN, 0);
        let new = path.with_file_name(WITNESS_NEW);
        write_synced(&new, &bytes)
            .and_then(|()| {
                let put = fs::rename(&new, path);
                put.map_err(|e| Error::io(format!("replace {WITNESS}"), e))
            })
            .inspect_err(|_| drop(fs::remove_file(&new)))?;
        Self::open(path, self.newest.store, Access::Write)
    }

    /// Returns the newest record.
    pub(crate) fn newest(&self) -> Witness {
        self.newest
    }

    /// Sets the digest of the store's files for all records from now on.
    pub(crate) fn note_files(&mut self, files: FilesDigest) {
        self.newest.files_digest = files.get();
    }

    /// Records that everything up to `rocks_sequence` is synced. A `clean_digest` other than 0 is
    /// the digest of the data files after a clean close. The record itself is not synced yet.
    pub(crate) fn record(&mut self, rocks_sequence: u64, clean_digest: u64) -> Result<()> {
        // The generation selects the slot, so the previous record stays intact if this write is
        // torn.
        let generation = self.newest.generation + 1;
        let next = Witness {
            generation,
            rocks_sequence,
            clean_digest,
            ..self.newest
        };
        self.file
            .write_all_at(&next.encode(), next.slot() * count(SLOT_LEN))
            .map_err(|e| Error::io(format!("write {WITNESS}"), e))?;
        self.newest = next;
        Ok(())
    }

    /// Syncs the file, unless the newest record is synced already.
    pub(crate) fn sync(&mut self) -> Result<()> {
        if let Some(record) = self.unsynced() {
            record.sync()?;
            self.note_synced(&record);
        }
        Ok(())
    }

    /// Returns the newest record, or `None` if it is known to be synced.
    pub(crate) fn unsynced(&self) -> Option<UnsyncedRecord> {
        (self.synced < self.newest.generation).then(|| UnsyncedRecord {
            file: Arc::clone(&self.file),
            generation: self.newest.generation,
        })
    }

    /// Notes that a record is synced, and with it all records before it.
    pub(crate) fn note_synced(&mut self, record: &UnsyncedRecord) {
        self.synced = self.synced.max(record.generation);
    }
}

/// Writes a file with mode 0600, and syncs it.
pub(super) fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let context = || format!("write {}", display_path(path));
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .map_err(|e| Error::io(context(), e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, memfd_create};

    #[test]
    fn a_record_is_unsynced_until_its_own_sync_is_noted() {
        let file = memfd_create("witness", MemfdFlags::CLOEXEC).unwrap();
        let newest = Witness {
            store: StoreUuid::new([1; 16]),
            generation: 0,
            rocks_sequence: 0,
            clean_digest: 0,
            files_digest: 0,
        };
        let mut witness = WitnessFile::synced(file.into(), newest);
        assert!(witness.unsynced().is_none(), "nothing was recorded");
        witness.record(1, 0).unwrap();
        // A sync that fails is not noted.
        drop(witness.unsynced().unwrap());
        let first = witness.unsynced().unwrap();
        first.sync().unwrap();
        witness.record(2, 0).unwrap();
        witness.note_synced(&first);
        assert!(witness.unsynced().is_some(), "recorded during the sync");
        witness.sync().unwrap();
        assert!(witness.unsynced().is_none());
        witness.note_synced(&first);
        assert!(witness.unsynced().is_none());
    }
}
