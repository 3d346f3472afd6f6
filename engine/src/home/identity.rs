//! Which files a store consists of, so that a copy of it is noticed.
//!
//! A copy holds the same bytes, and its consumers may have followed the original further: it must begin
//! new branches. What a copy cannot have is the inodes of the original, or, where their numbers are used
//! again, their times of birth. The digest is of
//! - the store's directory and RocksDB's, which a copy by hard links has of its own;
//! - the marker, which stays the same file as long as the store lives;
//! - RocksDB's CURRENT and the MANIFEST it names, which every open replaces: a copy that is written
//!   over the files of its original, which are kept, has to make them anew.
//!
//! The last two have a half of the digest of their own, which is 0 while the store is being opened: an
//! open that is cut short may or may not have replaced them, and must not make the store look like a copy.
//!
//! A directory that is renamed keeps all of them. Device numbers are left out: they change when a
//! machine starts again. Where a file system has no times of birth, the inodes alone are compared.

use super::names::MARKER;
use crate::error::{Error, Result};
use crc32fast::Hasher;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// A digest of which files a store consists of: never 0 in its upper half, and in its lower half, that of
/// CURRENT and the MANIFEST, 0 only while the store is being opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FilesDigest(u64);

const DATABASE: u64 = 0xffff_ffff;

impl FilesDigest {
    /// Returns the digest as a number.
    pub(crate) const fn get(self) -> u64 {
        self.0
    }

    /// Returns the digest for the time in which the store is being opened.
    pub(crate) const fn while_opening(self) -> Self {
        Self(self.0 & !DATABASE)
    }

    /// Returns whether a store of these files is another one than that of which `recorded` was written; 0
    /// where nothing was.
    pub(crate) const fn is_copy(self, recorded: u64) -> bool {
        let differs = self.0 ^ recorded;
        let is_database_known = recorded & DATABASE != 0;
        recorded != 0 && (differs & !DATABASE != 0 || is_database_known && differs & DATABASE != 0)
    }
}

/// Returns the digest of the store in `dir` with RocksDB's directory `db`. A file that is missing counts
/// as one of its own.
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
        // RocksDB says what is wrong with it.
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::InvalidData
            ) => {}
        Err(e) => return Err(Error::io("read CURRENT", e)),
    }
    let half = |hasher: Hasher| u64::from(hasher.finalize().max(1));
    Ok(FilesDigest((half(ours) << 32) | half(database)))
}

/// Adds which file this is.
fn add(hasher: &mut Hasher, path: &Path) -> Result<()> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            hasher.update(&[0]);
            return Ok(());
        }
        Err(e) => return Err(Error::io(format!("look at {}", path.display()), e)),
    };
    hasher.update(&metadata.ino().to_be_bytes());
    let born = metadata.created().ok();
    let born = born.and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    hasher.update(&born.map_or(0, |born| born.as_nanos()).to_be_bytes());
    Ok(())
}
