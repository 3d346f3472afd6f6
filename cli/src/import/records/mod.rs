//! Splits an input into records. Each record holds the change to write, or the reason why it is
//! rejected.

mod json;
mod json_key;
mod record;
mod rows;
mod scanner;

pub(super) use json::{Content, Layout};
pub(super) use json_key::JsonKey;
pub(super) use record::{Record, Refused};
pub(super) use rows::{Column, RowsOptions, StoredAs};

use super::place::{Place, Skipped};
use super::source::Source;
use json::JsonReader;
use rows::RowsReader;
use std::io;

/// How to split an input into records.
#[derive(Clone, Debug)]
pub(super) enum Plan {
    Json(Content),
    Rows(RowsOptions),
}

/// Reads records from an input.
pub(super) struct Records(InputReader);

enum InputReader {
    Json(Box<JsonReader<Source>>),
    Rows(Box<RowsReader<Source>>),
}

impl Records {
    /// Creates a reader. Reads the header if the format has one.
    pub(super) fn new(source: Source, plan: &Plan) -> Result<Self, Refused> {
        let passed_over = source.passed_over();
        let name = source.name().to_owned();
        Ok(Self(match plan {
            Plan::Json(content) => {
                let reader = JsonReader::new(source, passed_over, content.clone());
                InputReader::Json(Box::new(reader))
            }
            Plan::Rows(options) => {
                let reader = RowsReader::new(source, passed_over, options.clone());
                InputReader::Rows(Box::new(reader.map_err(|refused| match refused {
                    Refused::Header(what) => Refused::Header(format!("{name}: {what}")),
                    refused @ Refused::Io(_) => refused,
                })?))
            }
        }))
    }

    /// Skips to a place that an earlier reader reached.
    pub(super) fn skip_to(&mut self, place: &Place, layout: Option<Layout>) -> io::Result<Skipped> {
        match &mut self.0 {
            InputReader::Json(reader) => reader.skip_to(place, layout),
            InputReader::Rows(reader) => reader.skip_to(place),
        }
    }

    /// Returns the layout of the JSON values, as soon as it is known.
    pub(super) fn layout(&self) -> Option<Layout> {
        match &self.0 {
            InputReader::Json(reader) => reader.layout(),
            InputReader::Rows(_) => None,
        }
    }

    /// Returns the next record, or `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Record>> {
        match &mut self.0 {
            InputReader::Json(reader) => reader.next(),
            InputReader::Rows(reader) => reader.next(),
        }
    }
}
