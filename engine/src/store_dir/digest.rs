//! A digest of the names and lengths of RocksDB's data files.
//!
//! After a clean close with an empty log there is nothing to recover. An open can then skip the
//! comparison with the witness through a read-only open, which takes a second for 1,024 vBuckets.
//! This requires that the files are those that the close left. A truncated MANIFEST, for example,
//! looks to RocksDB like an older state, and RocksDB would delete the data files that this state
//! does not have.

use super::names::display_path;
use crate::error::{Error, Result};
use std::path::Path;

/// The sizes of RocksDB's files, and a digest of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DataFiles {
    /// The digest of names and lengths of the data files. Never 0, which in the witness means "not
    /// closed cleanly".
    pub(crate) digest: u64,
    /// The size of RocksDB's log, in bytes.
    pub(crate) log_bytes: u64,
    /// The size of all files, in bytes.
    pub(crate) bytes: u64,
}

/// Lists RocksDB's directory. Skips a file that is removed meanwhile.
pub(crate) fn data_files(db: &Path) -> Result<DataFiles> {
    let list = || -> std::io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(db)? {
            let entry = entry?;
            let len = match entry.metadata() {
                Ok(metadata) => metadata.len(),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            files.push((entry.file_name().to_string_lossy().into_owned(), len));
        }
        // The order of a directory listing is arbitrary; the digest must not depend on it.
        files.sort();
        Ok(files)
    };
    let files = list().map_err(|e| Error::io(format!("list {}", display_path(db)), e))?;
    let mut hasher = crc32fast::Hasher::new();
    let (mut log_bytes, mut bytes) = (0_u64, 0_u64);
    for (name, len) in &files {
        bytes = bytes.saturating_add(*len);
        if !is_data_file(name) {
            continue;
        }
        if is_log(name) {
            log_bytes = log_bytes.saturating_add(*len);
        }
        hasher.update(name.as_bytes());
        hasher.update(&len.to_be_bytes());
    }
    // Sets the bit above the checksum, so that the digest is never 0.
    let digest = u64::from(hasher.finalize()) | (1 << 32);
    Ok(DataFiles {
        digest,
        log_bytes,
        bytes,
    })
}

/// Returns whether RocksDB keeps the store's state in a file of this name. Other files do not
/// count: those of other programs, and RocksDB's text logs and lock.
fn is_data_file(name: &str) -> bool {
    let is_numbered = |prefix| {
        let number = name.strip_prefix(prefix);
        number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let is_table_or_log = ["sst", "log"].into_iter().any(|extension| {
        let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str());
        let is_number = stem.is_some_and(|stem| stem.bytes().all(|b| b.is_ascii_digit()));
        is_number && has_extension(name, extension)
    });
    name == "CURRENT"
        || name == "IDENTITY"
        || is_numbered("MANIFEST-")
        || is_numbered("OPTIONS-")
        || is_table_or_log
}

/// Returns whether a file of this name is part of RocksDB's log.
pub(super) fn is_log(name: &str) -> bool {
    is_data_file(name) && has_extension(name, "log")
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|e| e == extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_files_of_rocksdb_count() {
        for ours in [
            "CURRENT",
            "IDENTITY",
            "MANIFEST-000012",
            "OPTIONS-000014",
            "000010.sst",
            "000011.log",
        ] {
            assert!(is_data_file(ours), "{ours}");
        }
        for other in [
            "LOCK",
            "LOG",
            "LOG.old.1",
            "notes.txt",
            "lost.log",
            "MANIFEST-",
            "MANIFEST-1.bak",
            "000010.sst.bak",
            ".nfs0001",
            "core",
        ] {
            assert!(!is_data_file(other), "{other}");
        }
    }
}
