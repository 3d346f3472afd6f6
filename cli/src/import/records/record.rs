//! What readers of records return.

use crate::import::place::Place;
use std::io;
use vbstore::Change;

/// One record of the input.
#[derive(Debug)]
pub(crate) struct Record {
    /// The lines it lies in, counted from 1.
    pub(crate) first_line: u64,
    pub(crate) last_line: u64,
    /// Where reading goes on after it.
    pub(crate) place: Place,
    /// Whether it is read no further whatever the input grows by. The last line may be half written
    /// where it has no line end.
    pub(crate) is_whole: bool,
    /// What it asks to be written, or why it is rejected.
    pub(crate) change: Result<Change, String>,
}

/// Why no record can be read.
#[derive(Debug)]
pub(crate) enum Refused {
    Io(io::Error),
    /// The header does not have what was asked for.
    Header(String),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Lists names behind a colon and what they are; nothing if there are none.
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
