//! Whether a CSV record goes on in the next line.

/// Where in a record the last byte seen was. Follows the same rules as the reader that takes the
/// record apart: only a quote at the beginning of a field opens it, any other is a character.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum QuoteState {
    /// At the beginning of a field.
    #[default]
    Start,
    /// In a field without quotes, or after its closing quote.
    Plain,
    /// In a quoted field.
    Quoted,
    /// After a quote in a quoted field: the closing one, or the first of two.
    Closing,
}

impl QuoteState {
    /// Goes on over more bytes of the record.
    pub(super) fn follow(&mut self, bytes: &[u8]) {
        for byte in bytes {
            *self = match (*self, *byte) {
                (Self::Quoted, b'"') => Self::Closing,
                (Self::Start | Self::Closing, b'"') | (Self::Quoted, _) => Self::Quoted,
                (_, b',' | b'\n') => Self::Start,
                _ => Self::Plain,
            };
        }
    }

    /// Whether a quoted field is open, so that a line feed is part of it.
    pub(super) fn is_open(self) -> bool {
        self == Self::Quoted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_quote_at_the_beginning_of_a_field_opens_it() {
        for (record, is_open) in [
            ("a,b\n", false),
            ("5\" pipe,x\n", false),
            ("\"a,b\n", true),
            ("\"a\nb\"\n", false),
            ("\"a\"\"\n", true),
            ("\"a\"\"\"\n", false),
            ("\"a\" \"b\n", false),
            ("a,\"\n", true),
            ("\"\",\"\"\r\n", false),
        ] {
            let mut whole = QuoteState::default();
            whole.follow(record.as_bytes());
            assert_eq!(whole.is_open(), is_open, "{record:?}");

            let mut bytewise = QuoteState::default();
            for byte in record.as_bytes() {
                bytewise.follow(&[*byte]);
            }
            assert_eq!(bytewise, whole);
        }
    }
}
