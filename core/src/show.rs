//! Debug output of user data: the beginning of a key, the length of a value.
//!
//! Values belong to the embedder's program and can be megabytes long, so debug output must not
//! print them.

use crate::number::u64_from;
use std::fmt;

/// Maximum number of bytes printed of a key.
const KEY_SHOWN: usize = 64;

/// Prints the first 64 bytes of a key, escaped, followed by `...` if there are more.
pub struct DebugKey<'a>(pub &'a [u8]);

/// Prints the length of a value instead of the value.
pub struct DebugLength(u64);

impl DebugLength {
    /// Returns a value that prints the length of `value`.
    #[must_use]
    pub fn of(value: &[u8]) -> Self {
        Self(u64_from(value.len()))
    }
}

impl fmt::Debug for DebugKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shown, rest) = self.0.split_at(self.0.len().min(KEY_SHOWN));
        write!(f, "\"{}", shown.escape_ascii())?;
        f.write_str(if rest.is_empty() { "\"" } else { "...\"" })
    }
}

impl fmt::Debug for DebugLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_cut_and_values_are_only_counted() {
        assert_eq!(format!("{:?}", DebugKey(b"a\"\xff")), r#""a\"\xff""#);
        assert_eq!(format!("{:?}", DebugKey(&[b'x'; 64])).len(), 66);
        assert!(format!("{:?}", DebugKey(&[b'x'; 65])).ends_with("x...\""));
        assert_eq!(format!("{:?}", DebugLength::of(b"secret")), "6 bytes");
    }
}
