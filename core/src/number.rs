//! Integer conversions that cannot fail, so that callers need no error handling for them.

// A `usize` wider than 64 bits would make `u64_from` lose bits.
const _: () = assert!(usize::BITS <= u64::BITS);

/// Converts a length or a count to `u64`. Exact: see the assertion above.
#[expect(
    clippy::as_conversions,
    reason = "the standard library has no `From` for it; the assertion above makes it exact"
)]
#[must_use]
pub const fn u64_from(count: usize) -> u64 {
    count as u64
}
