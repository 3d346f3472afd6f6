//! Options for splitting CSV and TSV into rows and fields.

use csv_core::{Reader, ReaderBuilder, Terminator};

/// The column that holds the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    /// The column with this name in the header, which is the first row.
    Named(String),
    /// The column with this index, counted from 0. The input has no header.
    At(usize),
}

/// The value that is stored for a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoredAs {
    /// The bytes of the row.
    Line,
    /// A JSON object with the fields of the row.
    Json,
}

/// Options for splitting an input into rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowsOptions {
    pub(crate) key: Column,
    pub(crate) delimiter: u8,
    /// Whether a field may be quoted.
    pub(crate) is_quoted: bool,
    pub(crate) stored_as: StoredAs,
}

impl RowsOptions {
    /// Returns a parser for rows with this terminator.
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
        // A parser that has read something does not remove a byte order mark. The one at the
        // beginning of the input was removed before; anywhere else it is data.
        parser.read_record(&[blank], &mut [0; 8], &mut [0; 8]);
        parser
    }
}
