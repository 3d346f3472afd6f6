//! Opens the input as text. Decompresses gzip and zstd, and refuses other compressions, UTF-16 and
//! UTF-32.

use crate::input;
use crate::output::{CommandError, IO};
use crate::stop::StopFlag;
use flate2::bufread::MultiGzDecoder;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

/// The byte order mark of UTF-8.
pub(super) const BOM: &[u8] = b"\xef\xbb\xbf";

/// The size of the buffer for decompressed bytes.
const BUFFER_BYTES: usize = 1 << 18;

/// The number of first bytes that are needed to detect the compression and the encoding.
const HEAD_BYTES: u64 = 6;

/// Unsupported compressions: the first bytes, the name, and a command that decompresses the file.
const NOT_READ: [(&[u8], &str, &str); 5] = [
    (b"\xfd7zXZ\0", "xz", "xz -dc"),
    (b"PK\x03\x04", "zip", "unzip -p"),
    (b"\x04\x22\x4d\x18", "lz4", "lz4 -dc"),
    (b"\x1f\x9d", "compress", "zcat"),
    (b"7z\xbc\xaf", "7z", "7z x -so"),
];

/// A decompressed input. Its errors name the input.
pub(super) struct Source {
    inner: Box<dyn BufRead>,
    name: String,
    compression: Option<&'static str>,
    has_bom: bool,
}

impl Source {
    /// Opens an input and examines its first bytes. Blocks until a pipe has delivered them.
    ///
    /// # Errors
    /// The input cannot be read, has an unsupported compression, or is UTF-16 or UTF-32 text.
    pub(super) fn open(path: &Path, stop: &StopFlag) -> Result<Self, CommandError> {
        let name = if path == Path::new("-") {
            "standard input".to_owned()
        } else {
            path.display().to_string()
        };
        let opened = input::open(path, stop).and_then(|input| Self::new(input, &name));
        // The error is not converted as it is, because a broken pipe of the input would be treated
        // as a broken pipe of standard output.
        opened.map_err(|error| CommandError::new(IO, "io", named(&name, None, &error).to_string()))
    }

    fn new(input: Box<dyn BufRead>, name: &str) -> io::Result<Self> {
        let (head, input) = peek(input)?;
        let (compression, inner) = decompress(&head, input)?;
        let (text, inner) = match compression {
            None => (head, inner),
            Some(what) => peek(inner).map_err(|error| named_kind(what, &error))?,
        };
        refuse_other_encodings(&text)?;
        let mut source = Self {
            inner,
            name: name.to_owned(),
            compression,
            has_bom: text.starts_with(BOM),
        };
        if source.has_bom {
            source.inner.consume(BOM.len());
        }
        Ok(source)
    }

    /// Returns the byte order mark that was skipped, or an empty slice.
    pub(super) fn passed_over(&self) -> &'static [u8] {
        if self.has_bom { BOM } else { b"" }
    }

    /// Returns the name of the input in errors.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// Reads the first bytes without consuming them. Reads repeatedly, because a pipe may deliver them
/// one by one.
fn peek(mut input: Box<dyn BufRead>) -> io::Result<(Vec<u8>, Box<dyn BufRead>)> {
    let mut head = Vec::new();
    (&mut input).take(HEAD_BYTES).read_to_end(&mut head)?;
    Ok((head.clone(), Box::new(Cursor::new(head).chain(input))))
}

fn decompress(
    head: &[u8],
    input: Box<dyn BufRead>,
) -> io::Result<(Option<&'static str>, Box<dyn BufRead>)> {
    let known = NOT_READ.iter().find(|(magic, ..)| head.starts_with(magic));
    let mut known = known.map(|(_, what, command)| (*what, *command));
    if let [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A'] = head {
        known = Some(("bzip2", "bzip2 -dc"));
    }
    if let Some((what, command)) = known {
        return Err(io::Error::other(format!(
            "is compressed with {what}, which import does not support: decompress it and pipe it in, \
             with `{command} FILE | vbstore import ... -`"
        )));
    }
    // Parallel zstd compressors begin with a skippable frame, which has one of sixteen magic
    // numbers.
    let is_zstd = match head {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => true,
        [first, 0x2a, 0x4d, 0x18, ..] => first & 0xf0 == 0x50,
        _ => false,
    };
    if is_zstd {
        let decoder = zstd::stream::read::Decoder::with_buffer(input)?;
        return Ok((Some("zstd"), buffered(decoder)));
    }
    if head.starts_with(&[0x1f, 0x8b]) {
        return Ok((Some("gzip"), buffered(MultiGzDecoder::new(input))));
    }
    Ok((None, input))
}

fn buffered(input: impl Read + 'static) -> Box<dyn BufRead> {
    Box::new(BufReader::with_capacity(BUFFER_BYTES, input))
}

