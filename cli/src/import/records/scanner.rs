//! Finds the end of a JSON value, byte by byte.
//!
//! The scanner tracks only brackets and strings; the parser checks the rest later. Files that were
//! cut and joined have two typical faults. The scanner limits each to one record: an unclosed
//! string ends with its line, because no JSON string spans lines, and an unclosed value ends where
//! another value begins.

/// The state of the scan within a value.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// The open brackets.
    open: Vec<u8>,
    is_in_string: bool,
    is_escaped: bool,
    /// The last byte that is not white space.
    previous: u8,
    /// The amount of white space at the start of the current line, while nothing else has followed.
    indentation: Option<u64>,
    /// The indentation of the value itself, if it began a line.
    own_indentation: Option<u64>,
}

impl Scanner {
    /// Starts a value. `indentation` is the white space before it, if it begins its line.
    pub(super) fn new(indentation: Option<u64>) -> Self {
        Self {
            own_indentation: indentation,
            ..Self::default()
        }
    }

    /// Returns whether this byte begins another value, and so cannot belong to this one: an opening
    /// brace that begins a line with the same indentation as this value, where JSON allows none.
    pub(super) fn is_another(&self, byte: u8) -> bool {
        if byte != b'{'
            || self.is_in_string
            || self.indentation.is_none()
            || self.indentation != self.own_indentation
        {
            return false;
        }
        let may_stand_here = match self.previous {
            b':' | b'[' => true,
            b',' => self.open.last() == Some(&b'['),
            _ => false,
        };
        !may_stand_here
    }

    /// Processes the next byte of the value.
    pub(super) fn step(&mut self, byte: u8) {
        let is_line_end = matches!(byte, b'\n' | b'\r');
        if is_line_end {
            (self.is_in_string, self.is_escaped) = (false, false);
            self.indentation = Some(0);
            return;
        }
        if self.is_in_string {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.is_in_string = false,
                _ => {}
            }
            return;
        }
        match byte {
            b' ' | b'\t' => {
                self.indentation = self.indentation.map(|width| width + 1);
                return;
            }
            b'"' => self.is_in_string = true,
            b'{' | b'[' => self.open.push(byte),
            b'}' | b']' => drop(self.open.pop()),
            _ => {}
        }
        self.previous = byte;
        self.indentation = None;
    }

    /// Returns whether the value is complete: no bracket and no string is open.
    pub(super) fn is_closed(&self) -> bool {
        self.open.is_empty() && !self.is_in_string
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the length of the first value, or `None` if it is not closed.
    fn length(text: &str) -> Option<usize> {
        let mut scanner = Scanner::new(Some(0));
        for (at, byte) in text.bytes().enumerate() {
            if at > 0 && scanner.is_another(byte) {
                return Some(at);
            }
            scanner.step(byte);
            if scanner.is_closed() {
                return Some(at + 1);
            }
        }
        None
    }

    #[test]
    fn a_value_ends_with_the_bracket_that_began_it() {
        for (value, rest) in [
            ("{}", "{}"),
            ("{\"a\":[1,{\"b\":\"}]\\\"\"}]}", ", {}"),
            ("{\n  \"a\": [\n{\n}\n]\n}", "\n{"),
            ("{\"a\":\n{}}", "\n"),
            ("[{\"a\":1},\n{\"b\":2}]", "]"),
            ("{\"a\":\"\\\\\"}", "\""),
        ] {
            assert_eq!(
                length(&format!("{value}{rest}")),
                Some(value.len()),
                "{value}"
            );
        }
        assert_eq!(length("{\"a\":1"), None);
    }

    #[test]
    fn a_value_that_is_not_closed_ends_where_another_begins() {
        for cut in [
            "{\"a\":1\n",
            "{\"a\":1,\n",
            "{\"a\": \"open\n",
            "{\n  \"a\": [1\n  ]\n",
            "{\"a\":[{}\n",
        ] {
            assert_eq!(
                length(&format!("{cut}{{\"b\":2}}")),
                Some(cut.len()),
                "{cut}"
            );
        }
    }
}
