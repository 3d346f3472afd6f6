//! Values that can be checked by themselves: they hold a checksum, their key and a version.

use std::fmt::Write;

/// Returns the value of a version of a key, of about `len` bytes.
pub(super) fn make(key: &str, version: u64, len: usize) -> Vec<u8> {
    let mut body = format!("{key} {version} ");
    let mut state = version.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while body.len() < len {
        // Pseudo-random filler, which barely compresses.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let written = write!(body, "{state:016x}");
        debug_assert!(written.is_ok(), "a string takes everything");
    }
    format!("{:08x} {body}", crc32fast::hash(body.as_bytes())).into_bytes()
}

/// Returns the version in a value, or what is wrong with it, as the rest of "the value is ...".
pub(super) fn check(key: &[u8], value: &[u8]) -> Result<u64, String> {
    let text = std::str::from_utf8(value).map_err(|_| "not UTF-8")?;
    let (crc, body) = text.split_once(' ').ok_or("without a checksum")?;
    if crc != format!("{:08x}", crc32fast::hash(body.as_bytes())) {
        return Err("corrupt: its checksum does not match".to_owned());
    }
    let mut words = body.split(' ');
    if words.next().map(str::as_bytes) != Some(key) {
        return Err("of another key".to_owned());
    }
    words
        .next()
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| "without a version".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_holds_its_version_and_a_flipped_bit_is_found() {
        for len in [0, 30, 1_000] {
            let value = make("key-1", 77, len);
            assert!(value.len() >= len);
            assert_eq!(check(b"key-1", &value), Ok(77));
            assert!(check(b"key-2", &value).is_err());
            for bit in 0..value.len() * 8 {
                let mut flipped = value.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(check(b"key-1", &flipped).is_err(), "bit {bit}");
            }
        }
    }
}
