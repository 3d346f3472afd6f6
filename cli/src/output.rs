//! What the program prints, and what it exits with.

mod failure;
mod log;
mod stderr;
mod stdout;

pub(crate) use failure::{CommandError, DONE, IO, PROBLEM, USAGE};
pub(crate) use log::start as start_log;
pub(crate) use stderr::{be_json, progress, say, warn};

use crate::stop::StopFlag;
use serde_json::Value;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use stdout::Interruptible;

/// What a command ends with: an exit code, or why it failed.
pub(crate) type CommandResult = Result<u8, CommandError>;

/// Standard output, buffered, and how to answer on it.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) is_json: bool,
    inner: io::BufWriter<Interruptible>,
}

impl Output {
    /// `stop` interrupts writes that block.
    pub(crate) fn new(is_json: bool, stop: StopFlag) -> Self {
        Self {
            is_json,
            inner: io::BufWriter::with_capacity(1 << 16, Interruptible::stdout(stop)),
        }
    }

    /// Prints one line.
    pub(crate) fn line(&mut self, text: impl fmt::Display) -> Result<(), CommandError> {
        writeln!(self.inner, "{text}").map_err(|error| CommandError::stdout(&error))
    }

    /// Prints bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), CommandError> {
        let written = self.inner.write_all(bytes);
        written.map_err(|error| CommandError::stdout(&error))
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

    /// Returns once everything printed so far was written out.
    pub(crate) fn flush(&mut self) -> Result<(), CommandError> {
        let flushed = self.inner.flush();
        flushed.map_err(|error| CommandError::stdout(&error))
    }

    /// Whether a person reads standard output.
    pub(crate) fn is_terminal() -> bool {
        io::stdout().is_terminal()
    }

    /// Says why the command failed, and returns what to exit with.
    pub(crate) fn report(&mut self, failure: &CommandError) -> ExitCode {
        // What was printed before it failed. The failure itself is the more important one.
        drop(self.flush());
        report(failure)
    }
}

/// Says why the program failed, and returns what to exit with.
pub(crate) fn report(failure: &CommandError) -> ExitCode {
    if failure.is_broken_pipe {
        return ExitCode::SUCCESS;
    }
    stderr::print(&failure.to_json(), failure);
    ExitCode::from(failure.code)
}

/// Says what is wrong with the command line, as JSON if `--json` is anywhere on it. Help and
/// version are no errors.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let is_json = std::env::args_os()
        .skip(1)
        .take_while(|arg| arg != "--")
        .any(|arg| arg == "--json");
    if !error.use_stderr() || !is_json {
        drop(error.print());
        return ExitCode::from(if error.use_stderr() { USAGE } else { DONE });
    }
    be_json();
    let text = error.to_string();
    let text = text.trim_end().trim_start_matches("error: ");
    report(&CommandError::usage(text))
}
