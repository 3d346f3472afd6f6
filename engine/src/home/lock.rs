//! One engine a store.
//!
//! RocksDB's own lock lets the same process in through a symlink, and another process after its
//! LOCK file is unlinked (measured). Here: an flock on a file of ours, and a table of the
//! directories that this process has open, by device and inode, for the case that the file was
//! unlinked. What is left: another process after the lock file was unlinked by hand.

use crate::error::{Error, Result};
use parking_lot::Mutex;
use rustix::fs::{FlockOperation, OFlags, flock};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Directories open in this process, by device and inode. Process-wide by its purpose.
static OPEN_HERE: Mutex<BTreeSet<(u64, u64)>> = Mutex::new(BTreeSet::new());

/// Holds a store's lock while it lives.
#[derive(Debug)]
pub(crate) struct DirLock {
    file: File,
    identity: (u64, u64),
}

impl DirLock {
    /// Takes the lock of `dir` or says which process has it. Never waits.
    pub(crate) fn take(dir: &Path, lock_file: &Path) -> Result<Self> {
        let metadata = dir
            .metadata()
            .map_err(|e| Error::io("look at the directory", e))?;
        let identity = (metadata.dev(), metadata.ino());
        // Held to the end, so that two threads cannot both find the table empty.
        let mut open_here = OPEN_HERE.lock();
        if open_here.contains(&identity) {
            return Err(Error::Locked {
                pid: Some(std::process::id()),
            });
        }
        let no_follow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(no_follow)
            .open(lock_file)
            .map_err(|e| Error::io("open the lock file", e))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let read = file.read_to_string(&mut text);
                let pid = read.ok().and_then(|_| text.trim().parse().ok());
                return Err(Error::Locked { pid });
            }
            Err(e) => return Err(Error::io("lock the store", e.into())),
        }
        write_pid(&mut file).map_err(|e| Error::io("write the lock file", e))?;
        open_here.insert(identity);
        Ok(Self { file, identity })
    }
}

fn write_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // Not left to closing the file: another thread of the program may just be starting a process,
        // which has a copy of the descriptor, and with it the flock, until it is another program.
        if let Err(error) = flock(&self.file, FlockOperation::Unlock) {
            tracing::warn!(%error, "the lock is given back with the file");
        }
        // ORDER: after it, so that whoever finds the table empty finds the file free.
        OPEN_HERE.lock().remove(&self.identity);
    }
}
