//! The records and errors that the readers return.

use crate::import::place::Place;
use std::io;
use vbstore::Change;

/// One record of the input.
#[derive(Debug)]
pub(crate) struct Record {
    /// The first line of the record, counted from 1.
    pub(crate) first_line: u64,
    pub(crate) last_line: u64,
    /// The position after the record.
    pub(crate) place: Place,
    /// Whether the record is complete even if the input grows. A last line without a line end may
    /// be partially written.
    pub(crate) is_whole: bool,
    /// The change to write, or the reason why the record is rejected.
    pub(crate) change: Result<Change, String>,
}

/// Why an input cannot be read.
#[derive(Debug)]
pub(crate) enum Refused {
    Io(io::Error),
    /// The header is missing or invalid, or does not match the options.
    Header(String),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Returns `: `, `what` and up to `most` of the names; an empty text if there are no names.
pub(super) fn listed(names: &[String], most: usize, what: &str) -> String {
    let Some(first) = names
        .get(..names.len().min(most))
        .filter(|first| !first.is_empty())
    else {
        return String::new();
    };
    let more = names.len() - first.len();
    let more = if more == 0 {
        String::new()
    } else {
        format!(" and {more} more")
    };
    format!(": {what} {}{more}", first.join(", "))
}
