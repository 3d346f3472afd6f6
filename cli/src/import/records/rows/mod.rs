//! Reads rows of fields (CSV and TSV), with or without a header.
//!
//! The first line end of the input determines where rows end:
//! - A line feed, with or without a carriage return before it: rows end with line feeds, and a
//!   carriage return elsewhere is data.
//! - A carriage return alone, as old spreadsheets write it: rows end with carriage returns.

mod header;
mod options;

pub(crate) use options::{Column, RowsOptions, StoredAs};

use super::record::{Record, Refused};
use crate::import::place::{At, Place, Rewound, Skipped};
use crate::input::LINE_MAX;
use crate::number::u64_from;
use csv_core::{ReadFieldResult, ReadRecordResult, Reader, Terminator};
use serde::Serializer;
use std::io::{self, BufRead};
use vbstore::Change;

/// Bytes parsed per call of the parser. A call yields at most this number of fields and of field
/// bytes, so the output buffers can be sized before the call.
const PIECE_BYTES: usize = 1 << 13;
/// The most bytes that are read again, in total, after unmatched quotes. Beyond this limit, the
/// whole row with the unmatched quote is skipped.
const READ_AGAIN_MAX: u64 = 1 << 30;

pub(super) struct RowsReader<R> {
    input: Rewound<R>,
    options: RowsOptions,
    parser: Reader,
    /// The byte that ends a row.
    end: u8,
    at: At,
    /// The names of the columns, or their numbers if there is no header.
    names: Vec<String>,
    key: usize,
    /// The bytes of the current row.
    raw: Vec<u8>,
    /// The unquoted fields of the current row, and the offset in `fields` at which each ends.
    fields: Vec<u8>,
    ends: Vec<usize>,
    count: usize,
    /// After an unmatched quote: the offset up to which the input is read again because it was
    /// parsed as part of a quoted field, and the line in which that field begins.
    doubtful: Option<(u64, u64)>,
    /// An unclosed quoted field reached the end of the input. More input may follow later.
    is_open_at_end: bool,
    /// Bytes read again so far; see [`READ_AGAIN_MAX`].
    read_again: u64,
}

/// The result of [`RowsReader::find`]. The position does not yet include the bytes found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// A row, with or without its line end.
    Row {
        is_ended: bool,
    },
    /// A row longer than [`LINE_MAX`]; the input may end within it.
    TooLong,
    /// A quoted field that is closed neither before the end of the input nor before the limit.
    Open {
        is_at_end: bool,
    },
}

impl<R: BufRead> RowsReader<R> {
    /// Reads the header, if there is one.
    pub(super) fn new(input: R, passed_over: &[u8], options: RowsOptions) -> Result<Self, Refused> {
        let mut at = At::default();
        at.pass(passed_over);
        let mut reader = Self {
            input: Rewound::new(input),
            // The first row ends at any kind of line end, which then determines `end`.
            parser: options.parser(Terminator::CRLF),
            options,
            end: b'\n',
            at,
            names: Vec::new(),
            key: 0,
            raw: Vec::new(),
            fields: Vec::new(),
            ends: Vec::new(),
            count: 0,
            doubtful: None,
            is_open_at_end: false,
            read_again: 0,
        };
        reader.begin()?;
        Ok(reader)
    }

