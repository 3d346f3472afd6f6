//! How rows are taken apart.

use csv_core::{Reader, ReaderBuilder, Terminator};

/// Which column holds the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    /// As the header, which is the first row, names it.
    Named(String),
    /// Counted from 0; there is no header.
    At(usize),
}

/// What is stored of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoredAs {
    /// Its bytes.
    Line,
    /// A JSON object with its fields.
    Json,
}

/// How rows are taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowsOptions {
    pub(crate) key: Column,
    pub(crate) delimiter: u8,
    /// Whether a field may be quoted.
    pub(crate) is_quoted: bool,
    pub(crate) stored_as: StoredAs,
}

impl RowsOptions {
    /// Returns a parser of rows that end so.
    pub(super) fn parser(&self, end: Terminator) -> Reader {
        let blank = match end {
            Terminator::Any(byte) => byte,
            _ => b'\n',
        };
        let mut builder = ReaderBuilder::new();
        builder
            .delimiter(self.delimiter)
            .terminator(end)
            .quoting(self.is_quoted);
        let mut parser = builder.build();
        // A parser that has read something takes no byte order mark away: that of the input is gone
        // already, and anywhere else one is data.
        parser.read_record(&[blank], &mut [0; 8], &mut [0; 8]);
        parser
    }
}
