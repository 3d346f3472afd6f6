//! The directory of a store: whose it is, and in which state.

use super::identity::{FilesDigest, files_digest};
use super::lock::{Access, DirLock};
use super::marker::Marker;
use super::names::{DB, LOCK, MARKER, MARKER_NEW, OURS, WITNESS};
use super::witness_file::write_synced;
use crate::error::{Error, Result};
use crate::process::Opener;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use vbstore_core::lock_order::Rank;
use vbstore_core::sync::Mutex;
use vbstore_metrics::number;

/// A store's directory, locked. A store is a directory, not a path: everything in it is reached through
/// the descriptor that was opened first, so that no file of another directory is touched if this one is
/// moved, replaced or removed meanwhile.
pub(crate) struct Home {
    /// For messages, and to see whether it still leads to the directory.
    path: PathBuf,
    /// Leads to the directory whatever becomes of its path.
    inside: PathBuf,
    identity: (u64, u64),
    /// `None` once the engine is closed.
    lock: Mutex<Option<DirLock>>,
    opener: Opener,
    /// Kept open as long as `inside` is used.
    descriptor: File,
}

impl Home {
    /// Locks the directory. To write, makes it if it is missing (mode 0700).
    ///
    /// # Errors
    /// [`Error::Invalid`] for a path that is no directory, or is one that holds something else than a
    /// store; [`Error::NoStore`] for one to read that holds none; [`Error::Locked`]; [`Error::Io`].
    pub(crate) fn lock(path: &Path, access: Access) -> Result<Self> {
        if path.as_os_str().is_empty() {
            return Err(Error::invalid("path", "it is empty"));
        }
        match access {
            Access::Write => make_directory(path)?,
            Access::Read if has_marker(path)? => {}
            Access::Read => return Err(Error::NoStore { path: path.into() }),
        }
        let context = || format!("open {}", path.display());
        let path = fs::canonicalize(path).map_err(|e| Error::io(context(), e))?;
        let descriptor = File::open(&path).map_err(|e| Error::io(context(), e))?;
        let metadata = descriptor.metadata().map_err(|e| Error::io(context(), e))?;
        if !metadata.is_dir() {
            return Err(not_a_directory(&path));
        }
        let identity = (metadata.dev(), metadata.ino());
        let inside = path_through(&descriptor, identity).unwrap_or_else(|| path.clone());
        refuse_foreign(&inside, &path)?;
        let opener = Opener::this()?;
        let lock = DirLock::take(identity, &inside.join(LOCK), access, &opener)?;
        Ok(Self {
            path,
            inside,
            identity,
            lock: Mutex::new(Rank::Leaf, Some(lock)),
            opener,
            descriptor,
        })
    }

    /// Returns the process that locked the directory.
    pub(crate) fn opener(&self) -> Opener {
        self.opener.clone()
    }

