//! Maps RocksDB's errors to the engine's. Only this file parses their text: the crate has no other
//! way to tell a full disk from other errors, or to find the file concerned.

use crate::error::Error;
use rocksdb::ErrorKind;
use std::io;

/// Returns the engine's error for a RocksDB error. `context` names the operation.
pub(crate) fn map(error: &rocksdb::Error, context: &str) -> Error {
    let text: &str = &plain_paths(error.as_ref());
    match error.kind() {
        ErrorKind::Corruption => Error::Corruption {
            vb: None,
            seqno: None,
            file: file_named_in(text),
            detail: format!("{context}: {text}"),
        },
        _ if is_disk_full(text) => Error::DiskFull {
            detail: format!("{context}: {text}").into(),
        },
        // A missing file is damage to the store, not a failed system call.
        ErrorKind::IOError if text.contains("No such file") => Error::Corruption {
            vb: None,
            seqno: None,
            file: file_named_in(text),
            detail: format!("{context}: {text}"),
        },
        _ => Error::io(context, io::Error::other(text.to_owned())),
    }
}

/// Returns whether an error text reports a full disk or a full quota. The first text is RocksDB's
/// for ENOSPC. The second is the system's for EDQUOT, for which RocksDB has no code.
fn is_disk_full(text: &str) -> bool {
    ["No space left on device", "Disk quota exceeded"]
        .iter()
        .any(|said| text.contains(said))
}

/// Returns a text in which paths begin inside the store. The prefix that leads to the store's
/// directory is removed (`crate::store_dir` reaches it through a file descriptor).
fn plain_paths(text: &str) -> String {
    let mut parts = text.split("/proc/self/fd/");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let path = part.trim_start_matches(|c: char| c.is_ascii_digit());
        plain.push_str(path.strip_prefix('/').unwrap_or(path));
    }
    plain
}

/// Returns the name of the first data file in an error text.
fn file_named_in(text: &str) -> Option<String> {
    let words = text.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '"' | '\''));
    words
        .map(|word| word.trim_matches(|c: char| matches!(c, ':' | '.' | '(' | ')')))
        .filter_map(|word| word.rsplit('/').next())
        .find(|name| {
            let path = std::path::Path::new(name);
            let is_data = path
                .extension()
                .is_some_and(|e| e == "sst" || e == "log" || e == "ldb");
            is_data || name.starts_with("MANIFEST-") || *name == "CURRENT" || *name == "IDENTITY"
        })
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_an_error_begins_inside_the_store() {
        let text = "IO error: While open a file: /proc/self/fd/12/db/000004.log: No space";
        assert_eq!(
            plain_paths(text),
            "IO error: While open a file: db/000004.log: No space"
        );
        assert_eq!(plain_paths("Corruption: odd"), "Corruption: odd");
    }

    #[test]
    fn a_full_quota_is_a_full_disk() {
        for said in ["No space left on device", "Disk quota exceeded"] {
            assert!(is_disk_full(&format!(
                "IO error: While appending: x: {said}"
            )));
        }
        assert!(!is_disk_full("IO error: Input/output error"));
    }

    #[test]
    fn a_file_is_found_in_the_text_of_an_error() {
        let text = "Corruption: block checksum mismatch: stored = 1, computed = 2 in \
                    /d/db/000012.sst offset 0 size 4130";
        assert_eq!(file_named_in(text).as_deref(), Some("000012.sst"));
        let text = "IO error: No such file or directory: While open a file: /d/MANIFEST-000005: x";
        assert_eq!(file_named_in(text).as_deref(), Some("MANIFEST-000005"));
        assert_eq!(file_named_in("Corruption: odd").as_deref(), None);
    }
}
