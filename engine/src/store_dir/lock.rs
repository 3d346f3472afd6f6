//! The lock of a store: one engine that writes it, or any number of engines that read it.
//!
//! RocksDB's own lock is not enough: it admits the same process again through a symlink, and
//! another process after its LOCK file was unlinked (measured). This lock is an flock on a file of
//! the store, and a table of the directories that this process has open. The table uses device and
//! inode, so it holds even if the lock file was unlinked. One case is not covered: if a user
//! unlinks the lock file, another process can open the store.
//!
//! An engine that writes takes the flock exclusively, and writes its pid to the file. An engine
//! that reads takes it shared, on a descriptor opened for reading. It writes nothing, so the pid in
//! the file may be that of an engine that is gone. A read-only RocksDB must not run beside one that
//! writes and removes files.
//!
//! A copy of the store made of hard links shares the lock file until one of the two is opened to
//! write. Until then, a reader of one keeps the other from being opened to write.

use super::names::{LOCK, LOCK_NEW};
use crate::error::{Error, Result};
use crate::process::OpenerProcess;
use parking_lot::Mutex;
use rustix::fs::{FlockOperation, OFlags, flock};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// The kind of access that a store is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// To write, by one engine alone.
    Write,
    /// To read, by any number of engines.
    Read,
}

/// How this process has opened a directory.
#[derive(Debug)]
enum ProcessLock {
    ToWrite,
    /// By this number of engines.
    ToRead(u64),
}

/// The directories that this process has open, by device and inode. Global, because it must cover
/// all engines of the process.
static OPEN_DIRECTORIES: Mutex<BTreeMap<(u64, u64), ProcessLock>> = Mutex::new(BTreeMap::new());

/// Holds the lock of a store until it is dropped.
#[derive(Debug)]
pub(crate) struct DirLock {
    file: File,
    identity: (u64, u64),
    opener: OpenerProcess,
}

impl DirLock {
    /// Takes the lock of the directory with this device and inode. Never waits.
    ///
    /// # Errors
    /// [`Error::Locked`], with the pid of the process that has the lock, if it is known;
    /// [`Error::Io`].
    pub(crate) fn take(
        identity: (u64, u64),
        lock_file: &Path,
        access: Access,
        opener: &OpenerProcess,
    ) -> Result<Self> {
        // Locked until this returns, so that two threads cannot both find the directory missing
        // from the table.
        let mut open_directories = OPEN_DIRECTORIES.lock();
        let readers = match (open_directories.get(&identity), access) {
            (None, _) => 0,
            (Some(ProcessLock::ToRead(readers)), Access::Read) => *readers,
            (Some(_), _) => {
                return Err(Error::Locked {
                    pid: Some(std::process::id()),
                });
            }
        };
        let (file, entry) = match access {
            Access::Write => (lock_to_write(lock_file)?, ProcessLock::ToWrite),
            Access::Read => (lock_to_read(lock_file)?, ProcessLock::ToRead(readers + 1)),
        };
        open_directories.insert(identity, entry);
        Ok(Self {
            file,
            identity,
            opener: opener.clone(),
        })
    }
}

/// Locks the file exclusively, and writes the pid of this process to it. Makes a file of its own
/// for a store that shares it with a copy.
fn lock_to_write(lock_file: &Path) -> Result<File> {
    let mut file = lock_in_place(open(lock_file, false)?, lock_file, Access::Write)?;
    let links = file.metadata().map(|metadata| metadata.nlink());
    if links.map_err(|e| Error::io(format!("read the number of links of {LOCK}"), e))? > 1 {
        // A copy of the store made of hard links has the same lock file. Each of the two gets a
        // file of its own. No other process can have locked the old or the new file meanwhile,
        // because this process has both locked. A process that has opened the old file may lock it
        // later. `lock_in_place` then finds that another file is at the path.
        let new = lock_file.with_file_name(LOCK_NEW);
        let mut own = open(&new, true)?;
        flock_now(&mut own, Access::Write)?;
        fs::rename(&new, lock_file)
            .map_err(|e| Error::io(format!("replace the lock file {LOCK}"), e))?;
        file = own;
    }
    write_pid(&mut file).map_err(|e| Error::io(format!("write the lock file {LOCK}"), e))?;
    Ok(file)
}

/// Locks the file shared. Neither creates it nor writes to it.
fn lock_to_read(lock_file: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(no_follow())
        .open(lock_file);
    match file {
        Ok(file) => lock_in_place(file, lock_file, Access::Read),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let detail = format!(
                "the store's lock file {LOCK} is missing, and a read-only open does not create it; \
                 open the store to write once"
            );
            Err(Error::invalid("read_only", detail))
        }
        Err(e) => Err(Error::io(format!("open the lock file {LOCK}"), e)),
    }
}

