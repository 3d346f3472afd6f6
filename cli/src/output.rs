//! What the program prints, and its exit codes.

mod failure;
mod log;
mod stderr;
mod stdout;

pub(crate) use failure::{CommandError, DONE, IO, PROBLEM, USAGE};
pub(crate) use log::start as start_log;
pub(crate) use stderr::{info, print_json_errors, progress, warn};

use crate::stop::StopFlag;
use serde_json::Value;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use stdout::Interruptible;

/// The result of a command: an exit code, or why it failed.
pub(crate) type CommandResult = Result<u8, CommandError>;

/// Standard output, buffered, as text or as JSON.
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

    pub(crate) fn line(&mut self, text: impl fmt::Display) -> Result<(), CommandError> {
        writeln!(self.inner, "{text}").map_err(|error| CommandError::stdout(&error))
    }

    /// Prints bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), CommandError> {
        let written = self.inner.write_all(bytes);
        written.map_err(|error| CommandError::stdout(&error))
    }

    /// Prints the result of a command: the object with `--json`, otherwise the text.
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

    /// Writes out everything printed so far.
    pub(crate) fn flush(&mut self) -> Result<(), CommandError> {
        let flushed = self.inner.flush();
        flushed.map_err(|error| CommandError::stdout(&error))
    }

    /// Returns whether standard output is a terminal.
    pub(crate) fn is_terminal() -> bool {
        io::stdout().is_terminal()
    }

    /// Prints why the command failed, and returns the exit code.
    pub(crate) fn report(&mut self, failure: &CommandError) -> ExitCode {
        // An error of this flush is dropped: the failure itself matters more.
        drop(self.flush());
        report(failure)
    }
}

/// Prints why the program failed, and returns the exit code. A reader that closed the pipe early,
/// as `head` does, is not an error.
pub(crate) fn report(failure: &CommandError) -> ExitCode {
    if failure.is_broken_pipe {
        return ExitCode::SUCCESS;
    }
    stderr::print(&failure.to_json(), failure);
    ExitCode::from(failure.code)
}

/// Prints what is wrong with the command line, and returns the exit code. Prints JSON if `--json`
/// is anywhere on it. Help and version arrive here too, and are not errors.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let is_json = std::env::args_os()
        .skip(1)
        .take_while(|arg| arg != "--")
        .any(|arg| arg == "--json");
    if !error.use_stderr() || !is_json {
        drop(error.print());
        return ExitCode::from(if error.use_stderr() { USAGE } else { DONE });
    }
    print_json_errors();
    let text = error.to_string();
    let text = text.trim_end().trim_start_matches("error: ");
    report(&CommandError::usage(text))
}