/// Refuses UTF-16 and UTF-32 text. UTF-16 text without a byte order mark is recognised by the zero
/// bytes beside its first characters, which UTF-8 text does not have.
fn refuse_other_encodings(head: &[u8]) -> io::Result<()> {
    let what = match head {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => "UTF-32",
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "UTF-16",
        [a, 0, b, 0, ..] | [0, a, 0, b, ..] if *a != 0 && *b != 0 => "UTF-16",
        _ => return Ok(()),
    };
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "is {what} text: convert it to UTF-8 first, with `iconv -f {what} -t UTF-8 FILE | vbstore \
             import ... -`"
        ),
    ))
}

/// Adds the name of the input to an error.
fn named(name: &str, compression: Option<&str>, error: &io::Error) -> io::Error {
    let error = match compression {
        Some(what) => &named_kind(what, error),
        None => error,
    };
    io::Error::new(error.kind(), format!("{name}: {error}"))
}

/// Explains an error of a decompressor.
fn named_kind(compression: &str, error: &io::Error) -> io::Error {
    let what = if error.kind() == io::ErrorKind::UnexpectedEof {
        "ends too early, the file is truncated"
    } else {
        "cannot be read"
    };
    io::Error::new(
        error.kind(),
        format!("its {compression} data {what}: {error}"),
    )
}

impl BufRead for Source {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let (name, compression) = (&self.name, self.compression);
        let filled = self.inner.fill_buf();
        filled.map_err(|error| named(name, compression, &error))
    }

    fn consume(&mut self, amount: usize) {
        self.inner.consume(amount);
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut available = self.fill_buf()?;
        let read = available.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

#[cfg(test)]
impl Source {
    /// Returns an input with these bytes.
    pub(super) fn of(bytes: &[u8]) -> io::Result<Self> {
        Self::new(Box::new(Cursor::new(bytes.to_vec())), "input")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        // The zstd program adds a checksum by default.
        encoder.include_checksum(true).unwrap();
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        let mut source = Source::of(bytes)?;
        source.read_to_end(&mut text)?;
        Ok(text)
    }

    #[test]
    fn what_is_compressed_is_read_with_all_its_members() {
        let (one, two) = (b"{\"key\":1}\n".repeat(50_000), b"{\"key\":2}\n");
        let both = [&one[..], two].concat();
        assert_eq!(read(&both).unwrap(), both);
        assert_eq!(read(&[gzip(&one), gzip(two)].concat()).unwrap(), both);
        assert_eq!(read(&[zstd(&one), zstd(two)].concat()).unwrap(), both);
        // A frame without data before the first.
        let skippable = b"\x5a\x2a\x4d\x18\x02\x00\x00\x00xx".to_vec();
        assert_eq!(read(&[skippable, zstd(two)].concat()).unwrap(), two);
        for empty in [gzip(b""), zstd(b""), Vec::new()] {
            assert_eq!(read(&empty).unwrap(), b"");
        }
    }

    #[test]
    fn what_is_cut_short_or_corrupt_is_an_error_that_names_the_input() {
        let text: Vec<u8> = (0_u32..100_000).flat_map(u32::to_be_bytes).collect();
        for whole in [gzip(&text), zstd(&text)] {
            let cut = read(&whole[..whole.len() / 2]);
            let cut = cut.map(|text| text.len()).unwrap_err();
            assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof, "{cut}");
            assert!(cut.to_string().contains("input: its "), "{cut}");
            let mut corrupt = whole.clone();
            let half = whole.len() / 2;
            corrupt[half..half + 64].fill(0xa5);
            let error = read(&corrupt).map(|text| text.len()).unwrap_err();
            assert!(error.to_string().contains("input: its "), "{error}");
        }
        assert!(read(b"\x1f\x8b").is_err());
    }

    #[test]
    fn a_byte_order_mark_is_passed_over_at_the_beginning_only() {
        let marked = [BOM, b"a", BOM, b"b"].concat();
        for bytes in [marked.clone(), gzip(&marked), zstd(&marked)] {
            let mut source = Source::of(&bytes).unwrap();
            assert_eq!(source.passed_over(), BOM);
            let mut text = Vec::new();
            source.read_to_end(&mut text).unwrap();
            assert_eq!(text, &marked[BOM.len()..]);
        }
        assert_eq!(Source::of(b"ab").unwrap().passed_over(), b"");
        assert!(Source::of(b"BZhours,id\n").is_ok());
    }

    #[test]
    fn other_encodings_and_compressions_are_refused_by_name() {
        for (bytes, name) in [
            (&b"\xff\xfe{\0}\0"[..], "UTF-16"),
            (b"\xfe\xff\0{\0}", "UTF-16"),
            (b"{\0\"\0k\0", "UTF-16"),
            (b"\0{\0\"\0k", "UTF-16"),
            (b"\xff\xfe\0\0{\0\0\0", "UTF-32"),
            (b"BZh91AY", "bzip2"),
            (b"\xfd7zXZ\0\0", "xz"),
            (b"PK\x03\x04...", "zip"),
        ] {
            let refused = read(bytes).unwrap_err().to_string();
            assert!(refused.contains(name), "{refused}");
        }
    }
}
