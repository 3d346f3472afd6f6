//! Reads JSON records: one per line, the elements of an array, or consecutive values that may span
//! several lines. The reader detects the layout from the first value.

use super::json_key::{JsonKey, not_json};
use super::record::Record;
use super::scanner::Scanner;
use crate::import::place::{At, Place, Rewound, Skipped};
use crate::import::source::BOM;
use crate::input::LINE_MAX;
use crate::number::u64_from;
use crate::record;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead};
use vbstore::Change;

/// The most bytes of white space before the first record that are read together with its line.
const BLANK_MAX: usize = 1 << 16;

/// How the values are laid out in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Layout {
    /// One value per line. An invalid line does not affect the other lines.
    Lines,
    /// Consecutive values. The first value is not exactly one line.
    Values,
    /// The elements of an array, or of several consecutive arrays.
    Array,
}

/// What each value represents.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// A document that contains its key.
    Document(JsonKey),
    /// A change in the format that `dump` prints.
    Change,
}

pub(super) struct JsonReader<R> {
    input: Rewound<R>,
    content: Content,
    layout: Option<Layout>,
    walked: Walked,
    /// For [`Layout::Array`]: whether the reader is inside an array.
    is_inside: bool,
    /// The text of the current record.
    buffer: Vec<u8>,
    /// Whether the error for the next record without the key lists the fields of that record.
    lists_fields: bool,
}

/// The position of a record. Its text is in the buffer of the reader.
struct Frame {
    first_line: u64,
    last_line: u64,
    is_whole: bool,
    /// The reason to reject the record without parsing its text.
    fault: Option<String>,
}

impl<R: BufRead> JsonReader<R> {
    pub(super) fn new(input: R, passed_over: &[u8], content: Content) -> Self {
        let mut walked = Walked {
            at: At::default(),
            indentation: Some(0),
            is_after_return: false,
        };
        walked.at.pass(passed_over);
        Self {
            input: Rewound::new(input),
            content,
            layout: None,
            walked,
            is_inside: false,
            buffer: Vec::new(),
            lists_fields: true,
        }
    }

    pub(super) fn layout(&self) -> Option<Layout> {
        self.layout
    }

    pub(super) fn skip_to(&mut self, place: &Place, layout: Option<Layout>) -> io::Result<Skipped> {
        if place.offset == 0 {
            return Ok(Skipped::Same);
        }
        // A state without a layout is from an earlier version, which read only lines.
        self.layout = Some(layout.unwrap_or(Layout::Lines));
        self.is_inside = true;
        self.walked.indentation = None;
        self.input.skip_to(&mut self.walked.at, place)
    }

    pub(super) fn next(&mut self) -> io::Result<Option<Record>> {
        if self.layout.is_none() {
            self.layout = self.look()?;
        }
        self.buffer.clear();
        let frame = match self.layout {
            None => return Ok(None),
            Some(Layout::Lines) => self.line()?,
            Some(Layout::Values) => self.value(false)?,
            Some(Layout::Array) => self.value(true)?,
        };
        let Some(frame) = frame else {
            return Ok(None);
        };
        let change = match frame.fault {
            Some(fault) => Err(fault),
            None => self.parse(),
        };
        Ok(Some(Record {
            first_line: frame.first_line,
            last_line: frame.last_line,
            place: self.walked.at.place(),
            is_whole: frame.is_whole,
            change,
        }))
    }

    /// Detects the layout from the first value. Returns `None` if the input has no value.
    fn look(&mut self) -> io::Result<Option<Layout>> {
        let mut blank = Vec::new();
        let first = loop {
            let available = self.input.fill_buf()?;
            let first = available.iter().copied().find(|byte| !is_space(*byte));
            if first.is_some() || available.is_empty() {
                break first;
            }
            let length = available.len();
            blank.extend_from_slice(available);
            self.input.consume(length);
            if blank.len() > BLANK_MAX {
                self.walked.pass(&blank);
                blank.clear();
            }
        };
        self.input.unread(&blank);
        match first {
            None => Ok(None),
            Some(b'[') => Ok(Some(Layout::Array)),
            Some(b'{') if self.first_line_is_no_record()? => Ok(Some(Layout::Values)),
            Some(_) => Ok(Some(Layout::Lines)),
        }
    }

    /// Returns whether the first line that is not blank is something other than one record: it
    /// begins a value that continues in the next line, or it holds more than one value. Does not
    /// consume the line.
    fn first_line_is_no_record(&mut self) -> io::Result<bool> {
        let mut head = Vec::new();
        let is_ended = loop {
            let (taken, is_ended) = take_line(&mut self.input, LINE_MAX, &mut |bytes| {
                head.extend_from_slice(bytes);
            })?;
            let is_blank = head.iter().all(|byte| is_space(*byte));
            if !is_blank || !is_ended || taken == 0 {
                break is_ended;
            }
        };
        self.input.unread(&head);
        // The line end is part of `head`: a string that is still open there is invalid, whereas an
        // open bracket may be closed in a later line.
        let mut values = serde_json::Deserializer::from_slice(&head).into_iter::<IgnoredAny>();
        Ok(match values.next() {
            Some(Ok(_)) => {
                let rest = head.get(values.byte_offset()..).unwrap_or_default();
                rest.trim_ascii_start().starts_with(b"{")
            }
            Some(Err(error)) => error.is_eof() && is_ended,
            None => false,
        })
    }

