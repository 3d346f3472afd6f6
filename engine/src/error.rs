//! Every way in which an operation can fail.

use crate::durability::Durability;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use vbstore_core::{Cas, Seqno, VbId};

/// The result of an operation. With another error it is the one of the standard library, so that a
/// program may import this name.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the engine refuses writes: the first error, as text.
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

/// What a caller must do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Correct the call: the same call can never succeed. Nothing was changed.
    Invalid,
    /// Look again: the state of the key, or of the vBucket, is not the one the call asked for. Nothing was
    /// changed, or what was changed was deleted with the vBucket.
    Conflict,
    /// Try again later.
    Unavailable,
    /// Open the store without [`crate::Builder::read_only`]. Nothing was changed.
    ReadOnly,
    /// Stop using this handle.
    Closed,
    /// Close and open again; the outcome of the write is unknown until then.
    Failed,
    /// Restore from a copy, or accept the loss: opening again does not help.
    Corrupt,
}

/// Why an operation failed.
///
/// A write that fails *before* it is given a seqno changes nothing. One that fails while it waits
/// for its durability ([`Error::DiskFull`], [`Error::Failed`], [`Error::VbFailed`], [`Error::Closed`]) has
/// an unknown outcome: it may be there after the disk has space again or after the store is opened again.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// An argument or a field of the configuration is not allowed.
    Invalid {
        /// Which one.
        field: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// The key has no value.
    NotFound,
    /// There is no store in the directory, and none was to be created
    /// ([`crate::Builder::create`]).
    NoStore {
        /// The directory.
        path: PathBuf,
    },
    /// The key has a value.
    Exists {
        /// Its CAS.
        cas: Cas,
    },
    /// The key's CAS is not the expected one.
    CasMismatch {
        /// What the call expected.
        expected: Cas,
        /// What the key has.
        found: Cas,
    },
    /// Something is larger than its limit.
    TooLarge {
        /// What.
        field: &'static str,
        /// Its size: bytes, or changes for `batch`.
        size: u64,
        /// The limit.
        max: u64,
    },
    /// A limit was reached and did not pass within the time allowed. Nothing was changed.
    Busy {
        /// What was waited for.
        what: &'static str,
    },
    /// The time allowed for waiting is over. The change is made, and everybody sees it; it is not yet
    /// as durable as asked, and will be by itself.
    NotYetDurable {
        /// Of which vBucket.
        vb: VbId,
        /// The seqno that was waited for.
        seqno: Seqno,
        /// The durability that was waited for.
        wanted: Durability,
    },
    /// The disk, or the user's quota of it, is full. Heals by itself when space returns.
    DiskFull {
        /// What the system said.
        detail: Arc<str>,
    },
    /// The store was opened with [`crate::Builder::read_only`], and the call would change it. Nothing
    /// was changed.
    ReadOnly {
        /// What is refused.
        refused: &'static str,
    },
    /// Another engine has the store open.
    Locked {
        /// The process that has, if it said so. A read-only engine says nothing.
        pid: Option<u32>,
    },
    /// The engine is closed.
    Closed,
    /// This process is a fork of the one that opened the store, and must not use it. The store is the
    /// parent's; dropping the handles here changes nothing of it.
    Forked {
        /// The process that opened the store.
        opened_by: u32,
    },
    /// The vBucket was deleted while this write, wait or read was under way: the change that it speaks
    /// of is gone, or was never made. The handle stays valid: its next call finds the vBucket empty,
    /// with a new uuid.
    VbGone {
        /// Which one.
        vb: VbId,
    },
    /// Reading a slice for a stream of this vBucket panicked. The stream is over; another may be
    /// opened from its position.
    StreamPanicked {
        /// Which one.
        vb: VbId,
    },
    /// The engine refuses writes because of an earlier failure; only opening again helps.
    Failed {
        /// The first failure.
        cause: Cause,
    },
    /// The vBucket refuses writes, because its changes cannot be written to disk; all others go on. Its
    /// changes stay readable until the engine is closed. Deleting the vBucket, or opening the store again,
    /// leaves that state.
    VbFailed {
        /// Which one.
        vb: VbId,
        /// Why they cannot.
        cause: Cause,
    },
    /// Stored data is not what was written. A write is refused with this, and changes nothing, if it
    /// needs what cannot be read; other keys and other vBuckets are not concerned.
    Corruption {
        /// In which vBucket, if that is known.
        vb: Option<VbId>,
        /// At which seqno, if that is known.
        seqno: Option<Seqno>,
        /// In which file, if that is known.
        file: Option<String>,
        /// What was found.
        detail: String,
    },
    /// Less was recovered than had been synced.
    DataLoss {
        /// RocksDB's sequence number that the witness records as synced.
        expected: u64,
        /// The one that was recovered.
        found: u64,
    },
    /// The store was written by a newer version of this program.
    FormatTooNew {
        /// The format of the store.
        found: u32,
        /// The newest format this version reads.
        supported: u32,
    },
    /// The system refused something.
    Io {
        /// What was tried.
        context: String,
        /// What the system said.
        source: Arc<std::io::Error>,
    },
}

