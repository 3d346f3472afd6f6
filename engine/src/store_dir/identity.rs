//! A digest that identifies the files of a store, so that a copy of the store is detected.
//!
//! A copy holds the same bytes. Its consumers may have followed the original further, so it must
//! begin new branches. A copy has other inodes than the original. If the file system reuses inode
//! numbers, the copy still has other creation times. The digest covers the inodes and creation
//! times of:
//! - the store's directory and RocksDB's, which even a copy made of hard links has of its own;
//! - the marker, which stays the same file as long as the store exists;
//! - RocksDB's CURRENT and the MANIFEST that it names, which every open replaces. A copy that is
//!   written into the existing files of its original still has to create these two.
//!
//! CURRENT and the MANIFEST have their own half of the digest. It is 0 while the store is being
//! opened: an interrupted open may or may not have replaced them, and must not make the store
//! look like a copy.
//!
//! Renaming a directory changes none of these. Device numbers are left out, because they change
//! when a machine is restarted. If a file system has no creation times, only the inodes are
//! compared.

use super::names::{MARKER, display_path};
use crate::error::{Error, Result};
use crc32fast::Hasher;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// A digest that identifies the files of a store. The upper half is never 0. The lower half, of
/// CURRENT and the MANIFEST, is 0 only while the store is being opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FilesDigest(u64);

/// The half of the digest that covers CURRENT and the MANIFEST.
const DATABASE: u64 = 0xffff_ffff;

impl FilesDigest {
    /// Returns the digest as the number that the witness records.
    pub(crate) const fn get(self) -> u64 {
        self.0
    }

    /// Returns the digest to record while the store is being opened.
    pub(crate) const fn while_opening(self) -> Self {
        Self(self.0 & !DATABASE)
    }

    /// Returns whether the store with these files is a copy of the one that recorded `recorded`. A
    /// `recorded` of 0 means that none was recorded, and is never a copy.
    pub(crate) const fn is_copy(self, recorded: u64) -> bool {
        let differs = self.0 ^ recorded;
        let is_database_known = recorded & DATABASE != 0;
        recorded != 0 && (differs & !DATABASE != 0 || is_database_known && differs & DATABASE != 0)
    }
}

/// Returns the digest of the store in `dir` with RocksDB's directory `db`. A missing file is part
/// of the digest, too.
pub(super) fn files_digest(dir: &Path, db: &Path) -> Result<FilesDigest> {
    let mut ours = Hasher::new();
    for path in [dir, db, &dir.join(MARKER)] {
        add(&mut ours, path)?;
    }
    let mut database = Hasher::new();
    let current = db.join("CURRENT");
    add(&mut database, &current)?;
    match fs::read_to_string(&current) {
        Ok(manifest) => add(&mut database, &db.join(manifest.trim()))?,
        // Not an error here: opening RocksDB reports what is wrong with this file.
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::InvalidData
            ) => {}
        Err(e) => return Err(Error::io("read RocksDB's file CURRENT", e)),
    }
    // A half of 0 means that nothing is recorded.
    let half = |hasher: Hasher| u64::from(hasher.finalize().max(1));
    Ok(FilesDigest((half(ours) << 32) | half(database)))
}

/// Adds the inode and the creation time of a file.
fn add(hasher: &mut Hasher, path: &Path) -> Result<()> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            hasher.update(&[0]);
            return Ok(());
        }
        Err(e) => {
            return Err(Error::io(
                format!("read the inode of {}", display_path(path)),
                e,
            ));
        }
    };
    hasher.update(&metadata.ino().to_be_bytes());
    let born = metadata.created().ok();
    let born = born.and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    hasher.update(&born.map_or(0, |born| born.as_nanos()).to_be_bytes());
    Ok(())
}
