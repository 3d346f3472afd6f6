//! What a caller asks to be written, and what comes back.

use bytes::Bytes;
use std::fmt;
use vbstore_core::show;
use vbstore_core::{Cas, ItemKind, Seqno, VbUuid};

/// What is to happen to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Give it the value, whatever it had.
    Set,
    /// Give it the value if it has none.
    Add,
    /// Give it the value if it has one.
    Replace,
    /// Take its value away; refuse if it has none.
    Delete,
    /// Give the value it has another expiry; refuse if it has none.
    Touch,
    /// Write what another store had, unconditionally, with its CAS.
    Restore(ItemKind, Cas),
}

/// One change of one key, to be given to [`crate::VBucket::write`] or
/// [`crate::VBucket::batch`].
#[derive(Clone)]
pub struct Change {
    pub(crate) verb: Verb,
    pub(crate) key: Box<[u8]>,
    pub(crate) value: Bytes,
    pub(crate) expected_cas: Option<Cas>,
    pub(crate) flags: u32,
    pub(crate) expiry: u32,
    pub(crate) datatype: u8,
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Change")
            .field("verb", &self.verb)
            .field("key", &show::Key(&self.key))
            .field("value", &show::Length::of(&self.value))
            .finish_non_exhaustive()
    }
}

impl Change {
    fn new(verb: Verb, key: impl AsRef<[u8]>, value: Bytes) -> Self {
        Self {
            verb,
            key: key.as_ref().into(),
            value,
            expected_cas: None,
            flags: 0,
            expiry: 0,
            datatype: 0,
        }
    }

    /// Gives the key the value, whatever it had.
    #[must_use]
    pub fn set(key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Self {
        Self::new(Verb::Set, key, value.into())
    }

    /// Gives the key the value; refused with [`crate::Error::Exists`] if it has one.
    #[must_use]
    pub fn add(key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Self {
        Self::new(Verb::Add, key, value.into())
    }

    /// Gives the key the value; refused with [`crate::Error::NotFound`] if it has none.
    #[must_use]
    pub fn replace(key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Self {
        Self::new(Verb::Replace, key, value.into())
    }

    /// Deletes the document; refused with [`crate::Error::NotFound`] if it has none.
    #[must_use]
    pub fn delete(key: impl AsRef<[u8]>) -> Self {
        Self::new(Verb::Delete, key, Bytes::new())
    }

    /// Gives the key's value another expiry (seconds since 1970, 0 for never); refused with
    /// [`crate::Error::NotFound`] if it has none. Writes the document again under a new seqno.
    #[must_use]
    pub fn touch(key: impl AsRef<[u8]>, expiry: u32) -> Self {
        Self {
            expiry,
            ..Self::new(Verb::Touch, key, Bytes::new())
        }
    }

    /// Writes a change that another store had, unconditionally and with that store's CAS. For a
    /// deletion or an expiration `value` must be empty, and the key need not have had a value.
    #[must_use]
    pub fn restore(
        kind: ItemKind,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        cas: Cas,
    ) -> Self {
        Self::new(Verb::Restore(kind, cas), key, value.into())
    }

    /// Refuses with [`crate::Error::CasMismatch`] unless the key has this CAS, and with
    /// [`crate::Error::NotFound`] if it has no value.
    #[must_use]
    pub fn cas(mut self, expected: Cas) -> Self {
        self.expected_cas = Some(expected);
        self
    }

    /// Lets the document expire at this second since 1970; 0, the default, means never. For a restored
    /// deletion or expiration it is the second at which that was made.
    #[must_use]
    pub fn expiry(mut self, second: u32) -> Self {
        self.expiry = second;
        self
    }

    /// Keeps 32 bits of the caller's with the document. Default: 0.
    #[must_use]
    pub fn flags(mut self, flags: u32) -> Self {
        self.flags = flags;
        self
    }

    /// Keeps 8 bits of the caller's with the document: how its value is to be read. Default: 0.
    #[must_use]
    pub fn datatype(mut self, datatype: u8) -> Self {
        self.datatype = datatype;
        self
    }

    /// Returns the key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Returns the value; empty for a deletion.
    #[must_use]
    pub fn value(&self) -> &Bytes {
        &self.value
    }

    /// Returns the CAS that a restored change keeps, `None` for any other.
    #[must_use]
    pub fn restored_cas(&self) -> Option<Cas> {
        match self.verb {
            Verb::Restore(_, cas) => Some(cas),
            _ => None,
        }
    }
}

/// Where a change went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its seqno.
    pub seqno: Seqno,
    /// Its CAS.
    pub cas: Cas,
    /// The branch of history it belongs to.
    pub vb_uuid: VbUuid,
}