    /// Refuses if the directory was moved, replaced or removed.
    ///
    /// # Errors
    /// [`Error::Failed`] with that cause. Whatever else keeps the path from being looked at is no error:
    /// the directory is reached through its descriptor.
    pub(crate) fn check(&self) -> Result<()> {
        let found = fs::metadata(&self.path);
        let what = match &found {
            Ok(found) if (found.dev(), found.ino()) != self.identity => "moved or replaced",
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                "moved or removed"
            }
            _ if !self.holds_a_store() => "emptied",
            _ => return Ok(()),
        };
        let path = self.path.display();
        let cause = format!("the directory {path} was {what} while the store was open");
        Err(Error::failed(cause))
    }

    /// Returns whether the directory still holds what every store has.
    fn holds_a_store(&self) -> bool {
        let is_missing = |name| {
            let found = fs::symlink_metadata(self.inside.join(name));
            found.is_err_and(|e| e.kind() == ErrorKind::NotFound)
        };
        !is_missing(MARKER) && !is_missing(DB)
    }

    /// Releases the lock of the directory: the engine is closed.
    pub(crate) fn unlock(&self) {
        let lock = self.lock.lock().take();
        drop(lock);
    }

    /// Returns how many blocks of the file system are free, and how many there are.
    pub(crate) fn disk_blocks(&self) -> Result<(u64, u64)> {
        let space = rustix::fs::fstatvfs(&self.descriptor)
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
        self.inside.join(DB)
    }

    /// Returns the path of the witness.
    pub(crate) fn witness(&self) -> PathBuf {
        self.inside.join(WITNESS)
    }

    /// Returns a digest of which files the store consists of.
    pub(crate) fn files_digest(&self) -> Result<FilesDigest> {
        files_digest(&self.inside, &self.db())
    }

    /// Returns the marker, or `None` if the directory is new: it holds nothing but what a creation
    /// that was cut short before its marker can have left.
    pub(crate) fn marker(&self) -> Result<Option<Marker>> {
        match fs::read(self.inside.join(MARKER)) {
            Ok(bytes) => Marker::decode(&bytes).map(Some),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                if self.inside.join(DB).exists() || self.inside.join(WITNESS).exists() {
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
        let new = self.inside.join(MARKER_NEW);
        write_synced(&new, &marker.encode())?;
        fs::rename(&new, self.inside.join(MARKER)).map_err(|e| Error::io("put the marker", e))?;
        sync_dir(&self.inside)
    }

    /// Removes what a creation that was cut short has left, and makes RocksDB's directory.
    pub(crate) fn clear_for_creation(&self) -> Result<()> {
        let db = self.db();
        match fs::remove_dir_all(&db) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("remove a half-made store", e)),
        }
        let mut builder = fs::DirBuilder::new();
        builder
            .mode(0o700)
            .create(&db)
            .map_err(|e| Error::io("make the data directory", e))?;
        sync_dir(&self.inside)
    }

    /// Makes names in the store's directory durable.
    pub(crate) fn sync(&self) -> Result<()> {
        sync_dir(&self.inside)
    }
}

/// Returns whether a directory has a marker.
///
/// # Errors
/// [`Error::Invalid`] for a path that is no directory; [`Error::Io`] if that cannot be found out.
pub(crate) fn has_marker(path: &Path) -> Result<bool> {
    let marker = path.join(MARKER);
    marker.try_exists().map_err(|error| match error.kind() {
        ErrorKind::NotADirectory => not_a_directory(path),
        _ => Error::io(format!("look for {}", marker.display()), error),
    })
}

/// Makes the store's directory (mode 0700), with those above it, if it is missing.
fn make_directory(path: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).map_err(|e| match e.kind() {
        // Only a file in its place, or in that of a directory above it.
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory => not_a_directory(path),
        _ => Error::io(format!("make {}", path.display()), e),
    })
}

/// Returns a path that leads to an open directory whatever becomes of its name, if the system has one.
fn path_through(descriptor: &File, identity: (u64, u64)) -> Option<PathBuf> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
    let found = fs::metadata(&path).ok()?;
    ((found.dev(), found.ino()) == identity).then_some(path)
}

fn not_a_directory(path: &Path) -> Error {
    Error::invalid("path", format!("{} is not a directory", path.display()))
}

/// Refuses a directory that holds files and is no store, before anything is put there. `path` is its
/// name.
fn refuse_foreign(dir: &Path, path: &Path) -> Result<()> {
    if dir.join(MARKER).exists() {
        return Ok(());
    }
    let context = || format!("list {}", path.display());
    for entry in fs::read_dir(dir).map_err(|e| Error::io(context(), e))? {
        let name = entry.map_err(|e| Error::io(context(), e))?.file_name();
        if !OURS.iter().any(|our| name == OsStr::new(our)) {
            let detail = format!("{} is not a store, and not empty", path.display());
            return Err(Error::invalid("path", detail));
        }
    }
    Ok(())
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| Error::io(format!("sync {}", dir.display()), e))
}