    fn begin(&mut self) -> Result<(), Refused> {
        let found = self.find()?;
        if self.raw.last() == Some(&b'\r') {
            if self.input.peek(1)?.first() == Some(&b'\n') {
                self.input.consume(1);
                self.raw.push(b'\n');
            } else if matches!(found, Found::Row { is_ended: true }) {
                self.end = b'\r';
            }
        }
        self.parser = self.options.parser(Terminator::Any(self.end));
        let Column::Named(name) = &self.options.key else {
            self.input.unread(&self.raw);
            if let Column::At(key) = self.options.key {
                self.key = key;
            }
            return Ok(());
        };
        let what = match found {
            Found::Row { .. } if self.lines_within() > 0 && !self.has_matching_quotes() => {
                Some("the quotes of the header do not match".to_owned())
            }
            Found::Row { .. } => None,
            Found::Nothing => Some("is empty: there is no header".to_owned()),
            Found::TooLong => Some(format!("the header is longer than {LINE_MAX} bytes")),
            Found::Open { .. } => Some("a quoted field of the header is not closed".to_owned()),
        };
        if let Some(what) = what {
            return Err(Refused::Header(what));
        }
        let fields: Vec<&[u8]> = self.fields().collect();
        let columns = header::columns(&fields, name, self.options.stored_as);
        (self.key, self.names) = columns.map_err(Refused::Header)?;
        self.pass_raw();
        Ok(())
    }

    pub(super) fn skip_to(&mut self, place: &Place) -> io::Result<Skipped> {
        self.input.skip_to(&mut self.at, place)
    }

    pub(super) fn next(&mut self) -> io::Result<Option<Record>> {
        loop {
            let found = self.find()?;
            self.skip_blank_lines();
            let first_line = self.at.line + 1;
            let (change, is_ended) = match found {
                Found::Nothing => return Ok(None),
                Found::Open { is_at_end } => self.unclosed(first_line, is_at_end)?,
                Found::TooLong => self.too_long()?,
                Found::Row { is_ended } => {
                    let end = self.cut_end(is_ended);
                    let is_blank = self.raw.is_empty();
                    let fault = self.fault_over_lines(first_line);
                    if let Some(fault) = fault {
                        self.raw.extend(end);
                        self.is_open_at_end |= !is_ended;
                        self.reject_line(first_line, &fault)?
                    } else {
                        self.pass_raw();
                        self.pass(&end);
                        if is_blank {
                            // The line consists of a carriage return and a line feed only.
                            continue;
                        }
                        (self.parse(first_line), is_ended)
                    }
                }
            };
            return Ok(Some(Record {
                first_line,
                last_line: self.at.line + u64::from(!is_ended),
                place: self.at.place(),
                is_whole: is_ended && !self.is_open_at_end,
                change,
            }));
        }
    }

    /// Reads the next row into the buffers, together with the blank lines before it.
    fn find(&mut self) -> io::Result<Found> {
        self.raw.clear();
        self.count = 0;
        let mut length = 0;
        loop {
            self.make_room(length);
            let available = self.input.fill_buf()?;
            let piece = available.get(..PIECE_BYTES).unwrap_or(available);
            let is_at_end = piece.is_empty();
            if is_at_end && self.raw.iter().all(|byte| matches!(byte, b'\n' | b'\r')) {
                return Ok(Found::Nothing);
            }
            // At the end of the input, a line end is appended: it ends the row, unless a quoted
            // field is open.
            let end = [self.end];
            let piece = if is_at_end { &end[..] } else { piece };
            let (found, read, written, ended) = self.parser.read_record(
                piece,
                self.fields.get_mut(length..).unwrap_or_default(),
                self.ends.get_mut(self.count..).unwrap_or_default(),
            );
            length += written;
            self.count += ended;
            if is_at_end {
                return Ok(match found {
                    ReadRecordResult::Record => Found::Row { is_ended: false },
                    _ => Found::Open { is_at_end: true },
                });
            }
            self.raw
                .extend_from_slice(piece.get(..read).unwrap_or_default());
            self.input.consume(read);
            if found == ReadRecordResult::Record {
                return Ok(Found::Row { is_ended: true });
            }
            if self.raw.len() > LINE_MAX {
                return Ok(match self.open_field() {
                    None => Found::TooLong,
                    Some(_) => Found::Open { is_at_end: false },
                });
            }
        }
    }

    /// Grows the output buffers so that they can hold the fields of one more piece.
    fn make_room(&mut self, length: usize) {
        let (fields, ends) = (length + PIECE_BYTES + 1, self.count + PIECE_BYTES + 1);
        if self.fields.len() < fields {
            self.fields.resize(fields.max(2 * length), 0);
        }
        if self.ends.len() < ends {
            self.ends.resize(ends.max(2 * self.count), 0);
        }
    }

