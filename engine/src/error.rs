//! The errors of the engine, and what a caller must do about each kind.

use crate::durability::Durability;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use vbstore_core::{Cas, Seqno, VbId};

/// The result of an operation. The error type has a default, so that a program which imports this
/// name can still write `Result<T, OtherError>`.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The first failure that made the engine, or one vBucket, refuse writes, as text.
#[derive(Clone, Debug)]
pub struct Cause(Arc<str>);

impl Cause {
    pub(crate) fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    pub(crate) fn text(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a caller must do about an error. Returned by [`Error::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Correct the call: the same call can never succeed. Nothing was changed.
    Invalid,
    /// Read again before retrying: the key or the vBucket is not in the state that the call
    /// requires. Nothing was changed, or the change was deleted together with the vBucket.
    Conflict,
    /// Retry later: the cause may pass without a change to the call.
    Unavailable,
    /// Open the store without [`crate::Builder::read_only`]. Nothing was changed.
    ReadOnly,
    /// Stop using this handle: the engine is closed, or this process is a fork.
    Closed,
    /// Close the store and open it again. Until then the outcome of the write is unknown.
    Failed,
    /// Restore the store from a copy, or accept the loss: opening it again does not help.
    Corrupt,
}

/// Why an operation failed.
///
/// A write that fails *before* it has a seqno changes nothing. One that fails while it waits for
/// its durability ([`Error::DiskFull`], [`Error::Failed`], [`Error::VbFailed`], [`Error::Closed`])
/// has an unknown outcome. It may still take effect, once the disk has space again or the store
/// is opened again.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// An argument of a call or a field of the configuration is not allowed.
    Invalid {
        /// The name of the argument or field.
        field: &'static str,
        /// Why the value is not allowed, with the allowed values.
        detail: String,
    },
    /// The key has no document.
    NotFound,
    /// The directory holds no store, and [`crate::Builder::create`] does not allow making one.
    NoStore {
        /// The directory.
        path: PathBuf,
    },
    /// The key already has a document.
    Exists {
        /// The CAS of that document.
        cas: Cas,
    },
    /// The document does not have the expected CAS.
    CasMismatch {
        /// The CAS that the call expected.
        expected: Cas,
        /// The CAS of the document.
        found: Cas,
    },
    /// A key, a value or a batch is larger than its limit.
    TooLarge {
        /// What is too large: `key`, `value`, `batch` or `batch bytes`.
        field: &'static str,
        /// Its size: the number of changes for `batch`, bytes otherwise.
        size: u64,
        /// The limit, in the same unit.
        max: u64,
    },
    /// A resource stayed exhausted for the time the call may wait, or the call cannot wait for it
    /// on this thread. Nothing was changed.
    Busy {
        /// The exhausted resource, or why the call cannot wait.
        what: &'static str,
    },
    /// The change did not become as durable as asked before the call's time-out. It is made and
    /// visible to every reader, and becomes durable in the background.
    NotYetDurable {
        /// The vBucket of the change.
        vb: VbId,
        /// The seqno that the call waited for.
        seqno: Seqno,
        /// The durability that the call waited for.
        wanted: Durability,
    },
    /// The disk or the disk quota of the user is full. The engine takes writes again by itself once
    /// there is space.
    DiskFull {
        /// The system's message, with the operation that failed.
        detail: Arc<str>,
    },
    /// The call would change a store that was opened with [`crate::Builder::read_only`]. Nothing
    /// was changed.
    ReadOnly {
        /// The refused operation.
        refused: &'static str,
    },
    /// Another engine, in this process or in another, has the store open.
    Locked {
        /// The process that has the store open to write, if known. Engines that read do not record
        /// their pid, so it is `None` if only such engines have the store open.
        pid: Option<u32>,
    },
    /// The engine is closed or closing.
    Closed,
    /// This process is a fork of the one that opened the store, and must not use it: the store
    /// belongs to the parent. Dropping the handles here changes nothing in the store.
    Forked {
        /// The pid of the process that opened the store.
        opened_by: u32,
    },
    /// The vBucket was deleted during this write, wait or read: the change in question is gone, or
    /// was never made. The handle stays valid. Its next call finds the vBucket empty, with a new
    /// uuid.
    VbGone {
        /// The vBucket that was deleted.
        vb: VbId,
    },
    /// Reading a slice for a stream of this vBucket panicked. The stream has ended. A new one may
    /// be opened from its position.
    StreamPanicked {
        /// The vBucket of the stream.
        vb: VbId,
    },
    /// The engine refuses writes because of an earlier failure. Only opening the store again helps.
    Failed {
        /// The first failure.
        cause: Cause,
    },
    /// The vBucket refuses writes because its changes cannot be written to disk. All other vBuckets
    /// work. The changes stay readable until the engine is closed. Deleting the vBucket or opening
    /// the store again leaves this state.
    VbFailed {
        /// The vBucket.
        vb: VbId,
        /// Why its changes cannot be written.
        cause: Cause,
    },
    /// Stored data differs from the data that was written. A write that needs to read corrupt data
    /// fails with this and changes nothing. Other keys and other vBuckets are not affected.
    Corruption {
        /// The vBucket, if known.
        vb: Option<VbId>,
        /// The seqno, if known.
        seqno: Option<Seqno>,
        /// The file or column family, if known.
        file: Option<String>,
        /// The difference that was found.
        detail: String,
    },
    /// RocksDB recovered less than the witness records as synced.
    DataLoss {
        /// RocksDB's sequence number that the witness records as synced.
        expected: u64,
        /// The RocksDB sequence number that was recovered.
        found: u64,
    },
    /// A newer version of this program wrote the store.
    FormatTooNew {
        /// The format of the store.
        found: u32,
        /// The newest format that this version reads.
        supported: u32,
    },
    /// A call of the operating system or of RocksDB failed.
    Io {
        /// The operation that failed, and its file where there is one.
        context: String,
        /// The system's error.
        source: Arc<std::io::Error>,
    },
}

impl Error {
    /// Returns what the caller must do about this error.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid { .. } | Self::TooLarge { .. } | Self::NoStore { .. } => {
                ErrorKind::Invalid
            }
            Self::NotFound
            | Self::Exists { .. }
            | Self::CasMismatch { .. }
            | Self::VbGone { .. } => ErrorKind::Conflict,
            Self::Busy { .. }
            | Self::NotYetDurable { .. }
            | Self::DiskFull { .. }
            | Self::Locked { .. }
            | Self::StreamPanicked { .. } => ErrorKind::Unavailable,
            Self::ReadOnly { .. } => ErrorKind::ReadOnly,
            Self::Closed | Self::Forked { .. } => ErrorKind::Closed,
            Self::Failed { .. } | Self::VbFailed { .. } | Self::Io { .. } => ErrorKind::Failed,
            Self::Corruption { .. } | Self::DataLoss { .. } | Self::FormatTooNew { .. } => {
                ErrorKind::Corrupt
            }
        }
    }

    /// Makes the error for an argument or a configuration field that is not allowed.
    ///
    /// [`Error`] is displayed as `field: detail`. The field is left out for `vb`, and for a
    /// `detail` that begins with `the` and the field, such as "the key is empty".
    pub fn invalid(field: &'static str, detail: impl Into<String>) -> Self {
        Self::Invalid {
            field,
            detail: detail.into(),
        }
    }

    /// Makes the error for a failed system call. Returns [`Error::DiskFull`] for a full disk or an
    /// exhausted quota, and [`Error::Io`] for everything else.
    ///
    /// `context` names the operation in the infinitive: "open the lock file".
    pub fn io(context: impl Into<String>, source: std::io::Error) -> Self {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        if matches!(source.kind(), StorageFull | QuotaExceeded) {
            return Self::DiskFull {
                detail: format!("{}: {source}", context.into()).into(),
            };
        }
        Self::Io {
            context: context.into(),
            source: Arc::new(source),
        }
    }

    /// Makes the error of an engine that has failed.
    pub(crate) fn failed(cause: impl Into<Arc<str>>) -> Self {
        Self::Failed {
            cause: Cause::new(cause),
        }
    }

    pub(crate) fn corrupt_file(file: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Corruption {
            vb: None,
            seqno: None,
            file: Some(file.into()),
            detail: detail.into(),
        }
    }

    /// Adds the vBucket that was read to a corruption error that names none.
    pub(crate) fn in_vbucket(mut self, read: VbId) -> Self {
        if let Self::Corruption { vb, .. } = &mut self {
            vb.get_or_insert(read);
        }
        self
    }

    pub(crate) fn corrupt_record(
        vb: VbId,
        seqno: Option<Seqno>,
        detail: impl Into<String>,
    ) -> Self {
        Self::Corruption {
            vb: Some(vb),
            seqno,
            file: None,
            detail: detail.into(),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source.as_ref()),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { field, detail } => fmt_invalid(f, field, detail),
            Self::NotFound => f.write_str("the key has no document"),
            Self::Exists { cas } => write!(f, "the key already has a document (CAS {cas})"),
            Self::CasMismatch { expected, found } => {
                write!(
                    f,
                    "the document has CAS {found}, not the expected {expected}"
                )
            }
            Self::TooLarge { field, size, max } => fmt_too_large(f, field, *size, *max),
            Self::NoStore { path } => write!(f, "there is no store in {}", path.display()),
            Self::Busy { what } => write!(f, "busy: {what}"),
            Self::NotYetDurable { vb, seqno, wanted } => write!(
                f,
                "the change with seqno {seqno} of vBucket {} is made, but did not become {} within \
                 the time allowed",
                vb.get(),
                wanted.name()
            ),
            Self::Forked { opened_by } => write!(
                f,
                "this process is a fork of process {opened_by}, which opened the store; only that \
                 process may use it"
            ),
            Self::DiskFull { detail } => write!(f, "the disk is full: {detail}"),
            Self::ReadOnly { refused } => write!(
                f,
                "{refused} is refused: the store was opened with read_only; open it without \
                 read_only to write"
            ),
            Self::Locked { pid: Some(pid) } => write!(f, "the store is open in process {pid}"),
            Self::Locked { pid: None } => f.write_str("the store is open in another process"),
            Self::Closed => f.write_str("the engine is closed"),
            Self::VbGone { vb } => {
                write!(f, "vBucket {} was deleted during the operation", vb.get())
            }
            Self::StreamPanicked { vb } => {
                write!(f, "reading a slice of vBucket {} panicked", vb.get())
            }
            Self::Failed { cause } => {
                write!(
                    f,
                    "the engine has failed and the store must be opened again: {cause}"
                )
            }
            Self::VbFailed { vb, cause } => write!(
                f,
                "vBucket {} refuses writes until it is deleted or the store is opened again: \
                 {cause}",
                vb.get()
            ),
            Self::Corruption {
                vb,
                seqno,
                file,
                detail,
            } => {
                f.write_str("corrupt data")?;
                vb.iter()
                    .try_for_each(|vb| write!(f, " in vBucket {}", vb.get()))?;
                seqno
                    .iter()
                    .try_for_each(|seqno| write!(f, " at seqno {seqno}"))?;
                file.iter()
                    .try_for_each(|file| write!(f, " in file {file}"))?;
                write!(f, ": {detail}")
            }
            Self::DataLoss { expected, found } => write!(
                f,
                "data loss: RocksDB's sequence number {expected} was synced, but only {found} was \
                 recovered"
            ),
            Self::FormatTooNew { found, supported } => write!(
                f,
                "the store has format {found}, but this version reads formats up to {supported}"
            ),
            Self::Io { context, source } => write!(f, "failed to {context}: {source}"),
        }
    }
}

/// Leaves out the field if the detail names it; see [`Error::invalid`].
fn fmt_invalid(f: &mut fmt::Formatter<'_>, field: &str, detail: &str) -> fmt::Result {
    let names_field = |rest: &str| rest.starts_with(field);
    if field == "vb" || detail.strip_prefix("the ").is_some_and(names_field) {
        f.write_str(detail)
    } else {
        write!(f, "{field}: {detail}")
    }
}

/// Names the unit of the limit, and the setting that it is from.
fn fmt_too_large(f: &mut fmt::Formatter<'_>, field: &str, size: u64, max: u64) -> fmt::Result {
    let (unit, setting) = match field {
        "batch" => ("changes", "batch_items_max"),
        "batch bytes" => ("bytes of keys and values", "batch_bytes_max"),
        "key" => ("bytes", "key_bytes_max"),
        _ => ("bytes", "value_bytes_max"),
    };
    let what = if field == "batch bytes" {
        "batch"
    } else {
        field
    };
    write!(
        f,
        "the {what} has {size} {unit}: at most {max} are allowed ({setting})"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    #[test]
    fn a_full_disk_and_a_full_quota_heal_and_nothing_else_does() {
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
            let error = Error::io("write", kind.into());
            assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
        }
        let other = Error::io("write", ErrorKind::PermissionDenied.into());
        assert!(matches!(other, Error::Io { .. }), "{other:?}");
    }

    #[test]
    fn texts_name_the_argument_and_the_limit() {
        let limit = |field, size, max| Error::TooLarge { field, size, max }.to_string();
        for (text, expected) in [
            (
                Error::invalid("vb", "no vBucket 99: the store has 64 (0 to 63)").to_string(),
                "no vBucket 99: the store has 64 (0 to 63)",
            ),
            (
                Error::invalid("vbuckets", "63 is not a power of two").to_string(),
                "vbuckets: 63 is not a power of two",
            ),
            (
                Error::invalid("key", "the key is empty").to_string(),
                "the key is empty",
            ),
            (
                limit("key", 251, 250),
                "the key has 251 bytes: at most 250 are allowed (key_bytes_max)",
            ),
            (
                limit("batch", 11, 10),
                "the batch has 11 changes: at most 10 are allowed (batch_items_max)",
            ),
            (
                limit("batch bytes", 9, 8),
                "the batch has 9 bytes of keys and values: at most 8 are allowed (batch_bytes_max)",
            ),
        ] {
            assert_eq!(text, expected);
        }
    }
}
