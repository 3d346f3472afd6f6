//! The header of CSV and TSV.

use super::StoredAs;
use crate::import::records::record::listed;

/// Maximum number of column names that an error lists.
const NAMES_MAX: usize = 50;

/// Returns the column of the key, and the names of all columns.
///
/// # Errors
/// Fails if the header lacks the column, or if its names cannot be those of a JSON object.
pub(super) fn columns(
    fields: &[&[u8]],
    key: &str,
    stored_as: StoredAs,
) -> Result<(usize, Vec<String>), String> {
    let names = fields
        .iter()
        .map(|field| String::from_utf8_lossy(field).into_owned());
    let names: Vec<String> = names.collect();
    let at = fields.iter().position(|field| *field == key.as_bytes());
    let at = at.ok_or_else(|| no_column(key, &names))?;
    if stored_as == StoredAs::Json {
        check_names(fields)?;
    }
    Ok((at, names))
}

fn no_column(name: &str, names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    let hint = if names.len() == 1 {
        " (is --delimiter correct?)"
    } else {
        ""
    };
    let there = listed(&quoted, NAMES_MAX, "the header has");
    format!("no column {name:?}{there}{hint}")
}

/// Refuses names that cannot be the fields of a JSON object, such as a name that occurs twice.
fn check_names(names: &[&[u8]]) -> Result<(), String> {
    for (at, name) in names.iter().enumerate() {
        let text = std::str::from_utf8(name);
        let text =
            text.map_err(|_| format!("--as json: the name of the column {} is not UTF-8", at + 1))?;
        if let Some(before) = names.iter().take(at).position(|before| before == name) {
            return Err(format!(
                "--as json: the columns {} and {} are both named {text:?}, which a JSON object cannot have",
                before + 1,
                at + 1
            ));
        }
    }
    Ok(())
}
