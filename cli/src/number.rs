//! Infallible conversions of numbers, so that callers need not handle an error that cannot occur.

pub(crate) use vbstore::metrics::u64_from;

// A narrower `usize` would make `usize_from` lose bits.
const _: () = assert!(usize::BITS >= u32::BITS);

/// Converts a number to a length without loss: see the assertion above.
#[expect(
    clippy::as_conversions,
    reason = "the standard library has no `From` for it; checked when this is compiled"
)]
pub(crate) const fn usize_from(number: u32) -> usize {
    number as usize
}