    /// Skips the blank lines before the row.
    fn skip_blank_lines(&mut self) {
        let blank = self
            .raw
            .iter()
            .take_while(|byte| **byte == self.end)
            .count();
        let blank: Vec<u8> = self.raw.drain(..blank).collect();
        self.pass(&blank);
    }

    fn pass(&mut self, bytes: &[u8]) {
        self.at.pass(bytes);
        self.at.line += u64_from(memchr::memchr_iter(self.end, bytes).count());
    }

    fn pass_raw(&mut self) {
        let raw = std::mem::take(&mut self.raw);
        self.pass(&raw);
        self.raw = raw;
    }

    /// Removes the line end from the row and returns it. A carriage return before a line feed is
    /// part of the line end, so it is removed from the last field as well.
    fn cut_end(&mut self, is_ended: bool) -> Vec<u8> {
        let mut length = self.raw.len() - usize::from(is_ended);
        let is_return = |at: usize| self.raw.get(at) == Some(&b'\r');
        if self.end == b'\n' && length.checked_sub(1).is_some_and(is_return) {
            length -= 1;
            let begin = self.count.checked_sub(2).and_then(|at| self.ends.get(at));
            let begin = begin.copied().unwrap_or(0);
            let last = self.count.checked_sub(1);
            if let Some(end) = last.and_then(|at| self.ends.get_mut(at))
                && *end > begin
                && self.fields.get(*end - 1) == Some(&b'\r')
            {
                *end -= 1;
            }
        }
        self.raw.split_off(length)
    }

    /// Returns the number of line ends within the row.
    fn lines_within(&self) -> u64 {
        let raw = self.raw.trim_ascii();
        u64_from(memchr::memchr_iter(self.end, raw).count())
    }

    /// Returns why a row that spans several lines is probably several rows, or `None`. A stray
    /// quote opens a field that extends to the next quote of the input, however far away that is.
    fn fault_over_lines(&self, first_line: u64) -> Option<String> {
        let lines = self.lines_within();
        if lines == 0 {
            return None;
        }
        let what = if !self.has_matching_quotes() {
            "has text after a closing quote".to_owned()
        } else if !self.names.is_empty() && self.count != self.names.len() {
            format!("has {} fields, not {}", self.count, self.names.len())
        } else {
            return None;
        };
        let last_line = first_line + lines;
        Some(format!(
            "the row in lines {first_line} to {last_line} {what}: a quote is missing or superfluous"
        ))
    }

    /// Returns whether each field is quoted either completely or not at all, as programs write
    /// them.
    fn has_matching_quotes(&self) -> bool {
        let mut rest = self.raw.as_slice();
        while let Some((b'\n' | b'\r', behind)) = rest.split_first() {
            rest = behind;
        }
        for field in self.fields() {
            let is_quoted = self.options.is_quoted && rest.first() == Some(&b'"');
            let behind = if is_quoted {
                let mut inner = rest.get(1..).unwrap_or_default();
                for part in field.split_inclusive(|byte| *byte == b'"') {
                    let Some(behind) = inner.strip_prefix(part) else {
                        return false;
                    };
                    // A quote within a quoted field is written twice.
                    let twice = part.last() == Some(&b'"');
                    inner = match behind.strip_prefix(b"\"") {
                        Some(behind) if twice => behind,
                        _ if twice => return false,
                        _ => behind,
                    };
                }
                inner.strip_prefix(b"\"")
            } else {
                rest.strip_prefix(field)
            };
            rest = match behind {
                None => return false,
                Some([first, behind @ ..]) if *first == self.options.delimiter => behind,
                Some(behind) => behind,
            };
        }
        rest.iter().all(|byte| matches!(byte, b'\n' | b'\r'))
    }