/// Locks an open lock file, and checks that it is still the one at the path. A process that writes
/// may have replaced it since it was opened, and have locked the new one.
///
/// # Errors
/// [`Error::Locked`] if the file is locked, or is not at the path any more; [`Error::Io`].
fn lock_in_place(mut file: File, lock_file: &Path, access: Access) -> Result<File> {
    flock_now(&mut file, access)?;
    let context = |e| Error::io(format!("read the inode of {LOCK}"), e);
    let locked = file.metadata().map_err(context)?;
    let in_place = match fs::symlink_metadata(lock_file) {
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        found => Some(found.map_err(context)?),
    };
    let same = |place: &fs::Metadata| (place.dev(), place.ino()) == (locked.dev(), locked.ino());
    if in_place.as_ref().is_some_and(same) {
        Ok(file)
    } else {
        Err(Error::Locked { pid: None })
    }
}

/// Returns the flag that makes the open of a symlink fail.
fn no_follow() -> i32 {
    i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0)
}

/// Opens a lock file to write, and makes it if it is missing. With `new_file`, first removes a file
/// that a killed process may have left there.
fn open(path: &Path, new_file: bool) -> Result<File> {
    let context = |e| Error::io(format!("open the lock file {LOCK}"), e);
    if new_file {
        match fs::remove_file(path) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(context(e)),
            _ => {}
        }
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        // The content is the pid of the process that has the lock, which `holder` reads.
        .truncate(false)
        .mode(0o600)
        .custom_flags(no_follow())
        .open(path)
        .map_err(context)
}

fn flock_now(file: &mut File, access: Access) -> Result<()> {
    let operation = match access {
        Access::Write => FlockOperation::NonBlockingLockExclusive,
        Access::Read => FlockOperation::NonBlockingLockShared,
    };
    match flock(&*file, operation) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Locked { pid: holder(file) }),
        Err(e) => Err(Error::io(format!("lock {LOCK}"), e.into())),
    }
}

/// Returns the process that has the lock, or `None` if it is not known. If a shared lock is
/// possible, only readers have it, and the pid in the file is that of an older engine.
fn holder(file: &mut File) -> Option<u32> {
    if flock(&*file, FlockOperation::NonBlockingLockShared).is_ok() {
        // Unlocked explicitly, for the reason given in `DirLock::drop`.
        let _ = flock(&*file, FlockOperation::Unlock);
        return None;
    }
    // `None` if the holder is just writing its pid. That is harmless, because only the error text
    // uses it.
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

impl Drop for DirLock {
    fn drop(&mut self) {
        if self.opener.check_id().is_err() {
            // In a fork. The flock is shared with the process that opened the store, and must stay.
            return;
        }
        // Unlocked explicitly, because closing the file may not be enough. While another thread
        // starts a child process, the child has a copy of the descriptor until it executes its
        // program, and would keep the flock.
        if let Err(error) = flock(&self.file, FlockOperation::Unlock) {
            tracing::warn!(%error, "cannot unlock the store: its lock is released with the file");
        }
        // ORDER: removed from the table after the unlock, so that a thread that does not find the
        // directory in the table finds the file unlocked.
        let mut open_directories = OPEN_DIRECTORIES.lock();
        match open_directories.get_mut(&self.identity) {
            Some(ProcessLock::ToRead(readers)) if *readers > 1 => *readers -= 1,
            _ => drop(open_directories.remove(&self.identity)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_file_that_was_replaced_since_it_was_opened_is_not_a_lock() {
        let dir = tempfile::tempdir().unwrap();
        let (path, new) = (dir.path().join("lock"), dir.path().join("lock.new"));
        for access in [Access::Write, Access::Read] {
            let before = open(&path, false).unwrap();
            drop(lock_in_place(before, &path, access).unwrap());
            // Opened, but not locked yet, when another process puts its own file there.
            let late = open(&path, false).unwrap();
            let own = open(&new, true).unwrap();
            fs::rename(&new, &path).unwrap();
            let refused = lock_in_place(late, &path, access);
            assert!(
                matches!(refused, Err(Error::Locked { pid: None })),
                "{refused:?}"
            );
            drop(lock_in_place(own, &path, access).unwrap());
            let removed = open(&path, false).unwrap();
            fs::remove_file(&path).unwrap();
            let refused = lock_in_place(removed, &path, access);
            assert!(matches!(refused, Err(Error::Locked { .. })), "{refused:?}");
        }
    }
}
