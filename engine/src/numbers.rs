//! Conversions of numbers that cannot fail on the machines where the engine runs.

/// Converts a length or a count of items to `u64`.
///
/// # Panics
/// On a machine whose addresses have more than 64 bits.
#[expect(
    clippy::expect_used,
    reason = "no machine has addresses of more than 64 bits"
)]
pub(crate) fn count(size: usize) -> u64 {
    u64::try_from(size).expect("a size has at most 64 bits")
}
