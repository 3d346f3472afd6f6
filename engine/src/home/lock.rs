//! One engine a store.
//!
//! RocksDB's own lock lets the same process in through a symlink, and another process after its
//! LOCK file is unlinked (measured). Here: an flock on a file of ours, and a table of the
//! directories that this process has open, by device and inode, for the case that the file was
//! unlinked. What is left: another process after the lock file was unlinked by hand.

use super::names::LOCK_NEW;
use crate::error::{Error, Result};
use crate::process::Opener;
use parking_lot::Mutex;
use rustix::fs::{FlockOperation, OFlags, flock};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Directories open in this process, by device and inode. Process-wide by its purpose.
static OPEN_HERE: Mutex<BTreeSet<(u64, u64)>> = Mutex::new(BTreeSet::new());

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
    pub(crate) fn take(identity: (u64, u64), lock_file: &Path, opener: &Opener) -> Result<Self> {
        // Held to the end, so that two threads cannot both find the table empty.
        let mut open_here = OPEN_HERE.lock();
        if open_here.contains(&identity) {
            return Err(Error::Locked {
                pid: Some(std::process::id()),
            });
        }
        let mut file = open(lock_file, false)?;
        flock_now(&mut file)?;
        let links = file.metadata().map(|metadata| metadata.nlink());
        if links.map_err(|e| Error::io("look at the lock file", e))? > 1 {
            // A copy of the store made of hard links has the same file. Each gets one of its own; nobody
            // else can have locked either meanwhile, since both are locked here.
            let new = lock_file.with_file_name(LOCK_NEW);
            let mut own = open(&new, true)?;
            flock_now(&mut own)?;
            fs::rename(&new, lock_file).map_err(|e| Error::io("put the lock file", e))?;
            file = own;
        }
        write_pid(&mut file).map_err(|e| Error::io("write the lock file", e))?;
        open_here.insert(identity);
        Ok(Self {
            file,
            identity,
            opener: opener.clone(),
        })
    }
}

/// Opens a lock file; a new one if `anew`, whatever a process that died has left there.
fn open(path: &Path, anew: bool) -> Result<File> {
    let context = |e| Error::io("open the lock file", e);
    if anew {
        match fs::remove_file(path) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(context(e)),
            _ => {}
        }
    }
    let no_follow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(no_follow)
        .open(path)
        .map_err(context)
}

fn flock_now(file: &mut File) -> Result<()> {
    match flock(&*file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let read = file.read_to_string(&mut text);
            let pid = read.ok().and_then(|_| text.trim().parse().ok());
            Err(Error::Locked { pid })
        }
        Err(e) => Err(Error::io("lock the store", e.into())),
    }
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
        OPEN_HERE.lock().remove(&self.identity);
    }
}
