//! Where a JSON value ends, found byte by byte.
//!
//! Only brackets and strings are followed; whether what lies between is JSON is found out when the
//! value is parsed. Two things go wrong in files that were cut and joined, and are noticed here so
//! that they cost one record and not all that follow: a string that is not closed ends with its
//! line, which no JSON string goes beyond; and a value that is not closed ends where another one
//! begins.

/// What is known of a value that has begun.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// The brackets that are open.
    open: Vec<u8>,
    is_in_string: bool,
    is_escaped: bool,
    /// The last byte that is no white space.
    previous: u8,
    /// White space since the line began, if nothing else has come since.
    indentation: Option<u64>,
    /// That of the value itself, if it began a line.
    own_indentation: Option<u64>,
}

impl Scanner {
    /// Begins a value, with the white space before it if it begins its line.
    pub(super) fn new(indentation: Option<u64>) -> Self {
        Self {
            own_indentation: indentation,
            ..Self::default()
        }
    }

    /// Whether this byte cannot belong to the value: it begins another one. That is an opening
    /// brace which begins a line as far to the right as the value's own, where no JSON has one.
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

    /// Goes on by a byte of the value.
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

    /// Whether no bracket and no string is open.
    pub(super) fn is_closed(&self) -> bool {
        self.open.is_empty() && !self.is_in_string
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many bytes the first value takes; `None` if it is not closed.
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
