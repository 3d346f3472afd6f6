//! Checks the options of an import before anything is read.

use super::records::{Column, Content, JsonKey, Plan, RowsOptions, StoredAs};
use crate::args::{Format, ImportArgs};
use crate::output::CommandError;

/// Returns how to split the input into records.
///
/// # Errors
/// Fails if options contradict each other or have no effect together.
pub(super) fn plan(args: &ImportArgs) -> Result<Plan, CommandError> {
    let (delimiter, is_quoted) = match args.format {
        Format::Json | Format::Dump => return json(args),
        Format::Csv => (b',', true),
        Format::Tsv => (b'\t', false),
    };
    let key = if args.no_header {
        let number = args.key.parse::<usize>().ok();
        let column = number.and_then(|number| number.checked_sub(1));
        Column::At(column.ok_or_else(|| {
            CommandError::usage(format!(
                "with --no-header, --key is the number of a column (1 for the first), not {:?}",
                args.key
            ))
        })?)
    } else {
        Column::Named(args.key.clone())
    };
    let stored_as = if args.is_as_json() {
        StoredAs::Json
    } else {
        StoredAs::Line
    };
    Ok(Plan::Rows(RowsOptions {
        key,
        delimiter: args.delimiter.unwrap_or(delimiter),
        is_quoted,
        stored_as,
    }))
}

fn json(args: &ImportArgs) -> Result<Plan, CommandError> {
    let of_rows = [
        (args.delimiter.is_some(), "--delimiter"),
        (args.no_header, "--no-header"),
        (args.is_as_json(), "--as json"),
    ];
    if let Some((_, option)) = of_rows.iter().find(|(is_given, _)| *is_given) {
        return Err(CommandError::usage(format!(
            "{option} requires --format csv or --format tsv"
        )));
    }
    Ok(Plan::Json(match args.format {
        Format::Dump => Content::Change,
        _ => Content::Document(JsonKey::parse(&args.key).map_err(CommandError::usage)?),
    }))
}
