//! Options for parsing rows.

use csv_core::{Reader, ReaderBuilder, Terminator};

/// Which column holds the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    /// The column with this name in the header, which is the first row.
    Named(String),
    /// The column with this index, counted from 0. There is no header.
    At(usize),
}

/// The format in which a row is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoredAs {
    /// The bytes of the row, without the line end.
    Line,
    /// A JSON object with the fields of the row.
    Json,
}

/// Options for parsing rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowsOptions {
    pub(crate) key: Column,
    pub(crate) delimiter: u8,
    /// Whether a field may be quoted.
    pub(crate) is_quoted: bool,
    pub(crate) stored_as: StoredAs,
}

impl RowsOptions {
    /// Returns a parser for rows that end with `end`.
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
        // The parser reads one blank line first, because a new csv-core parser removes a byte order
        // mark. The one of the input is already removed, and anywhere else it is data.
        parser.read_record(&[blank], &mut [0; 8], &mut [0; 8]);
        parser
    }
}
