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
//! A directory that is renamed keeps all of them. Device numbers are left out: they change when a
//! machine starts again. Where a file system has no times of birth, the inodes alone are compared.

use super::names::MARKER;
use crate::error::{Error, Result};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// Returns a digest of which files the store in `dir`, with RocksDB's directory `db`, consists of. Never
/// 0. A file that is missing counts as one of its own.
pub(super) fn files_digest(dir: &Path, db: &Path) -> Result<u64> {
    let mut hasher = crc32fast::Hasher::new();
    let mut add = |path: &Path| -> Result<()> {
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
    };
    let current = db.join("CURRENT");
    for path in [dir, db, &dir.join(MARKER), &current] {
        add(path)?;
    }
    match fs::read_to_string(&current) {
        Ok(manifest) => add(&db.join(manifest.trim()))?,
        // RocksDB says what is wrong with it.
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::InvalidData
            ) => {}
        Err(e) => return Err(Error::io("read CURRENT", e)),
    }
    Ok(u64::from(hasher.finalize()) | (1 << 32))
}
