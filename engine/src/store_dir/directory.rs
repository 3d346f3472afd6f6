//! The directory of a store: its lock, its marker, and whether it is still at its path.

use super::identity::{FilesDigest, files_digest};
use super::lock::{Access, DirLock};
use super::marker::StoreMarker;
use super::names::{DB, LOCK, MARKER, MARKER_NEW, STORE_FILES, WITNESS, display_path};
use super::witness_file::write_synced;
use crate::error::{Error, Result};
use crate::process::OpenerProcess;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use vbstore_core::lock_order::LockRank;
use vbstore_core::sync::Mutex;
use vbstore_metrics::number;

/// A store's directory, locked.
///
/// A store is a directory, not a path. All files are reached through the descriptor that was opened
/// first. So the engine touches no file of another directory if this one is moved, replaced or
/// removed meanwhile.
pub(crate) struct StoreDir {
    /// The path as it was opened: for messages, and to check that it still leads to this directory.
    path: PathBuf,
    /// A path through the descriptor, which leads to this directory even after it was moved.
    inside: PathBuf,
    identity: (u64, u64),
    /// `None` once the engine is closed.
    lock: Mutex<Option<DirLock>>,
    opener: OpenerProcess,
    /// Keeps the descriptor open that `inside` goes through.
    descriptor: File,
}

impl StoreDir {
    /// Locks the directory. For [`Access::Write`], makes it first if it is missing (mode 0700).
    ///
    /// # Errors
    /// [`Error::Invalid`] for a path that is not a directory, or whose directory holds something
    /// else than a store; [`Error::NoStore`] for a directory without a store, with
    /// [`Access::Read`]; [`Error::Locked`]; [`Error::Io`].
    pub(crate) fn lock(path: &Path, access: Access) -> Result<Self> {
        if path.as_os_str().is_empty() {
            return Err(Error::invalid("path", "the path is empty"));
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
        // From here on nothing is reached by `path`, which may lead elsewhere at any time.
        let inside = path_through(&descriptor, identity).unwrap_or_else(|| path.clone());
        refuse_foreign(&inside, &path)?;
        let opener = OpenerProcess::current()?;
        let lock = DirLock::take(identity, &inside.join(LOCK), access, &opener)?;
        Ok(Self {
            path,
            inside,
            identity,
            lock: Mutex::new(LockRank::Leaf, Some(lock)),
            opener,
            descriptor,
        })
    }

    /// Identifies the process that locked the directory.
    pub(crate) fn opener(&self) -> OpenerProcess {
        self.opener.clone()
    }

    /// Checks that the directory was not moved, replaced, removed or emptied.
    ///
    /// # Errors
    /// [`Error::Failed`] with that cause. Any other reason why the path cannot be read is not an
    /// error: the directory is reached through its descriptor.
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

    /// Returns whether the directory still has the files that every store has.
    fn holds_a_store(&self) -> bool {
        let is_missing = |name| {
            let found = fs::symlink_metadata(self.inside.join(name));
            found.is_err_and(|e| e.kind() == ErrorKind::NotFound)
        };
        !is_missing(MARKER) && !is_missing(DB)
    }

    /// Releases the lock of the directory when the engine is closed.
    pub(crate) fn unlock(&self) {
        // Dropped after the mutex is released: the drop takes the lock of the table of open
        // directories.
        let lock = self.lock.lock().take();
        drop(lock);
    }

    /// Returns the number of free blocks of the file system, and of all its blocks.
    pub(crate) fn disk_blocks(&self) -> Result<(u64, u64)> {
        let space = rustix::fs::fstatvfs(&self.descriptor)
            .map_err(|e| Error::io("read the free space of the file system", e.into()))?;
        Ok((space.f_bavail, space.f_blocks))
    }

    /// Returns the share of the file system that is free, or `None` if it does not report its size.
    pub(crate) fn disk_free_ratio(&self) -> Result<Option<f64>> {
        let (free, all) = self.disk_blocks()?;
        Ok((all > 0).then(|| number(free) / number(all)))
    }

    pub(crate) fn db(&self) -> PathBuf {
        self.inside.join(DB)
    }

    /// Returns the path of the witness file.
    pub(crate) fn witness(&self) -> PathBuf {
        self.inside.join(WITNESS)
    }

    /// Returns the digest that identifies the files of the store, by which copies are detected.
    pub(crate) fn files_digest(&self) -> Result<FilesDigest> {
        files_digest(&self.inside, &self.db())
    }

    /// Returns the marker, or `None` if the directory is new. A directory also counts as new if it
    /// holds only what a creation leaves when it is interrupted before it writes the marker.
    pub(crate) fn marker(&self) -> Result<Option<StoreMarker>> {
        match fs::read(self.inside.join(MARKER)) {
            Ok(bytes) => StoreMarker::decode(&bytes).map(Some),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                if self.inside.join(DB).exists() || self.inside.join(WITNESS).exists() {
                    let detail = "the file is missing, but the directory holds the data of a store";
                    return Err(Error::corrupt_file(MARKER, detail));
                }
                Ok(None)
            }
            Err(e) => Err(Error::io(format!("read the marker {MARKER}"), e)),
        }
    }

