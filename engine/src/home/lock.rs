//! One engine that writes a store, or any number that read it.
//!
//! RocksDB's own lock lets the same process in through a symlink, and another process after its
//! LOCK file is unlinked (measured). Here: an flock on a file of ours, and a table of the
//! directories that this process has open, by device and inode, for the case that the file was
//! unlinked. What is left: another process after the lock file was unlinked by hand.
//!
//! An engine that writes takes the flock exclusively. One that reads takes it shared, on a descriptor
//! opened for reading, and writes nothing: not even its pid, so the one in the file may be that of an
//! engine that is long gone. A read-only RocksDB must not run beside one that writes, which removes
//! files under it.
//!
//! A copy of the store made of hard links shares the lock file until one of the two is opened to write. So
//! a reader of one keeps the other from being opened to write meanwhile.

use super::names::{LOCK, LOCK_NEW};
use crate::error::{Error, Result};
use crate::process::Opener;
use parking_lot::Mutex;
use rustix::fs::{FlockOperation, OFlags, flock};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// What a store is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// To write, by one engine alone.
    Write,
    /// To read, beside others that only read.
    Read,
}

/// How a directory is open in this process.
#[derive(Debug)]
enum OpenHere {
    ToWrite,
    /// By so many engines.
    ToRead(u64),
}

/// Directories open in this process, by device and inode. Process-wide by its purpose.
static OPEN_HERE: Mutex<BTreeMap<(u64, u64), OpenHere>> = Mutex::new(BTreeMap::new());

/// Holds a store's lock while it lives.
#[derive(Debug)]
pub(crate) struct DirLock {
    file: File,
    identity: (u64, u64),
    opener: Opener,
}

impl DirLock {
    /// Takes the lock of the directory with this device and inode, or says which process has it. Never
    /// waits.
    pub(crate) fn take(
        identity: (u64, u64),
        lock_file: &Path,
        access: Access,
        opener: &Opener,
    ) -> Result<Self> {
        // Held to the end, so that two threads cannot both find the table empty.
        let mut open_here = OPEN_HERE.lock();
        let readers = match (open_here.get(&identity), access) {
            (None, _) => 0,
            (Some(OpenHere::ToRead(readers)), Access::Read) => *readers,
            (Some(_), _) => {
                return Err(Error::Locked {
                    pid: Some(std::process::id()),
                });
            }
        };
        let (file, entry) = match access {
            Access::Write => (lock_to_write(lock_file)?, OpenHere::ToWrite),
            Access::Read => (lock_to_read(lock_file)?, OpenHere::ToRead(readers + 1)),
        };
        open_here.insert(identity, entry);
        Ok(Self {
            file,
            identity,
            opener: opener.clone(),
        })
    }
}

fn lock_to_write(lock_file: &Path) -> Result<File> {
    let mut file = lock_in_place(open(lock_file, false)?, lock_file, Access::Write)?;
    let links = file.metadata().map(|metadata| metadata.nlink());
    if links.map_err(|e| Error::io("look at the lock file", e))? > 1 {
        // A copy of the store made of hard links has the same file. Each gets one of its own; no other
        // process can have locked either meanwhile, since both are locked here. One that opened the old
        // file before finds, once it has the lock, that the file is not in place any more.
        let new = lock_file.with_file_name(LOCK_NEW);
        let mut own = open(&new, true)?;
        flock_now(&mut own, Access::Write)?;
        fs::rename(&new, lock_file).map_err(|e| Error::io("put the lock file", e))?;
        file = own;
    }
    write_pid(&mut file).map_err(|e| Error::io("write the lock file", e))?;
    Ok(file)
}

fn lock_to_read(lock_file: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(no_follow())
        .open(lock_file);
    match file {
        Ok(file) => lock_in_place(file, lock_file, Access::Read),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let detail = format!(
                "the store's file {LOCK} is missing, and a read-only open makes none; open the store \
                 once to write"
            );
            Err(Error::invalid("read_only", detail))
        }
        Err(e) => Err(Error::io("open the lock file", e)),
    }
}

/// Locks a lock file that was opened, and looks whether it is still the one at the path: a process that
/// writes may have put a file of its own there since, and have that one locked.
///
/// # Errors
/// [`Error::Locked`], also if the file is not in place any more; [`Error::Io`].
fn lock_in_place(mut file: File, lock_file: &Path, access: Access) -> Result<File> {
    flock_now(&mut file, access)?;
    let context = |e| Error::io("look at the lock file", e);
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

fn no_follow() -> i32 {
    i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0)
}

/// Opens a lock file to write; a new one if `anew`, whatever a process that died has left there.
fn open(path: &Path, anew: bool) -> Result<File> {
    let context = |e| Error::io("open the lock file", e);
    if anew {
        match fs::remove_file(path) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(context(e)),
            _ => {}
        }
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
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
        Err(e) => Err(Error::io("lock the store", e.into())),
    }
}

/// Returns the process that has the lock, if it said so. One that reads has not: where the lock can be
/// shared, the pid in the file is an older one's.
fn holder(file: &mut File) -> Option<u32> {
    if flock(&*file, FlockOperation::NonBlockingLockShared).is_ok() {
        // Not left to closing the file, as in `DirLock::drop`.
        let _ = flock(&*file, FlockOperation::Unlock);
        return None;
    }
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
            // The flock is shared with the process that opened the store.
            return;
        }
        // Not left to closing the file: another thread of the program may just be starting a process,
        // which has a copy of the descriptor, and with it the flock, until it is another program.
        if let Err(error) = flock(&self.file, FlockOperation::Unlock) {
            tracing::warn!(%error, "the lock is given back with the file");
        }
        // ORDER: after it, so that a thread that finds the table empty finds the file free.
        let mut open_here = OPEN_HERE.lock();
        match open_here.get_mut(&self.identity) {
            Some(OpenHere::ToRead(readers)) if *readers > 1 => *readers -= 1,
            _ => drop(open_here.remove(&self.identity)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_file_that_was_replaced_since_it_was_opened_is_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        let (path, new) = (dir.path().join("lock"), dir.path().join("lock.new"));
        for access in [Access::Write, Access::Read] {
            let before = open(&path, false).unwrap();
            drop(lock_in_place(before, &path, access).unwrap());
            // Opened, and not locked yet, when another process puts its own there.
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
