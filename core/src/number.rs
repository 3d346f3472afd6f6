//! Conversions of numbers that cannot fail, so that none has to be written as if it could.

// A wider `usize` would make `u64_from` lose bits.
const _: () = assert!(usize::BITS <= u64::BITS);

/// Returns a length or a count as a `u64`. Exact: see the assertion above.
#[expect(
    clippy::as_conversions,
    reason = "the standard library has no `From` for it; checked when this is compiled"
)]
#[must_use]
pub const fn u64_from(count: usize) -> u64 {
    count as u64
}
