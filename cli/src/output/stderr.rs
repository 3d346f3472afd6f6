//! Standard error: lines for a person, or with `--json` one JSON object each.
//!
//! An object has one of these names: `error` (why the command failed), `warning` and `info` (notes
//! of the command), `log` (a message of the library). Nothing here fails: a command does not end
//! because its standard error is closed.

use serde_json::{Value, json};
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Set once, before anything is printed. A static, because panics and the log of the library print
/// to standard error too, from any thread.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Prints each line of standard error as a JSON object from now on, those of panics included.
pub(crate) fn print_json_errors() {
    IS_JSON.store(true, Ordering::Release);
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let object = json!({"error": {
            "kind": "panic",
            "message": text.unwrap_or("panicked"),
            "location": panic.location().map(ToString::to_string),
        }});
        line(format_args!("{object}"));
    }));
}

pub(crate) fn is_json() -> bool {
    IS_JSON.load(Ordering::Acquire)
}

/// Prints the object, or the text for a person.
pub(super) fn print(object: &Value, text: impl fmt::Display) {
    if is_json() {
        line(format_args!("{object}"));
    } else {
        line(format_args!("vbstore: {text}"));
    }
}

fn line(text: fmt::Arguments<'_>) {
    // One write for each line, so that lines of several threads do not mix.
    let line = format!("{text}\n");
    drop(io::stderr().lock().write_all(line.as_bytes()));
}

/// Prints a warning; the command continues.
pub(crate) fn warn(kind: &str, text: &str) {
    print(&json!({"warning": {"kind": kind, "message": text}}), text);
}

/// Prints a note that is not part of the command's result.
pub(crate) fn info(text: impl fmt::Display) {
    let text = text.to_string();
    print(&json!({"info": {"message": text}}), &text);
}

/// Returns a progress line, which is hidden unless standard error is a terminal and prints text.
pub(crate) fn progress() -> indicatif::ProgressBar {
    if io::stderr().is_terminal() && !is_json() {
        let bar = indicatif::ProgressBar::new_spinner();
        bar.set_style(indicatif::ProgressStyle::default_spinner());
        bar
    } else {
        indicatif::ProgressBar::hidden()
    }
}
