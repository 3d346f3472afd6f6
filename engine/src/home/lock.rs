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
    let mut file = open(lock_file, false)?;
    flock_now(&mut file, Access::Write)?;
    let links = file.metadata().map(|metadata| metadata.nlink());
    if links.map_err(|e| Error::io("look at the lock file", e))? > 1 {
        // A copy of the store made of hard links has the same file. Each gets one of its own; nobody
        // else can have locked either meanwhile, since both are locked here.
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
    let mut file = match file {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let detail = format!(
                "the store's file {LOCK} is missing, and a read-only open makes none; open the store \
                 once to write"
            );
            return Err(Error::invalid("read_only", detail));
        }
        Err(e) => return Err(Error::io("open the lock file", e)),
    };
    flock_now(&mut file, Access::Read)?;
    let context = |e| Error::io("look at the lock file", e);
    let locked = file.metadata().map_err(context)?;
    let in_place = fs::metadata(lock_file).map_err(context)?;
    if (locked.dev(), locked.ino()) != (in_place.dev(), in_place.ino()) {
        // An engine that writes has just put a file of its own in place of the one that was opened.
        return Err(Error::Locked { pid: None });
    }
    Ok(file)
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
        // ORDER: after it, so that whoever finds the table empty finds the file free.
        let mut open_here = OPEN_HERE.lock();
        match open_here.get_mut(&self.identity) {
            Some(OpenHere::ToRead(readers)) if *readers > 1 => *readers -= 1,
            _ => drop(open_here.remove(&self.identity)),
        }
    }
}