    fn fields(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.ends.iter().take(self.count);
        ends.scan(0, |begin, end| {
            let field = self.fields.get(*begin..*end);
            *begin = *end;
            field
        })
    }

    fn parse(&mut self, first_line: u64) -> Result<Change, String> {
        if self.raw.len() > LINE_MAX {
            return Err(too_long());
        }
        if self.names.is_empty() {
            // Without a header, the first row determines the number of columns.
            self.names = (1..=self.count).map(|number| number.to_string()).collect();
        }
        let columns = self.names.len();
        if let Some((until, begun)) = self.doubtful
            && self.at.offset <= until
            && self.count != columns
        {
            return Err(format!(
                "{} fields, not {columns}: the row may be part of the quoted field that begins in line {begun}",
                self.count
            ));
        }
        if self.count != columns && self.has_other_line_end() {
            return Err(format!(
                "{} fields, not {columns}, and a line end of another kind than the first line end: use \
                 one kind of line end in the whole input",
                self.count
            ));
        }
        let key = self.fields().nth(self.key).ok_or_else(|| {
            format!(
                "{} fields: the key's column, the {}, is missing",
                self.count,
                ordinal(self.key)
            )
        })?;
        if self.options.stored_as == StoredAs::Line {
            return Ok(Change::set(key, self.raw.clone()));
        }
        if self.count > columns {
            return Err(format!(
                "{} fields, more than the {columns} of the first line",
                self.count
            ));
        }
        let object = self.object(first_line)?;
        Ok(Change::set(key, object))
    }

    /// Returns whether the row contains, outside quotes, the line end character that does not end
    /// rows in this input. It may be data, or it may end rows in a part of the input that another
    /// program wrote.
    fn has_other_line_end(&self) -> bool {
        let other = if self.end == b'\n' { b'\r' } else { b'\n' };
        if memchr::memchr(other, &self.raw).is_none() {
            return false;
        }
        let mut parser = self.options.parser(Terminator::CRLF);
        let (mut fields, mut ends) = (vec![0; self.raw.len() + 1], vec![0; self.raw.len() + 1]);
        let (found, ..) = parser.read_record(&self.raw, &mut fields, &mut ends);
        found == ReadRecordResult::Record
    }

    /// Returns the row as a JSON object. The object omits the fields that the row does not have.
    fn object(&self, first_line: u64) -> Result<Vec<u8>, String> {
        let mut fields = Vec::with_capacity(self.count);
        for (name, field) in self.names.iter().zip(self.fields()) {
            let field = std::str::from_utf8(field)
                .map_err(|_| format!("field {name:?} is not UTF-8, which JSON requires"))?;
            fields.push((name, field));
        }
        let mut object = Vec::with_capacity(2 * self.raw.len());
        serde_json::Serializer::new(&mut object)
            .collect_map(fields)
            .map_err(|error| format!("line {first_line}: {error}"))?;
        Ok(object)
    }

    /// Rejects a row because a quoted field is not closed. Returns the reason, and whether the last
    /// rejected line has a line end.
    fn unclosed(
        &mut self,
        first_line: u64,
        is_at_end: bool,
    ) -> io::Result<(Result<Change, String>, bool)> {
        let opens_at = self.open_field().unwrap_or(0);
        let before = self.raw.get(..opens_at).unwrap_or_default();
        let begun = first_line + u64_from(memchr::memchr_iter(self.end, before).count());
        let rest = self.raw.get(opens_at..).unwrap_or_default();
        let line_end = memchr::memchr(self.end, rest).map(|at| opens_at + at + 1);
        let lines = u64_from(memchr::memchr_iter(self.end, rest).count());
        let to = if is_at_end {
            "before the input ends"
        } else {
            "within the longest record"
        };
        let text = format!("the quoted field that begins in line {begun} is not closed {to}");
        self.is_open_at_end |= is_at_end;
        match line_end {
            Some(cut) => {
                let text = format!("{text}: {lines} lines would be part of it");
                self.reject_up_to(cut, begun, &text)
            }
            None if is_at_end => {
                self.pass_raw();
                Ok((Err(text), false))
            }
            None => self.too_long(),
        }
    }

