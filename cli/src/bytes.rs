//! Keys and values on the command line: read as bytes, and printed so that they cannot control a
//! terminal.

use crate::output::CommandError;
use crate::record;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

/// Returns the bytes of an argument. `what` names it in the error.
pub(crate) fn argument(what: &str, arg: &OsStr, is_base64: bool) -> Result<Vec<u8>, CommandError> {
    if !is_base64 {
        return Ok(arg.as_bytes().to_vec());
    }
    let decoded = STANDARD.decode(arg.as_bytes());
    decoded.map_err(|error| {
        let arg = quoted(arg.as_bytes());
        CommandError::usage(format!("{what}: {arg} is not base64: {error}"))
    })
}

/// Returns the bytes of a key.
///
/// # Errors
/// The key is empty, or is not base64 and should be.
pub(crate) fn key(arg: &OsStr, is_base64: bool) -> Result<Vec<u8>, CommandError> {
    let key = argument("the key", arg, is_base64)?;
    if key.is_empty() {
        return Err(CommandError::usage("the key is empty"));
    }
    Ok(key)
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Returns a key as one printable line that no other key has: unchanged, or as JSON if it is not
/// UTF-8, has control characters, or could itself be taken for such JSON.
pub(crate) fn line(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.starts_with(['"', '{']) && text.chars().all(is_shown) => text.to_owned(),
        _ => quoted(key),
    }
}

/// Returns bytes as JSON in which characters that a terminal does not show are escaped.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    let mut line = String::new();
    for letter in record::text(bytes).to_string().chars() {
        if is_shown(letter) {
            line.push(letter);
        } else {
            let mut units = [0; 2];
            for unit in letter.encode_utf16(&mut units) {
                // Writing to a string cannot fail.
                let _ = write!(line, "\\u{unit:04x}");
            }
        }
    }
    line
}

fn is_shown(letter: char) -> bool {
    // These change the direction of the text or break the line, which would disguise a key.
    let marks = ['\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}'];
    let is_mark = marks.contains(&letter)
        || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !letter.is_control() && !is_mark
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stands_for_one_key_and_has_no_control_characters() {
        let keys: [&[u8]; 12] = [
            b"plain",
            b"with blank",
            "h\u{e9}".as_bytes(),
            b"\"quoted\"",
            b"{\"base64\":\"/w==\"}",
            b"\xff",
            b"a\nb",
            b"\x1b[31mred",
            b"\x7f",
            "\u{9b}31m".as_bytes(),
            "\u{202e}txt".as_bytes(),
            b"[1]",
        ];
        let mut lines = std::collections::BTreeSet::new();
        for key in keys {
            let line = line(key);
            assert!(!line.contains(char::is_control), "{line:?}");
            let back = match serde_json::from_str::<serde_json::Value>(&line) {
                Ok(json) if line.starts_with(['"', '{']) => record::bytes(&json).unwrap(),
                _ => line.clone().into_bytes(),
            };
            assert_eq!(back, key, "{line}");
            assert!(lines.insert(line));
        }
        assert_eq!(line(b"plain"), "plain");
        assert_eq!(line(b"a\nb"), "\"a\\nb\"");
        assert_eq!(line(b"\x7f"), "\"\\u007f\"");
    }

    #[test]
    fn an_argument_that_is_not_base64_is_named_in_the_error() {
        assert_eq!(argument("k", OsStr::new("/wA="), true).unwrap(), b"\xff\0");
        let error = argument("the value", OsStr::new("!"), true).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("the value: \"!\" is not base64")
        );
    }
}
