//! The witness's file: two slots, overwritten in place and in turn.

use super::identity::FilesDigest;
use super::lock::Access;
use super::names::{WITNESS, WITNESS_NEW};
use crate::error::{Error, Result};
use crate::numbers::count;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use vbstore_core::StoreUuid;
use vbstore_core::witness::{FILE_LEN, SLOT_LEN, Witness};

/// The open witness. One thread at a time, the one that leads the flush, writes to it.
#[derive(Debug)]
pub(crate) struct WitnessFile {
    file: File,
    newest: Witness,
    is_synced: bool,
}

impl WitnessFile {
    /// Makes a new one, in place of whatever there is. Both slots are written, so that no later
    /// write needs space that a full disk does not have.
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
            .map_err(|e| Error::io("open the witness", e))?;
        Ok(Self {
            file,
            newest,
            is_synced: true,
        })
    }

    /// Opens an existing one. With [`Access::Read`] nothing can be recorded in it.
    pub(crate) fn open(path: &Path, store: StoreUuid, access: Access) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(access == Access::Write);
        let mut file = match options.open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::corrupt_file(WITNESS, "missing"));
            }
            Err(e) => return Err(Error::io("open the witness", e)),
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .map_err(|e| Error::io("read the witness", e))?;
        let newest = Witness::newest(&bytes)
            .ok_or_else(|| Error::corrupt_file(WITNESS, "no slot can be read"))?;
        if newest.store != store {
            return Err(Error::corrupt_file(WITNESS, "belongs to another store"));
        }
        Ok(Self {
            file,
            newest,
            is_synced: true,
        })
    }

    /// Puts a new file with the same content in place of this one, synced: a copy of the store that was
    /// made of hard links keeps the old one. The caller syncs the directory. Fails, on a full disk for
    /// example, without having changed anything.
    pub(crate) fn renew(self, path: &Path) -> Result<Self> {
        let mut bytes = fs::read(path).map_err(|e| Error::io("read the witness", e))?;
        // Both slots, as in a new one.
        bytes.resize(FILE_LEN, 0);
        let new = path.with_file_name(WITNESS_NEW);
        write_synced(&new, &bytes)
            .and_then(|()| {
                let put = fs::rename(&new, path);
                put.map_err(|e| Error::io("put the witness", e))
            })
            .inspect_err(|_| drop(fs::remove_file(&new)))?;
        Self::open(path, self.newest.store, Access::Write)
    }

    /// Returns what was written last.
    pub(crate) fn newest(&self) -> Witness {
        self.newest
    }

    /// Records with everything that is written from now on which files the store consists of.
    pub(crate) fn note_files(&mut self, files: FilesDigest) {
        self.newest.files_digest = files.get();
    }

    /// Writes that everything up to `rocks_sequence` is synced. A `clean_digest` other than 0
    /// says in which state the data files were left by a clean close.
    pub(crate) fn record(&mut self, rocks_sequence: u64, clean_digest: u64) -> Result<()> {
        let generation = self.newest.generation + 1;
        let next = Witness {
            generation,
            rocks_sequence,
            clean_digest,
            ..self.newest
        };
        self.file
            .write_all_at(&next.encode(), next.slot() * count(SLOT_LEN))
            .map_err(|e| Error::io("write the witness", e))?;
        self.newest = next;
        self.is_synced = false;
        Ok(())
    }

    /// Syncs what was recorded, if anything was since the last time.
    pub(crate) fn sync(&mut self) -> Result<()> {
        if !self.is_synced {
            self.file
                .sync_data()
                .map_err(|e| Error::io("sync the witness", e))?;
            self.is_synced = true;
        }
        Ok(())
    }

    /// Returns a second handle of the file to sync without holding up whoever records, or `None`
    /// if nothing was recorded since the last sync.
    pub(crate) fn take_unsynced(&mut self) -> Result<Option<File>> {
        if self.is_synced {
            return Ok(None);
        }
        let file = self
            .file
            .try_clone()
            .map_err(|e| Error::io("sync the witness", e))?;
        self.is_synced = true;
        Ok(Some(file))
    }
}

/// Writes a file of ours (mode 0600) and syncs it.
pub(super) fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let context = || format!("write {}", path.display());
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
