//! The directory of a store: whose it is, and in which state.

use super::identity::{FilesDigest, files_digest};
use super::lock::DirLock;
use super::marker::Marker;
use super::names::{DB, LOCK, MARKER, MARKER_NEW, WITNESS};
use super::witness_file::write_synced;
use crate::error::{Error, Result};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use vbstore_core::lock_order::Rank;
use vbstore_core::sync::Mutex;
use vbstore_metrics::number;

/// A store's directory, locked.
pub(crate) struct Home {
    dir: PathBuf,
    /// `None` once the engine is closed.
    lock: Mutex<Option<DirLock>>,
}

impl Home {
    /// Makes the directory if it is missing (mode 0700) and locks it.
    pub(crate) fn lock(path: &Path) -> Result<Self> {
        if path.as_os_str().is_empty() {
            return Err(Error::invalid("path", "empty"));
        }
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder
            .create(path)
            .map_err(|e| Error::io(format!("make {}", path.display()), e))?;
        let dir = fs::canonicalize(path)
            .map_err(|e| Error::io(format!("resolve {}", path.display()), e))?;
        refuse_foreign(&dir)?;
        let lock = DirLock::take(&dir, &dir.join(LOCK))?;
        Ok(Self {
            dir,
            lock: Mutex::new(Rank::Leaf, Some(lock)),
        })
    }

    /// Releases the lock of the directory: the engine is closed.
    pub(crate) fn unlock(&self) {
        let lock = self.lock.lock().take();
        drop(lock);
    }

    /// Returns how many blocks of the file system are free, and how many there are.
    pub(crate) fn disk_blocks(&self) -> Result<(u64, u64)> {
        let space = rustix::fs::statvfs(self.db())
            .map_err(|e| Error::io("ask for the free space", e.into()))?;
        Ok((space.f_bavail, space.f_blocks))
    }

    /// Returns which share of the file system is free, or `None` if it does not say how large it is.
    pub(crate) fn disk_free_ratio(&self) -> Result<Option<f64>> {
        let (free, all) = self.disk_blocks()?;
        Ok((all > 0).then(|| number(free) / number(all)))
    }

    /// Returns RocksDB's directory.
    pub(crate) fn db(&self) -> PathBuf {
        self.dir.join(DB)
    }

    /// Returns the path of the witness.
    pub(crate) fn witness(&self) -> PathBuf {
        self.dir.join(WITNESS)
    }

    /// Returns a digest of which files the store consists of.
    pub(crate) fn files_digest(&self) -> Result<FilesDigest> {
        files_digest(&self.dir, &self.db())
    }

    /// Returns the marker, or `None` if the directory is new: it holds nothing but what a creation
    /// that was cut short before its marker can have left.
    pub(crate) fn marker(&self) -> Result<Option<Marker>> {
        match fs::read(self.dir.join(MARKER)) {
            Ok(bytes) => Marker::decode(&bytes).map(Some),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                if self.dir.join(DB).exists() || self.dir.join(WITNESS).exists() {
                    let detail = "missing, though the directory holds the data of a store";
                    return Err(Error::corrupt_file(MARKER, detail));
                }
                Ok(None)
            }
            Err(e) => Err(Error::io("read the marker", e)),
        }
    }

    /// Puts a marker in place of whatever there is, synced with its directory.
    pub(crate) fn put_marker(&self, marker: &Marker) -> Result<()> {
        let new = self.dir.join(MARKER_NEW);
        write_synced(&new, &marker.encode())?;
        fs::rename(&new, self.dir.join(MARKER)).map_err(|e| Error::io("put the marker", e))?;
        sync_dir(&self.dir)
    }

    /// Removes what a creation that was cut short has left, and makes RocksDB's directory.
    pub(crate) fn clear_for_creation(&self) -> Result<()> {
        let db = self.db();
        match fs::remove_dir_all(&db) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("remove a half-made store", e)),
        }
        let mut builder = fs::DirBuilder::new();
        builder
            .mode(0o700)
            .create(&db)
            .map_err(|e| Error::io("make the data directory", e))?;
        sync_dir(&self.dir)
    }

    /// Makes names in the store's directory durable.
    pub(crate) fn sync(&self) -> Result<()> {
        sync_dir(&self.dir)
    }
}

/// Refuses a directory that holds files and is no store, before anything is put there.
fn refuse_foreign(dir: &Path) -> Result<()> {
    let ours = [MARKER, MARKER_NEW, LOCK, WITNESS, DB];
    if dir.join(MARKER).exists() {
        return Ok(());
    }
    let context = || format!("list {}", dir.display());
    for entry in fs::read_dir(dir).map_err(|e| Error::io(context(), e))? {
        let name = entry.map_err(|e| Error::io(context(), e))?.file_name();
        if !ours.iter().any(|our| name == OsStr::new(our)) {
            let detail = format!("{} is not a store, and not empty", dir.display());
            return Err(Error::invalid("path", detail));
        }
    }
    Ok(())
}

fn sync_dir(dir: &Path) -> Result<()> {
    fs::File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| Error::io(format!("sync {}", dir.display()), e))
}
