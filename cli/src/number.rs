//! Conversions of numbers that cannot fail, so that none has to be written as if it could.

pub(crate) use vbstore::metrics::u64_from;

// A narrower `usize` would make `usize_from` lose bits.
const _: () = assert!(usize::BITS >= u32::BITS);

/// Returns a number as a length. Exact: see the assertion above.
#[expect(
    clippy::as_conversions,
    reason = "the standard library has no `From` for it; checked when this is compiled"
)]
pub(crate) const fn usize_from(number: u32) -> usize {
    number as usize
}
