//! The change of a key that a caller asks for, and the receipt of a written change.

use bytes::Bytes;
use std::fmt;
use vbstore_core::show;
use vbstore_core::{Cas, ItemKind, Seqno, VbUuid};

/// What a change does to its key, and the state of the key that it requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeOp {
    /// Write the document, whether or not the key has one.
    Set,
    /// Write the document; the key must not have one.
    Add,
    /// Write the document; the key must have one.
    Replace,
    /// Delete the document; the key must have one.
    Delete,
    /// Write the existing document again with another expiry; the key must have one.
    Touch,
    /// Write a change of another store unconditionally, with that store's CAS.
    Restore(ItemKind, Cas),
}

/// A change of one key. Made by one of the constructors, and written with [`crate::VBucket::write`]
/// or, with others, with [`crate::VBucket::batch`].
#[derive(Clone)]
pub struct Change {
    pub(crate) op: ChangeOp,
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
            .field("verb", &self.op)
            .field("key", &show::DebugKey(&self.key))
            .field("value", &show::DebugLength::of(&self.value))
            .finish_non_exhaustive()
    }
}

impl Change {
    fn new(op: ChangeOp, key: impl AsRef<[u8]>, value: Bytes) -> Self {
        Self {
            op,
            key: key.as_ref().into(),
            value,
            expected_cas: None,
            flags: 0,
            expiry: 0,
            datatype: 0,
        }
    }

    /// Writes the document, whether or not the key has one.
    #[must_use]
    pub fn set(key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Self {
        Self::new(ChangeOp::Set, key, value.into())
    }

    /// Writes the document; fails with [`crate::Error::Exists`] if the key has one.
    #[must_use]
    pub fn add(key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Self {
        Self::new(ChangeOp::Add, key, value.into())
    }

    /// Replaces the document; fails with [`crate::Error::NotFound`] if the key has none.
    #[must_use]
    pub fn replace(key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Self {
        Self::new(ChangeOp::Replace, key, value.into())
    }

    /// Deletes the document; fails with [`crate::Error::NotFound`] if the key has none.
    #[must_use]
    pub fn delete(key: impl AsRef<[u8]>) -> Self {
        Self::new(ChangeOp::Delete, key, Bytes::new())
    }

    /// Sets another expiry (seconds since 1970, 0 for never); fails with [`crate::Error::NotFound`]
    /// if the key has no document. Writes the whole document again, with a new seqno.
    #[must_use]
    pub fn touch(key: impl AsRef<[u8]>, expiry: u32) -> Self {
        Self {
            expiry,
            ..Self::new(ChangeOp::Touch, key, Bytes::new())
        }
    }

    /// Writes a change of another store, unconditionally and with that store's CAS. For a deletion
    /// or an expiration `value` must be empty; the key may have had no document.
    #[must_use]
    pub fn restore(
        kind: ItemKind,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        cas: Cas,
    ) -> Self {
        Self::new(ChangeOp::Restore(kind, cas), key, value.into())
    }

    /// Makes the change conditional. It fails with [`crate::Error::CasMismatch`] unless the
    /// document has this CAS, and with [`crate::Error::NotFound`] if there is no document.
    #[must_use]
    pub fn cas(mut self, expected: Cas) -> Self {
        self.expected_cas = Some(expected);
        self
    }

    /// Sets when the document expires, in seconds since 1970. Default: 0, which means never. For a
    /// restored deletion or expiration, this is the time when it was made.
    #[must_use]
    pub fn expiry(mut self, second: u32) -> Self {
        self.expiry = second;
        self
    }

    /// Sets 32 bits that are stored with the document and that the engine does not interpret.
    /// Default: 0.
    #[must_use]
    pub fn flags(mut self, flags: u32) -> Self {
        self.flags = flags;
        self
    }

    /// Sets 8 bits that are stored with the document and that the engine does not interpret:
    /// programs can use them to record how to read the value. Default: 0.
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

    /// Returns the value, which is empty for a deletion.
    #[must_use]
    pub fn value(&self) -> &Bytes {
        &self.value
    }

    /// Returns the CAS of a restored change, or `None` for any other change.
    #[must_use]
    pub fn restored_cas(&self) -> Option<Cas> {
        match self.op {
            ChangeOp::Restore(_, cas) => Some(cas),
            _ => None,
        }
    }
}

/// The receipt of a written change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteReceipt {
    /// The seqno that the change was assigned.
    pub seqno: Seqno,
    /// The CAS that the document has now.
    pub cas: Cas,
    /// The branch of history that the change belongs to.
    pub vb_uuid: VbUuid,
}
