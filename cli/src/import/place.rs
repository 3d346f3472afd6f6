//! The place of a reader in its input, and an input to which bytes can be pushed back.

use crc32fast::Hasher;
use std::io::{self, BufRead};

/// A place in the input between two records. Holds all that is needed to continue there, and to
/// check that the input before it is unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Number of line ends before the place.
    pub(super) line: u64,
    /// Number of bytes of the decompressed input before the place.
    pub(super) offset: u64,
    /// CRC-32 of these bytes; `None` if an earlier version of the program saved the place.
    pub(super) crc: Option<u32>,
}

/// The current place of a reader, with a running CRC.
#[derive(Clone, Debug, Default)]
pub(super) struct At {
    pub(super) line: u64,
    pub(super) offset: u64,
    hasher: Hasher,
}

impl At {
    /// Advances past bytes. The reader counts the lines, since it knows what ends one.
    pub(super) fn pass(&mut self, bytes: &[u8]) {
        self.offset += crate::number::u64_from(bytes.len());
        self.hasher.update(bytes);
    }

    pub(super) fn place(&self) -> Place {
        Place {
            line: self.line,
            offset: self.offset,
            crc: Some(self.hasher.clone().finalize()),
        }
    }
}

/// How the input before a saved place compares with what an earlier reader read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skipped {
    /// It is the same.
    Same,
    /// It is different.
    Different,
    /// It is shorter.
    Shorter,
}

/// An input to which bytes that were read ahead can be pushed back.
#[derive(Debug)]
pub(super) struct Rewound<R> {
    back: Vec<u8>,
    /// Number of pushed-back bytes that were read again.
    taken: usize,
    input: R,
}

impl<R: BufRead> Rewound<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            back: Vec::new(),
            taken: 0,
            input,
        }
    }

    /// Pushes bytes back: the next reads return them first.
    pub(super) fn unread(&mut self, bytes: &[u8]) {
        let rest = self.back.get(self.taken..).unwrap_or_default();
        self.back = [bytes, rest].concat();
        self.taken = 0;
    }

    /// Returns the next bytes without consuming them: at least `count`, unless the input ends
    /// before. Blocks until they arrive.
    pub(super) fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        while self.left().len() < count {
            if self.left().is_empty() && self.input.fill_buf()?.len() >= count {
                return self.input.fill_buf();
            }
            let available = self.input.fill_buf()?;
            let some = available.get(..count).unwrap_or(available).to_vec();
            if some.is_empty() {
                break;
            }
            self.input.consume(some.len());
            self.back.extend_from_slice(&some);
        }
        Ok(self.left())
    }

    fn left(&self) -> &[u8] {
        self.back.get(self.taken..).unwrap_or_default()
    }

    /// Skips to a place that an earlier reader reached, and compares the skipped bytes.
    pub(super) fn skip_to(&mut self, at: &mut At, place: &Place) -> io::Result<Skipped> {
        let Some(mut left) = place.offset.checked_sub(at.offset) else {
            // Only the header was read here, and the earlier reader read less than that.
            return Ok(Skipped::Same);
        };
        while left > 0 {
            let available = self.fill_buf()?;
            if available.is_empty() {
                return Ok(Skipped::Shorter);
            }
            let step = usize::try_from(left).unwrap_or(usize::MAX);
            let step = step.min(available.len());
            at.pass(available.get(..step).unwrap_or_default());
            self.consume(step);
            left -= crate::number::u64_from(step);
        }
        at.line = place.line;
        let is_same = place.crc.is_none() || place.crc == at.place().crc;
        Ok(if is_same {
            Skipped::Same
        } else {
            Skipped::Different
        })
    }

    /// Same as [`BufRead::fill_buf`], without the need to import the trait.
    pub(super) fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.taken < self.back.len() {
            return Ok(self.left());
        }
        self.input.fill_buf()
    }

    pub(super) fn consume(&mut self, amount: usize) {
        if self.back.is_empty() {
            return self.input.consume(amount);
        }
        self.taken += amount;
        if self.taken >= self.back.len() {
            // Releases the memory: the buffer may have been as large as a record.
            (self.back, self.taken) = (Vec::new(), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    fn rest(input: &mut Rewound<impl BufRead>) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let some = input.fill_buf().unwrap().to_vec();
            if some.is_empty() {
                return all;
            }
            input.consume(some.len());
            all.extend(some);
        }
    }

    #[test]
    fn unread_bytes_are_read_again_and_peeking_takes_nothing() {
        // Two bytes at a time, as a pipe may deliver them.
        let mut input = Rewound::new(BufReader::with_capacity(2, &b"abcdef"[..]));
        assert!(input.peek(3).unwrap().starts_with(b"abc"));
        input.consume(1);
        assert!(input.peek(4).unwrap().starts_with(b"bcde"));
        input.unread(b"x");
        input.consume(2);
        input.unread(b"yz");
        assert_eq!(rest(&mut input), b"yzcdef");
        assert_eq!(input.peek(2).unwrap(), b"");
    }

    #[test]
    fn skipping_tells_another_input_from_the_same() {
        let mut at = At::default();
        at.pass(b"one\n");
        at.line = 1;
        let place = at.place();
        for (input, expected) in [
            (&b"one\ntwo"[..], Skipped::Same),
            (b"one\n", Skipped::Same),
            (b"onE\ntwo", Skipped::Different),
            (b"one", Skipped::Shorter),
        ] {
            let mut at = At::default();
            let mut input = Rewound::new(input);
            assert_eq!(input.skip_to(&mut at, &place).unwrap(), expected);
            if expected == Skipped::Same {
                assert_eq!(at.place(), place);
            }
        }
    }
}