    /// Replaces the marker. When this returns, the marker and its directory entry are synced.
    pub(crate) fn put_marker(&self, marker: &StoreMarker) -> Result<()> {
        let new = self.inside.join(MARKER_NEW);
        write_synced(&new, &marker.encode())?;
        // A rename replaces the marker at once: a crash leaves the old one or the new one.
        fs::rename(&new, self.inside.join(MARKER))
            .map_err(|e| Error::io(format!("replace the marker {MARKER}"), e))?;
        sync_dir(&self.inside)
    }

    /// Removes what an interrupted creation has left, and makes RocksDB's directory.
    ///
    /// The caller has put the marker "creating": nothing in this store was ever acknowledged.
    pub(crate) fn clear_for_creation(&self) -> Result<()> {
        let db = self.db();
        match fs::remove_dir_all(&db) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => {
                return Err(Error::io(format!("remove the incomplete store in {DB}"), e));
            }
        }
        let mut builder = fs::DirBuilder::new();
        builder
            .mode(0o700)
            .create(&db)
            .map_err(|e| Error::io(format!("make the data directory {DB}"), e))?;
        sync_dir(&self.inside)
    }

    /// Syncs the names of the files in the store's directory.
    pub(crate) fn sync(&self) -> Result<()> {
        sync_dir(&self.inside)
    }
}

/// Returns whether a directory has a marker.
///
/// # Errors
/// [`Error::Invalid`] for a path that is not a directory; [`Error::Io`] if the path cannot be read.
pub(crate) fn has_marker(path: &Path) -> Result<bool> {
    let marker = path.join(MARKER);
    marker.try_exists().map_err(|error| match error.kind() {
        ErrorKind::NotADirectory => not_a_directory(path),
        _ => Error::io(format!("look for {}", marker.display()), error),
    })
}

/// Makes the store's directory (mode 0700) and missing parents, if it is missing.
fn make_directory(path: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).map_err(|e| match e.kind() {
        // With `recursive` these errors mean that one component of the path is a file.
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory => not_a_directory(path),
        _ => Error::io(format!("make {}", path.display()), e),
    })
}

/// Returns a path that leads to an open directory even after it was moved, or `None` if the system
/// has no `/proc`.
fn path_through(descriptor: &File, identity: (u64, u64)) -> Option<PathBuf> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
    // Checked, in case `/proc` is not the usual file system.
    let found = fs::metadata(&path).ok()?;
    ((found.dev(), found.ino()) == identity).then_some(path)
}

fn not_a_directory(path: &Path) -> Error {
    Error::invalid(
        "path",
        format!("the path {} is not a directory", path.display()),
    )
}

/// Fails if the directory holds files but no store. Called before anything is written to it. `path`
/// is the directory's path for the error text.
fn refuse_foreign(dir: &Path, path: &Path) -> Result<()> {
    if dir.join(MARKER).exists() {
        return Ok(());
    }
    let context = || format!("list {}", path.display());
    for entry in fs::read_dir(dir).map_err(|e| Error::io(context(), e))? {
        let name = entry.map_err(|e| Error::io(context(), e))?.file_name();
        if !STORE_FILES.iter().any(|our| name == OsStr::new(our)) {
            let detail = format!(
                "the path {} is a directory that is not empty and holds no store",
                path.display()
            );
            return Err(Error::invalid("path", detail));
        }
    }
    Ok(())
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| Error::io(format!("sync {}", display_path(dir)), e))
}
