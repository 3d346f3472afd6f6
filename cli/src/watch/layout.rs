//! Lays out groups of values as lines that fit a terminal.

use std::fmt::Write;

/// Columns for the name of a group, with a blank.
const NAME_WIDTH: usize = 13;
/// Columns for a label and for a value. A longer value moves the next cell to the right.
const LABEL_WIDTH: usize = 11;
const VALUE_WIDTH: usize = 9;
const CELL_WIDTH: usize = LABEL_WIDTH + 1 + VALUE_WIDTH;

/// A label and its value.
pub(super) type Cell = (&'static str, String);

/// A terminal's columns and rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    columns: usize,
    rows: usize,
}

impl Size {
    /// The size for output that is not a terminal.
    pub(super) const UNLIMITED: Self = Self {
        columns: 80,
        rows: usize::MAX,
    };

    /// Returns the size of the terminal on standard output, or 80 by 24 if it does not report one.
    pub(super) fn of_terminal() -> Self {
        let reported = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
        let reported = reported.filter(|size| size.ws_col > 0 && size.ws_row > 0);
        reported.map_or(
            Self {
                columns: 80,
                rows: 24,
            },
            |size| Self {
                columns: size.ws_col.into(),
                rows: size.ws_row.into(),
            },
        )
    }
}

/// Lays out the head lines and the groups below them. The result fits the terminal in both
/// directions: if there are too many lines, the last one names the groups that are cut off.
pub(super) fn lines(head: &[String], groups: &[(&str, Vec<Cell>)], size: Size) -> Vec<String> {
    // The last column stays free: some terminals begin a new line when it is filled.
    let width = size.columns.saturating_sub(1).max(1);
    let per_line = width.saturating_sub(NAME_WIDTH).saturating_add(1) / (CELL_WIDTH + 1);
    let mut lines: Vec<String> = head.iter().flat_map(|line| wrapped(line, width)).collect();
    // The group of each line, to name those that do not fit; "" for the head.
    let mut of_group: Vec<&str> = vec![""; lines.len()];
    for (name, cells) in groups {
        for (at, cells) in cells.chunks(per_line.max(1)).enumerate() {
            let mut line = format!("{:NAME_WIDTH$}", if at == 0 { name } else { "" });
            for (label, value) in cells {
                // Writing to a string cannot fail.
                let _ = write!(line, "{label:>LABEL_WIDTH$} {value:<VALUE_WIDTH$} ");
            }
            lines.push(cut(line.trim_end(), width));
            of_group.push(name);
        }
    }
    if lines.len() > size.rows {
        let shown = size.rows.saturating_sub(1);
        let mut hidden = of_group.split_off(shown);
        hidden.dedup();
        lines.truncate(shown);
        lines.push(cut(&format!("not shown: {}", hidden.join(", ")), width));
    }
    lines
}

/// Wraps a line between words. A word that is longer than a line is cut.
fn wrapped(line: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in line.split(' ') {
        match lines.last_mut() {
            Some(last) if last.is_empty() => last.push_str(word),
            Some(last) if last.chars().count() + 1 + word.chars().count() <= width => {
                last.push(' ');
                last.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.iter().map(|line| cut(line, width)).collect()
}

/// Cuts a line that is too long, and ends it with `~`.
fn cut(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    let mut cut: String = line.chars().take(width.saturating_sub(1)).collect();
    cut.push('~');
    cut
}

/// Returns lines with the escape sequences that make a terminal show them instead of its contents.
/// No line feed follows the last line: it would scroll a full terminal.
pub(super) fn redrawn(lines: &[String]) -> String {
    let (home, clear_line, clear_below) = ("\u{1b}[H", "\u{1b}[2K", "\u{1b}[J");
    let mut text = home.to_owned();
    for (at, line) in lines.iter().enumerate() {
        if at > 0 {
            text.push_str("\r\n");
        }
        text.push_str(clear_line);
        text.push_str(line);
    }
    text.push_str(clear_below);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups() -> Vec<(&'static str, Vec<Cell>)> {
        let cell = |value: &str| ("unpersisted", value.to_owned());
        vec![
            ("db snapshots", vec![cell("0"); 4]),
            ("rates", vec![cell("1023.9MiB"); 6]),
            ("disk", vec![cell("123456789012345678901234567890"); 2]),
        ]
    }

    #[test]
    fn lines_fit_every_terminal() {
        let head = ["open  http://a-host.example.org:9184/metrics".to_owned()];
        for columns in 1..=200 {
            for rows in 1..=60 {
                let lines = lines(&head, &groups(), Size { columns, rows });
                assert!(lines.len() <= rows, "{columns}x{rows}: {lines:#?}");
                let longest = lines.iter().map(String::len).max().unwrap();
                assert!(longest <= columns, "{columns}x{rows}: {lines:#?}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let of = |columns, rows| lines(&["head".to_owned()], &groups(), Size { columns, rows });
        assert_eq!(of(200, 50).len(), 4);
        assert_eq!(of(80, 24).len(), 1 + 2 + 2 + 1);
        assert_eq!(of(40, 24).len(), 1 + 4 + 6 + 2);
        let cut = of(40, 12);
        assert_eq!(cut.len(), 12);
        assert_eq!(cut[11], "not shown: disk");
        assert!(of(80, 24)[1].contains("unpersisted 0"));
    }
}