    /// Reads the next line that is not blank into the buffer, without its line end.
    fn line(&mut self) -> io::Result<Option<Frame>> {
        loop {
            self.buffer.clear();
            let (at, buffer) = (&mut self.walked.at, &mut self.buffer);
            let (taken, is_ended) = take_line(&mut self.input, usize::MAX, &mut |bytes| {
                at.pass(bytes);
                keep(buffer, bytes);
            })?;
            if taken == 0 {
                return Ok(None);
            }
            let number = self.walked.at.line + 1;
            self.walked.at.line += u64::from(is_ended);
            while matches!(self.buffer.last(), Some(b'\n' | b'\r')) {
                self.buffer.pop();
            }
            if self.buffer.starts_with(BOM) {
                // Concatenated files have a byte order mark at the beginning of each part.
                self.buffer.drain(..BOM.len());
            }
            if self.buffer.iter().all(|byte| is_space(*byte)) {
                continue;
            }
            return Ok(Some(Frame {
                first_line: number,
                last_line: number,
                is_whole: is_ended,
                fault: None,
            }));
        }
    }

    /// Reads the next value. If `is_array`, this is the next element of an array.
    fn value(&mut self, is_array: bool) -> io::Result<Option<Frame>> {
        let Some(first) = self.beginning(is_array)? else {
            if !(is_array && self.is_inside) {
                return Ok(None);
            }
            self.is_inside = false;
            let line = self.walked.at.line + 1;
            return Ok(Some(Frame {
                first_line: line,
                last_line: line,
                is_whole: false,
                fault: Some(
                    "the input ends before the array does: the bracket `]` is missing".to_owned(),
                ),
            }));
        };
        let first_line = self.walked.at.line + 1;
        let ending = if matches!(first, b'{' | b'[') {
            self.bracketed()?
        } else {
            self.other(is_array && self.is_inside)?
        };
        let last_line = self.walked.at.line + 1;
        let fault = match ending {
            ValueEnd::Another => Some(format!(
                "the value that begins in line {first_line} is not closed where line {last_line} begins \
                 another"
            )),
            ValueEnd::Input if is_array => {
                // Without this, the next call would reject the unclosed array a second time.
                self.is_inside = false;
                Some("the input ends within a value, and before the array does".to_owned())
            }
            ValueEnd::Input if last_line > first_line => Some(format!(
                "the value that begins in line {first_line} is not closed before the input ends"
            )),
            // The parser finds any other fault of the value.
            ValueEnd::Closed | ValueEnd::Input => None,
        };
        Ok(Some(Frame {
            first_line,
            // The line that begins another value is not part of this one.
            last_line: match ending {
                ValueEnd::Another => first_line.max(last_line - 1),
                _ => last_line,
            },
            is_whole: !matches!(ending, ValueEnd::Input),
            fault,
        }))
    }

    /// Skips white space, array brackets and commas, and byte order marks before a value. Returns
    /// the first byte of the value, or `None` at the end of the input.
    fn beginning(&mut self, is_array: bool) -> io::Result<Option<u8>> {
        loop {
            let available = self.input.fill_buf()?;
            let Some(&first) = available.first() else {
                return Ok(None);
            };
            if is_space(first) {
                let end = available.iter().position(|byte| !is_space(*byte));
                let length = end.unwrap_or(available.len());
                self.walked
                    .pass(available.get(..length).unwrap_or_default());
                self.input.consume(length);
                continue;
            }
            let length = match first {
                b'[' if is_array && !self.is_inside => {
                    self.is_inside = true;
                    1
                }
                b']' if is_array && self.is_inside => {
                    self.is_inside = false;
                    1
                }
                b',' if is_array && self.is_inside => 1,
                _ if Some(&first) == BOM.first()
                    && self.input.peek(BOM.len())?.starts_with(BOM) =>
                {
                    BOM.len()
                }
                _ => return Ok(Some(first)),
            };
            let passed = self.input.peek(length)?;
            self.walked.pass(passed.get(..length).unwrap_or_default());
            self.input.consume(length);
        }
    }

