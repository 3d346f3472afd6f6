//! Why a command failed, and its exit code.

use super::stdout::Abandoned;
use serde_json::{Value, json};
use std::fmt;
use std::io;
use std::path::Path;
use vbstore::Error;

pub(crate) const DONE: u8 = 0;
pub(crate) const PROBLEM: u8 = 1;
pub(crate) const USAGE: u8 = 2;
const CANNOT_OPEN: u8 = 3;
pub(crate) const IO: u8 = 4;
const CORRUPT: u8 = 5;

#[derive(Debug)]
pub(crate) struct CommandError {
    pub(crate) code: u8,
    kind: &'static str,
    message: String,
    /// The reader closed standard output: not reported as an error.
    pub(super) is_broken_pipe: bool,
}

impl CommandError {
    pub(crate) fn new(code: u8, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            kind,
            message: message.into(),
            is_broken_pipe: false,
        }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, "usage", message)
    }

    /// Returns the error of a command that a signal ended before it was done.
    pub(crate) fn interrupted(message: impl Into<String>) -> Self {
        Self::new(PROBLEM, "interrupted", message)
    }

    /// Returns the error `cannot DOING FILE: cause`, such as `cannot write out.json: ...`.
    pub(crate) fn file(doing: &str, path: &Path, error: &io::Error) -> Self {
        let text = format!("cannot {doing} {}: {error}", path.display());
        Self::new(IO, "io", text)
    }

    /// Returns the error of a thread that could not be started.
    pub(crate) fn thread(error: &io::Error) -> Self {
        Self::new(IO, "io", format!("cannot start a thread: {error}"))
    }

    /// Returns the error of a write to standard output.
    pub(super) fn stdout(error: &io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        if let Some(Abandoned) = inner {
            return Self::interrupted(error.to_string());
        }
        let text = format!("cannot write to standard output: {error}");
        Self {
            is_broken_pipe: error.kind() == io::ErrorKind::BrokenPipe,
            ..Self::new(IO, "io", text)
        }
    }

    /// Returns the error of opening a store, with a hint if it can still be read.
    pub(crate) fn opening(error: &Error, dir: &Path) -> Self {
        let mut failure = Self::from(error.clone());
        if matches!(error, Error::NoStore { .. }) {
            return Self::new(
                CANNOT_OPEN,
                "no_store",
                format!("no store at {}", dir.display()),
            );
        }
        if failure.code == PROBLEM
            || matches!(
                error,
                Error::Invalid {
                    field: "path" | "open_files_max",
                    ..
                }
            )
        {
            failure.code = CANNOT_OPEN;
        }
        let hint = if needs_only_reading(error) {
            ". To read the store, use --read-only with get, keys, dump, stats, tail, verify, session \
             or serve"
        } else {
            ""
        };
        failure.message = format!("cannot open {}: {}{hint}", dir.display(), failure.message);
        failure
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({"error": {"kind": self.kind, "message": self.message, "exit_code": self.code}})
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Returns whether a store that cannot be opened because of this error can probably be opened
/// read-only.
fn needs_only_reading(error: &Error) -> bool {
    match error {
        Error::DiskFull { .. } => true,
        Error::Io { source, .. } => source.kind() == io::ErrorKind::ReadOnlyFilesystem,
        _ => false,
    }
}

/// Returns the name of an error, for scripts.
fn kind_of(error: &Error) -> &'static str {
    match error {
        Error::Invalid { .. } => "invalid",
        Error::NotFound => "not_found",
        Error::Exists { .. } => "exists",
        Error::CasMismatch { .. } => "cas_mismatch",
        Error::TooLarge { .. } => "too_large",
        Error::NoStore { .. } => "no_store",
        Error::Busy { .. } => "busy",
        Error::NotYetDurable { .. } => "not_yet_durable",
        Error::DiskFull { .. } => "disk_full",
        Error::ReadOnly { .. } => "read_only",
        Error::Locked { .. } => "locked",
        Error::Closed => "closed",
        Error::Forked { .. } => "forked",
        Error::VbGone { .. } => "vb_gone",
        Error::Failed { .. } => "failed",
        Error::StreamPanicked { .. } => "stream_panicked",
        Error::VbFailed { .. } => "vb_failed",
        Error::Corruption { .. } => "corruption",
        Error::DataLoss { .. } => "data_loss",
        Error::FormatTooNew { .. } => "format_too_new",
        Error::Io { .. } => "io",
        _ => "other",
    }
}

impl From<Error> for CommandError {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Invalid { .. } | Error::TooLarge { .. } => USAGE,
            Error::Locked { .. } => CANNOT_OPEN,
            Error::Corruption { .. } | Error::DataLoss { .. } | Error::FormatTooNew { .. } => {
                CORRUPT
            }
            Error::Io { .. }
            | Error::DiskFull { .. }
            | Error::Failed { .. }
            | Error::VbFailed { .. } => IO,
            _ => PROBLEM,
        };
        Self::new(code, kind_of(&error), error.to_string())
    }
}

/// For errors whose text names the file already.
impl From<io::Error> for CommandError {
    fn from(error: io::Error) -> Self {
        Self::new(IO, "io", error.to_string())
    }
}

impl From<serde_json::Error> for CommandError {
    fn from(error: serde_json::Error) -> Self {
        Self::from(io::Error::from(error))
    }
}
