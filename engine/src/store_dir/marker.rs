//! The marker file: a few lines of text, the last of which is the checksum of those before.

use super::names::MARKER;
use crate::error::{Error, Result};
use vbstore_core::StoreUuid;
use vbstore_core::ids::VBUCKETS_MAX;

/// The format that this version writes, and the newest that it reads.
pub(crate) const FORMAT: u32 = 1;

/// How far the creation of a store has progressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CreationPhase {
    /// No write was ever acknowledged: the data in the directory may be deleted.
    Creating,
    /// The store is complete.
    Ready,
}

/// The content of the marker file, which makes a directory a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoreMarker {
    pub(crate) store: StoreUuid,
    pub(crate) vbuckets: u16,
    pub(crate) phase: CreationPhase,
}

impl StoreMarker {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let phase = match self.phase {
            CreationPhase::Creating => "creating",
            CreationPhase::Ready => "ready",
        };
        let body = format!(
            "vbstore\nformat {FORMAT}\nstore {}\nvbuckets {}\nphase {phase}\n",
            self.store, self.vbuckets
        );
        format!("{body}crc {:08x}\n", crc32fast::hash(body.as_bytes())).into_bytes()
    }

    /// Decodes a marker. The first two lines and the checksum line are the same in every format, so
    /// that a newer marker can be told from a corrupt one.
    ///
    /// # Errors
    /// [`Error::Corruption`], [`Error::FormatTooNew`].
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let corrupt = |detail: &str| Error::corrupt_file(MARKER, detail);
        let text = std::str::from_utf8(bytes).map_err(|_| corrupt("the file is not text"))?;
        let (body, crc) = text
            .rsplit_once("crc ")
            .ok_or_else(|| corrupt("the checksum is missing"))?;
        if crc != format!("{:08x}\n", crc32fast::hash(body.as_bytes())) {
            return Err(corrupt("the checksum does not match"));
        }
        let mut lines = body.lines();
        if lines.next() != Some("vbstore") {
            return Err(corrupt("the first line is not \"vbstore\""));
        }
        let mut field = |name: &str| {
            let line = lines.next().and_then(|line| line.strip_prefix(name));
            let value = line.and_then(|rest| rest.strip_prefix(' '));
            value
                .map(str::to_owned)
                .ok_or_else(|| corrupt(&format!("the line \"{name}\" is missing")))
        };
        let format: u32 = field("format")?
            .parse()
            .map_err(|_| corrupt("the format is not a number"))?;
        // Checked before any other field, because a newer format may have other fields.
        if format > FORMAT {
            return Err(Error::FormatTooNew {
                found: format,
                supported: FORMAT,
            });
        }
        let store =
            StoreUuid::parse(&field("store")?).ok_or_else(|| corrupt("the store is not a uuid"))?;
        let vbuckets: u16 = field("vbuckets")?
            .parse()
            .map_err(|_| corrupt("vbuckets is not a number"))?;
        let phase = match field("phase")?.as_str() {
            "creating" => CreationPhase::Creating,
            "ready" => CreationPhase::Ready,
            _ => return Err(corrupt("the phase is neither \"creating\" nor \"ready\"")),
        };
        if !vbuckets.is_power_of_two() || vbuckets > VBUCKETS_MAX {
            return Err(corrupt("vbuckets is not a power of two from 1 to 1024"));
        }
        Ok(Self {
            store,
            vbuckets,
            phase,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker() -> StoreMarker {
        StoreMarker {
            store: StoreUuid::new([1; 16]),
            vbuckets: 64,
            phase: CreationPhase::Ready,
        }
    }

    #[test]
    fn every_flip_and_every_cut_is_corruption() {
        let bytes = marker().encode();
        assert_eq!(StoreMarker::decode(&bytes).unwrap(), marker());
        for cut in 0..bytes.len() {
            assert!(StoreMarker::decode(&bytes[..cut]).is_err(), "cut to {cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let answer = StoreMarker::decode(&flipped);
            assert!(
                matches!(answer, Err(Error::Corruption { .. })),
                "bit {bit}: {answer:?}"
            );
        }
    }

    #[test]
    fn a_newer_format_says_so_whatever_else_it_holds() {
        let body = "vbstore\nformat 2\nsomething else\n";
        let text = format!("{body}crc {:08x}\n", crc32fast::hash(body.as_bytes()));
        let answer = StoreMarker::decode(text.as_bytes());
        assert!(matches!(
            answer,
            Err(Error::FormatTooNew {
                found: 2,
                supported: 1
            })
        ));
    }
}