    /// Rejects the first line of the buffer.
    fn reject_line(&mut self, line: u64, text: &str) -> io::Result<(Result<Change, String>, bool)> {
        let cut = memchr::memchr(self.end, &self.raw).map_or(self.raw.len(), |at| at + 1);
        self.reject_up_to(cut, line, text)
    }

    /// Rejects the first `cut` bytes of the buffer, and returns the rest to the input. The rows of
    /// the rest are parsed separately and marked as doubtful.
    fn reject_up_to(
        &mut self,
        cut: usize,
        begun: u64,
        text: &str,
    ) -> io::Result<(Result<Change, String>, bool)> {
        let again = u64_from(self.raw.len() - cut);
        if self.read_again + again > READ_AGAIN_MAX {
            let before = self.at.line;
            let (_, is_ended) = self.too_long()?;
            let lines = self.at.line + u64::from(!is_ended) - before;
            let text = format!("{text}; {lines} lines are skipped with it");
            return Ok((Err(text), is_ended));
        }
        self.read_again += again;
        let unread_bytes = self.raw.split_off(cut);
        self.pass_raw();
        self.input.unread(&unread_bytes);
        let until = self.at.offset + again;
        let earlier = self.doubtful.map_or(0, |(until, _)| until);
        self.doubtful = Some((until.max(earlier), begun));
        self.parser = self.options.parser(Terminator::Any(self.end));
        let next = self.at.line + 1;
        Ok((
            Err(format!("{text}; the import continues at line {next}")),
            true,
        ))
    }

    /// Returns the offset in the row of its last field, if that field is quoted and not closed.
    fn open_field(&self) -> Option<usize> {
        // A new parser, because a clone of a csv-core parser loses its state tables.
        let mut parser = self.options.parser(Terminator::Any(self.end));
        let mut field = vec![0; PIECE_BYTES];
        let (mut at, mut begin) = (0, 0);
        while let Some(rest) = self.raw.get(at..).filter(|rest| !rest.is_empty()) {
            let (found, read, _) = parser.read_field(rest, &mut field);
            at += read;
            if matches!(found, ReadFieldResult::Field { .. }) {
                begin = at;
            }
        }
        // A line end closes the field unless it is within quotes.
        let (found, ..) = parser.read_field(&[self.end], &mut field);
        (found == ReadFieldResult::InputEmpty).then_some(begin)
    }

    /// Skips the rest of a row that is too long.
    fn too_long(&mut self) -> io::Result<(Result<Change, String>, bool)> {
        let rejected = Err(too_long());
        self.pass_raw();
        // Free the memory: the buffer is large, and the rest of the row is not kept.
        self.raw = Vec::new();
        loop {
            let available = self.input.fill_buf()?;
            let piece = available.get(..PIECE_BYTES).unwrap_or(available);
            if piece.is_empty() {
                self.parser = self.options.parser(Terminator::Any(self.end));
                return Ok((rejected, false));
            }
            let (found, read, ..) =
                self.parser
                    .read_record(piece, &mut self.fields, &mut self.ends);
            let passed = piece.get(..read).unwrap_or_default();
            self.at.pass(passed);
            self.at.line += u64_from(memchr::memchr_iter(self.end, passed).count());
            self.input.consume(read);
            if found == ReadRecordResult::Record {
                return Ok((rejected, true));
            }
        }
    }
}

fn too_long() -> String {
    format!("longer than {LINE_MAX} bytes")
}

fn ordinal(column: usize) -> String {
    let number = column + 1;
    match (number % 10, number % 100) {
        (1, tens) if tens != 11 => format!("{number}st"),
        (2, tens) if tens != 12 => format!("{number}nd"),
        (3, tens) if tens != 13 => format!("{number}rd"),
        _ => format!("{number}th"),
    }
}

#[cfg(test)]
mod tests;