    /// Reads an object or an array, up to its closing bracket.
    fn bracketed(&mut self) -> io::Result<ValueEnd> {
        let mut scanner = Scanner::new(self.walked.indentation);
        loop {
            let available = self.input.fill_buf()?;
            if available.is_empty() {
                return Ok(ValueEnd::Input);
            }
            let (mut length, mut ending) = (0, None);
            for byte in available {
                if scanner.is_another(*byte) {
                    ending = Some(ValueEnd::Another);
                    break;
                }
                scanner.step(*byte);
                length += 1;
                if scanner.is_closed() {
                    ending = Some(ValueEnd::Closed);
                    break;
                }
            }
            self.take(length)?;
            if let Some(ending) = ending {
                return Ok(ending);
            }
        }
    }

    /// Reads a value that is neither an object nor an array. It extends to the end of its line; an
    /// element of an array also ends at a comma or a closing bracket.
    fn other(&mut self, is_element: bool) -> io::Result<ValueEnd> {
        let mut scanner = Scanner::new(None);
        loop {
            let available = self.input.fill_buf()?;
            if available.is_empty() {
                return Ok(ValueEnd::Input);
            }
            let mut is_over = false;
            let mut length = 0;
            for byte in available {
                let ends = match byte {
                    b'\n' | b'\r' => true,
                    b',' | b']' => is_element && scanner.is_closed(),
                    _ => false,
                };
                if ends {
                    is_over = true;
                    break;
                }
                scanner.step(*byte);
                length += 1;
            }
            self.take(length)?;
            if is_over {
                return Ok(ValueEnd::Closed);
            }
        }
    }

    /// Moves `length` bytes from the input to the buffer.
    fn take(&mut self, length: usize) -> io::Result<()> {
        let taken = self.input.fill_buf()?.get(..length).unwrap_or_default();
        keep(&mut self.buffer, taken);
        self.walked.pass(taken);
        self.input.consume(length);
        Ok(())
    }

    fn parse(&mut self) -> Result<Change, String> {
        if self.buffer.len() > LINE_MAX {
            return Err(format!("longer than {LINE_MAX} bytes"));
        }
        let text = std::str::from_utf8(&self.buffer)
            .map_err(|error| format!("not UTF-8 (byte {})", error.valid_up_to() + 1))?;
        match &self.content {
            Content::Document(key) => {
                let key = key.of(text, &mut self.lists_fields)?;
                Ok(Change::set(key, self.buffer.clone()))
            }
            Content::Change => {
                let object: serde_json::Value =
                    serde_json::from_str(text).map_err(|error| not_json(&error, text))?;
                record::change(object.as_object().ok_or("not a JSON object")?)
            }
        }
    }
}

/// The position of the reader, when values may begin and end anywhere in a line.
struct Walked {
    at: At,
    /// The width of the white space at the beginning of the line; `None` after any other byte.
    indentation: Option<u64>,
    /// The previous byte was a carriage return, so a line feed does not count as another line end.
    is_after_return: bool,
}

impl Walked {
    /// Advances past `bytes` and counts their line ends. A line end is a line feed, a carriage
    /// return, or a carriage return followed by a line feed.
    fn pass(&mut self, bytes: &[u8]) {
        self.at.pass(bytes);
        for byte in bytes {
            match byte {
                b'\n' if self.is_after_return => {}
                b'\n' | b'\r' => {
                    self.at.line += 1;
                    self.indentation = Some(0);
                }
                b' ' | b'\t' => self.indentation = self.indentation.map(|width| width + 1),
                _ => self.indentation = None,
            }
            self.is_after_return = *byte == b'\r';
        }
    }
}

/// Why the reading of a value ended.
#[derive(Clone, Copy)]
enum ValueEnd {
    Closed,
    /// Another value begins.
    Another,
    /// The input ended.
    Input,
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Appends bytes of a record to `buffer`, up to `LINE_MAX + 1` bytes: enough to detect a record
/// that is too long.
fn keep(buffer: &mut Vec<u8>, bytes: &[u8]) {
    let room = (LINE_MAX + 1).saturating_sub(buffer.len());
    buffer.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
}

/// Reads a line together with its end: a line feed, a carriage return, or a carriage return
/// followed by a line feed. Stops after about `most` bytes. Returns the number of bytes read, and
/// whether they include the line end.
fn take_line<R: BufRead>(
    input: &mut Rewound<R>,
    most: usize,
    sink: &mut dyn FnMut(&[u8]),
) -> io::Result<(u64, bool)> {
    let mut taken: u64 = 0;
    while taken < u64_from(most) {
        let available = input.fill_buf()?;
        if available.is_empty() {
            break;
        }
        let end = memchr::memchr2(b'\n', b'\r', available);
        let length = end.map_or(available.len(), |at| at + 1);
        let piece = available.get(..length).unwrap_or_default();
        let is_return = piece.last() == Some(&b'\r');
        sink(piece);
        input.consume(length);
        taken += u64_from(length);
        if end.is_some() {
            if is_return && input.peek(1)?.first() == Some(&b'\n') {
                sink(b"\n");
                input.consume(1);
                taken += 1;
            }
            return Ok((taken, true));
        }
    }
    Ok((taken, false))
}

#[cfg(test)]
mod tests;
