//! The expected contents of keys, derived from the writes that were acknowledged or found to have
//! been made.

use super::value;
use std::collections::HashMap;
use vbstore::{Cas, Document, Seqno};

/// The expected contents of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ExpectedValue {
    /// 0 for a deletion that was refused but found to have been made: its seqno is not known.
    pub(super) seqno: Seqno,
    pub(super) cas: Cas,
    /// The version of its value; `None` if it was deleted.
    pub(super) version: Option<u64>,
}

/// The expected contents of all keys of a writer.
pub(super) type Model = HashMap<String, ExpectedValue>;

/// Returns how the document of a key differs from the expected one; `None` if it does not.
pub(super) fn difference(
    key: &str,
    expected: Option<&ExpectedValue>,
    found: Option<&Document>,
) -> Option<String> {
    let version = expected.and_then(|expected| expected.version);
    match (version, found) {
        (None, None) => None,
        (None, Some(found)) => Some(format!(
            "{key} has a value ({:?}), expected none",
            found.meta
        )),
        (Some(_), None) => Some(format!("{key} is missing, expected {expected:?}")),
        (Some(version), Some(found)) => {
            let meta = &found.meta;
            let is_as_written =
                expected.is_some_and(|e| e.seqno == meta.seqno && e.cas == meta.cas);
            match value::check(key.as_bytes(), &found.value) {
                Err(wrong) => Some(format!("the value of {key} is {wrong}")),
                Ok(other) if other != version => {
                    Some(format!("{key} has version {other}, expected {version}"))
                }
                Ok(_) if !is_as_written => {
                    Some(format!("{key} has {meta:?}, expected {expected:?}"))
                }
                Ok(_) => None,
            }
        }
    }
}

/// Decides from the current document of a key whether a refused write was made after all. The write
/// was to set the version `after`. Returns the expected contents from now on if it was made, and
/// `None` if it was not.
///
/// # Errors
/// The key has neither its contents from before nor those of the write: what is wrong.
pub(super) fn outcome(
    key: &str,
    before: Option<&ExpectedValue>,
    after: Option<u64>,
    found: Option<&Document>,
) -> Result<Option<ExpectedValue>, String> {
    let Some(as_refused) = difference(key, before, found) else {
        return Ok(None);
    };
    let made = ExpectedValue {
        seqno: found.map_or(Seqno::ZERO, |found| found.meta.seqno),
        cas: found.map_or(Cas::new(0), |found| found.meta.cas),
        version: after,
    };
    let is_newer = found.is_none() || before.is_none_or(|before| before.seqno < made.seqno);
    if is_newer && difference(key, Some(&made), found).is_none() {
        Ok(Some(made))
    } else {
        Err(format!("after a refused write, {as_refused}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vbstore::{ItemKind, ItemMeta};

    #[test]
    fn a_refused_write_may_have_been_made_or_not_and_nothing_else() {
        let document = |seqno, version| Document {
            meta: ItemMeta {
                seqno: Seqno::new(seqno),
                kind: ItemKind::Mutation,
                cas: Cas::new(seqno + 100),
                flags: 0,
                expiry: 0,
                datatype: 0,
                value_len: 0,
            },
            value: value::make("k", version, 20).into(),
        };
        let expected = |seqno, version| ExpectedValue {
            seqno: Seqno::new(seqno),
            cas: Cas::new(seqno + 100),
            version: Some(version),
        };
        let before = Some(&expected(5, 3));
        // Not made.
        assert_eq!(
            outcome("k", before, Some(4), Some(&document(5, 3))),
            Ok(None)
        );
        assert_eq!(outcome("k", None, Some(4), None), Ok(None));
        // Made: newer than what was acknowledged, so nothing is lost.
        let made = |after, found: Option<&Document>| outcome("k", before, after, found).unwrap();
        assert_eq!(made(Some(4), Some(&document(7, 4))), Some(expected(7, 4)));
        assert_eq!(made(None, None).unwrap().version, None, "a deletion");
        let touched = Some(expected(7, 3));
        assert_eq!(made(Some(3), Some(&document(7, 3))), touched);
        let first = outcome("k", None, Some(4), Some(&document(7, 4)));
        assert_eq!(first, Ok(Some(expected(7, 4))));
        // Neither.
        for (after, found) in [
            (Some(4), None),
            (Some(4), Some(document(7, 2))),
            (Some(4), Some(document(4, 4))),
            (None, Some(document(7, 4))),
        ] {
            let wrong = outcome("k", before, after, found.as_ref());
            assert!(wrong.is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn every_difference_from_the_expected_document_is_found() {
        let meta = ItemMeta {
            seqno: Seqno::new(5),
            kind: ItemKind::Mutation,
            cas: Cas::new(9),
            flags: 0,
            expiry: 0,
            datatype: 0,
            value_len: 0,
        };
        let found = Document {
            meta,
            value: value::make("k", 3, 20).into(),
        };
        let expected = ExpectedValue {
            seqno: Seqno::new(5),
            cas: Cas::new(9),
            version: Some(3),
        };
        let deleted = ExpectedValue {
            version: None,
            ..expected
        };

        assert_eq!(difference("k", Some(&expected), Some(&found)), None);
        assert_eq!(difference("k", Some(&deleted), None), None);
        assert_eq!(difference("k", None, None), None);
        assert!(difference("k", Some(&expected), None).is_some());
        assert!(difference("k", None, Some(&found)).is_some());
        assert!(difference("k", Some(&deleted), Some(&found)).is_some());
        for wrong in [
            ExpectedValue {
                version: Some(2),
                ..expected
            },
            ExpectedValue {
                seqno: Seqno::new(4),
                ..expected
            },
            ExpectedValue {
                cas: Cas::new(8),
                ..expected
            },
        ] {
            assert!(difference("k", Some(&wrong), Some(&found)).is_some());
        }
        let torn = Document {
            meta,
            value: found.value.slice(..10),
        };
        assert!(difference("k", Some(&expected), Some(&torn)).is_some());
    }
}
