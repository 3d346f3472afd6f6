//! The records that the readers return, and their errors.

use crate::import::place::Place;
use std::io;
use vbstore::Change;

/// One record of the input.
#[derive(Debug)]
pub(crate) struct Record {
    /// The lines that the record spans, counted from 1.
    pub(crate) first_line: u64,
    pub(crate) last_line: u64,
    /// The place at which reading continues after the record.
    pub(crate) place: Place,
    /// Whether the record stays the same if the input grows. A last line without a line end may be
    /// half written.
    pub(crate) is_whole: bool,
    /// The change to write, or the reason of the rejection.
    pub(crate) change: Result<Change, String>,
}

/// The error of an input whose records cannot be read.
#[derive(Debug)]
pub(crate) enum Refused {
    Io(io::Error),
    /// The header lacks the requested column, or has unusable names.
    Header(String),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Returns a list of names for the end of a message, or an empty string if there are none.
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