impl Error {
    /// Returns what the caller must do.
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

    /// Returns the error that a field is not allowed.
    pub fn invalid(field: &'static str, detail: impl Into<String>) -> Self {
        Self::Invalid {
            field,
            detail: detail.into(),
        }
    }

    /// Returns the error that the system refused something: [`Error::DiskFull`] for a full disk or an
    /// exhausted quota, otherwise [`Error::Io`].
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

    /// Returns the error of an engine that has failed.
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

    /// Names the vBucket that was read, if this says that data is corrupt and not where.
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
            Self::Invalid { field, detail } => write!(f, "{field}: {detail}"),
            Self::NotFound => f.write_str("the key has no value"),
            Self::Exists { cas } => write!(f, "the key has a value (cas {cas})"),
            Self::CasMismatch { expected, found } => {
                write!(f, "the key's cas is {found}, not {expected}")
            }
            Self::TooLarge { field, size, max } => {
                write!(f, "{field}: {size} is larger than the limit, {max}")
            }
            Self::NoStore { path } => write!(f, "there is no store in {}", path.display()),
            Self::Busy { what } => write!(f, "busy: {what}"),
            Self::NotYetDurable { vb, seqno, wanted } => write!(
                f,
                "the change with seqno {seqno} of {vb} is made, but did not become {} within the time \
                 allowed",
                wanted.name()
            ),
            Self::Forked { opened_by } => write!(
                f,
                "this process is a fork of process {opened_by}, which has opened the store"
            ),
            Self::DiskFull { detail } => write!(f, "the disk is full: {detail}"),
            Self::ReadOnly { refused } => write!(
                f,
                "{refused} is refused: the store was opened with read_only; open it without to write"
            ),
            Self::Locked { pid: Some(pid) } => write!(f, "the store is open in process {pid}"),
            Self::Locked { pid: None } => f.write_str("the store is open in another process"),
            Self::Closed => f.write_str("the engine is closed"),
            Self::VbGone { vb } => write!(f, "{vb} was deleted"),
            Self::StreamPanicked { vb } => write!(f, "reading a slice of {vb} panicked"),
            Self::Failed { cause } => {
                write!(f, "the engine has failed and must be opened again: {cause}")
            }
            Self::VbFailed { vb, cause } => write!(
                f,
                "{vb} refuses writes until it is deleted or the store is opened again: {cause}"
            ),
            Self::Corruption {
                vb,
                seqno,
                file,
                detail,
            } => {
                f.write_str("corruption")?;
                vb.iter().try_for_each(|vb| write!(f, " in {vb}"))?;
                seqno
                    .iter()
                    .try_for_each(|seqno| write!(f, " at seqno {seqno}"))?;
                file.iter()
                    .try_for_each(|file| write!(f, " in file {file}"))?;
                write!(f, ": {detail}")
            }
            Self::DataLoss { expected, found } => write!(
                f,
                "data loss: synced up to sequence {expected}, but only {found} was recovered"
            ),
            Self::FormatTooNew { found, supported } => write!(
                f,
                "the store has format {found}, this version reads up to format {supported}"
            ),
            Self::Io { context, source } => write!(f, "{context}: {source}"),
        }
    }
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
}
