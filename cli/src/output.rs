//! What the program prints, and what it exits with.

use serde_json::{Value, json};
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use vbstore::Error;

/// What a command ends with: an exit code, or why it failed.
pub(crate) type CommandResult = Result<u8, CommandError>;

pub(crate) const DONE: u8 = 0;
pub(crate) const PROBLEM: u8 = 1;
pub(crate) const USAGE: u8 = 2;
pub(crate) const CANNOT_OPEN: u8 = 3;
pub(crate) const IO: u8 = 4;
pub(crate) const CORRUPT: u8 = 5;

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct CommandError {
    pub(crate) code: u8,
    kind: &'static str,
    message: String,
    /// Standard output was closed by its reader: nothing to complain about.
    is_broken_pipe: bool,
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

    /// An error of opening a store.
    pub(crate) fn opening(error: &Error, dir: &std::path::Path) -> Self {
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
            ". To read what is there: --read-only, with get, dump, stats, tail, verify, session or serve"
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

/// Whether a store that cannot be opened because of this may well be opened read-only.
fn needs_only_reading(error: &Error) -> bool {
    match error {
        Error::DiskFull { .. } => true,
        Error::Io { source, .. } => source.kind() == io::ErrorKind::ReadOnlyFilesystem,
        _ => false,
    }
}

/// The name of an error, for scripts.
pub(crate) fn kind_of(error: &Error) -> &'static str {
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

impl From<io::Error> for CommandError {
    fn from(error: io::Error) -> Self {
        let is_broken_pipe = error.kind() == io::ErrorKind::BrokenPipe;
        Self {
            is_broken_pipe,
            ..Self::new(IO, "io", error.to_string())
        }
    }
}

impl From<serde_json::Error> for CommandError {
    fn from(error: serde_json::Error) -> Self {
        Self::from(io::Error::from(error))
    }
}

/// Standard output, buffered, and how to answer on it.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) is_json: bool,
    inner: io::BufWriter<io::Stdout>,
}

impl Output {
    pub(crate) fn new(is_json: bool) -> Self {
        Self {
            is_json,
            inner: io::BufWriter::with_capacity(1 << 16, io::stdout()),
        }
    }

    /// Prints one line.
    pub(crate) fn line(&mut self, text: impl fmt::Display) -> Result<(), CommandError> {
        writeln!(self.inner, "{text}")?;
        Ok(())
    }

    /// Prints bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), CommandError> {
        self.inner.write_all(bytes)?;
        Ok(())
    }

    /// Prints the answer: the object if JSON was asked for, otherwise the text.
    pub(crate) fn answer(
        &mut self,
        object: &Value,
        text: impl fmt::Display,
    ) -> Result<(), CommandError> {
        if self.is_json {
            self.line(object)
        } else {
            self.line(text)
        }
    }

    pub(crate) fn flush(&mut self) -> Result<(), CommandError> {
        self.inner.flush()?;
        Ok(())
    }

    /// Says something that a user should know although the command goes on: one line on standard error.
    pub(crate) fn warn(&self, kind: &str, text: &str) -> Result<(), CommandError> {
        let mut err = io::stderr().lock();
        if self.is_json {
            writeln!(
                err,
                "{}",
                json!({"warning": {"kind": kind, "message": text}})
            )?;
        } else {
            writeln!(err, "vbstore: {text}")?;
        }
        Ok(())
    }

    /// Says why the command failed, and returns what to exit with.
    pub(crate) fn report(&mut self, failure: &CommandError) -> ExitCode {
        drop(self.flush());
        if failure.is_broken_pipe {
            return ExitCode::SUCCESS;
        }
        let mut err = io::stderr().lock();
        let said = if self.is_json {
            writeln!(err, "{}", failure.to_json())
        } else {
            writeln!(err, "vbstore: {failure}")
        };
        drop(said);
        ExitCode::from(failure.code)
    }
}

/// Says something on standard error, beside the answer.
pub(crate) fn say(text: impl fmt::Display) -> Result<(), CommandError> {
    writeln!(io::stderr().lock(), "vbstore: {text}")?;
    Ok(())
}

/// Says what is wrong with the command line, as JSON if `--json` is anywhere on it. Help and version
/// are no errors.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let is_json = std::env::args()
        .skip(1)
        .take_while(|arg| arg != "--")
        .any(|arg| arg == "--json");
    if !error.use_stderr() || !is_json {
        drop(error.print());
        return ExitCode::from(if error.use_stderr() { USAGE } else { DONE });
    }
    Output::new(true).report(&CommandError::usage(error.to_string().trim_end()))
}

/// A progress line on standard error, if that is a terminal.
pub(crate) fn progress() -> indicatif::ProgressBar {
    if io::stderr().is_terminal() {
        let bar = indicatif::ProgressBar::new_spinner();
        bar.set_style(indicatif::ProgressStyle::default_spinner());
        bar
    } else {
        indicatif::ProgressBar::hidden()
    }
}
