//! From input to records: lines, their keys, and why some are rejected.

use crate::args::Format;
use crate::record;
use serde_json::Value;
use std::io::{BufRead, Read};
use vbstore::Change;

/// Longest line that is read; a longer one is rejected without being kept in memory.
const LINE_MAX: usize = 64 << 20;

/// One line of the input.
#[derive(Debug)]
pub(crate) struct Line {
    /// Counted from 1. Of a record over several lines, the last one.
    pub(crate) number: u64,
    /// Where the next line begins, in bytes.
    pub(crate) end: u64,
    /// What it asks to be written, or why it is rejected.
    pub(crate) change: Result<Change, String>,
}

/// Reads records from an input.
pub(crate) struct Reader<R> {
    input: R,
    format: Format,
    key: String,
    /// Of the key among the fields; known once the header was read.
    column: Option<usize>,
    number: u64,
    offset: u64,
    buffer: Vec<u8>,
}

impl<R: BufRead> Reader<R> {
    /// Reads from the beginning of the input, header included.
    pub(crate) fn new(input: R, format: Format, key: &str) -> Self {
        let (key, buffer) = (key.to_owned(), Vec::new());
        Self {
            input,
            format,
            key,
            column: None,
            number: 0,
            offset: 0,
            buffer,
        }
    }

    /// Reads the header of a format that has one.
    pub(crate) fn header(&mut self) -> Result<(), String> {
        let separator = match self.format {
            Format::Json | Format::Dump => return Ok(()),
            Format::Tsv => b'\t',
            Format::Csv => b',',
        };
        if !self.fill().map_err(|error| error.to_string())? {
            return Err("the input is empty: no header".to_owned());
        }
        let fields = split(&self.buffer, separator)?;
        let column = fields.iter().position(|field| field == self.key.as_bytes());
        self.column =
            Some(column.ok_or_else(|| format!("no column {:?} in the header", self.key))?);
        Ok(())
    }

    /// Passes over everything up to a place that an earlier reader had reached.
    pub(crate) fn skip_to(&mut self, number: u64, offset: u64) -> std::io::Result<()> {
        let mut left = offset.saturating_sub(self.offset);
        while left > 0 {
            let available = self.input.fill_buf()?.len();
            if available == 0 {
                return Err(std::io::Error::other(
                    "the input is shorter than what was imported",
                ));
            }
            let step = available.min(usize::try_from(left).unwrap_or(usize::MAX));
            self.input.consume(step);
            left = left.saturating_sub(u64::try_from(step).unwrap_or(0));
        }
        self.number = number;
        self.offset = offset.max(self.offset);
        Ok(())
    }

    /// Returns the next line that is not empty, `None` at the end.
    pub(crate) fn next(&mut self) -> std::io::Result<Option<Line>> {
        while self.fill()? {
            if self.buffer.is_empty() {
                continue;
            }
            let change = self.parse();
            return Ok(Some(Line {
                number: self.number,
                end: self.offset,
                change,
            }));
        }
        Ok(None)
    }

    /// Reads one record's bytes, without the end of the line. Returns false at the end.
    fn fill(&mut self) -> std::io::Result<bool> {
        self.buffer.clear();
        loop {
            let limit = LINE_MAX.saturating_add(1).saturating_sub(self.buffer.len());
            let mut some = self
                .input
                .by_ref()
                .take(u64::try_from(limit).unwrap_or(u64::MAX));
            let read = some.read_until(b'\n', &mut self.buffer)?;
            self.offset = self.offset.saturating_add(u64::try_from(read).unwrap_or(0));
            if read == 0 {
                return Ok(!self.buffer.is_empty());
            }
            if self.buffer.len() > LINE_MAX && self.buffer.last() != Some(&b'\n') {
                self.offset = self.offset.saturating_add(skip_line(&mut self.input)?);
            }
            self.number = self.number.saturating_add(1);
            // A line of a quoted field goes on in the next line.
            let is_open = self.format == Format::Csv && is_quote_open(&self.buffer);
            if !is_open || self.buffer.len() > LINE_MAX {
                break;
            }
        }
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
            if self.buffer.last() == Some(&b'\r') {
                self.buffer.pop();
            }
        }
        Ok(true)
    }

    fn parse(&self) -> Result<Change, String> {
        if self.buffer.len() > LINE_MAX {
            return Err(format!("longer than {LINE_MAX} bytes"));
        }
        match self.format {
            Format::Json => {
                let object: Value =
                    serde_json::from_slice(&self.buffer).map_err(|e| format!("not JSON: {e}"))?;
                let key = match object.get(&self.key) {
                    Some(Value::String(key)) => key.clone(),
                    Some(Value::Number(key)) => key.to_string(),
                    Some(_) => return Err(format!("field {:?} is no string", self.key)),
                    None => return Err(format!("no field {:?}", self.key)),
                };
                Ok(Change::set(key, self.buffer.clone()))
            }
            Format::Tsv => self.column_key(b'\t'),
            Format::Csv => self.column_key(b','),
            Format::Dump => {
                let object: Value =
                    serde_json::from_slice(&self.buffer).map_err(|e| format!("not JSON: {e}"))?;
                record::change(object.as_object().ok_or("not a JSON object")?)
            }
        }
    }

    fn column_key(&self, separator: u8) -> Result<Change, String> {
        let fields = split(&self.buffer, separator)?;
        let column = self.column.unwrap_or(0);
        let key = fields
            .get(column)
            .ok_or_else(|| format!("only {} fields", fields.len()))?;
        Ok(Change::set(key, self.buffer.clone()))
    }
}

/// Whether the bytes end inside a quoted field.
fn is_quote_open(record: &[u8]) -> bool {
    record
        .iter()
        .fold(false, |is_open, byte| is_open ^ (*byte == b'"'))
}

/// Passes over the rest of a line and returns its length.
fn skip_line(input: &mut impl BufRead) -> std::io::Result<u64> {
    let mut skipped: u64 = 0;
    loop {
        let available = input.fill_buf()?;
        if available.is_empty() {
            return Ok(skipped);
        }
        let end = available
            .iter()
            .position(|byte| *byte == b'\n')
            .map(|at| at.saturating_add(1));
        let step = end.unwrap_or(available.len());
        input.consume(step);
        skipped = skipped.saturating_add(u64::try_from(step).unwrap_or(0));
        if end.is_some() {
            return Ok(skipped);
        }
    }
}

/// The fields of a record. Between commas a field may be quoted, and a quote in it doubled.
fn split(record: &[u8], separator: u8) -> Result<Vec<Vec<u8>>, String> {
    if separator == b'\t' {
        return Ok(record
            .split(|byte| *byte == b'\t')
            .map(<[u8]>::to_vec)
            .collect());
    }
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(record);
    let first = reader.byte_records().next();
    let first = first.ok_or("empty")?.map_err(|error| error.to_string())?;
    Ok(first.iter().map(<[u8]>::to_vec).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8], format: Format, key: &str) -> Vec<(u64, u64, Result<String, String>)> {
        let mut reader = Reader::new(input, format, key);
        reader.header().unwrap();
        let mut lines = Vec::new();
        while let Some(line) = reader.next().unwrap() {
            let key = line
                .change
                .map(|change| String::from_utf8_lossy(change.key()).into_owned());
            lines.push((line.number, line.end, key));
        }
        lines
    }

    #[test]
    fn json_lines_with_every_kind_of_ending() {
        let input =
            b"{\"k\":\"a\"}\r\n\n{\"k\":7}\nnonsense\n{\"x\":1}\n{\"k\":[]}\n{\"k\":\"last\"}";
        let lines = read(input, Format::Json, "k");
        let keys: Vec<_> = lines
            .iter()
            .map(|(n, _, key)| (*n, key.clone().ok()))
            .collect();
        let expected = [
            (1, Some("a".to_owned())),
            (3, Some("7".to_owned())),
            (4, None),
            (5, None),
            (6, None),
            (7, Some("last".to_owned())),
        ];
        assert_eq!(keys, expected);
        assert_eq!(lines.last().unwrap().1, u64::try_from(input.len()).unwrap());
    }

    #[test]
    fn a_line_that_is_no_utf8_is_rejected_and_the_next_one_read() {
        let lines = read(b"{\"k\":\"\xff\"}\n{\"k\":\"b\"}\n", Format::Json, "k");
        assert!(lines[0].2.is_err());
        assert_eq!(lines[1].2.as_deref(), Ok("b"));
    }

    #[test]
    fn the_last_of_two_fields_of_one_name_counts() {
        assert_eq!(
            read(b"{\"k\":\"a\",\"k\":\"b\"}", Format::Json, "k")[0]
                .2
                .as_deref(),
            Ok("b")
        );
    }

    #[test]
    fn columns_between_tabs_and_commas() {
        let lines = read(b"id\tname\n1\tone\n2\n", Format::Tsv, "name");
        assert_eq!(lines[0].2.as_deref(), Ok("one"));
        assert_eq!(lines[1].2.as_ref().unwrap_err(), "only 1 fields");

        let lines = read(
            b"name,id\n\"a, \"\"b\"\"\",1\n\"two\nlines\",2\nc,3\n",
            Format::Csv,
            "name",
        );
        let keys: Vec<_> = lines
            .iter()
            .map(|line| line.2.as_deref().unwrap())
            .collect();
        assert_eq!(keys, ["a, \"b\"", "two\nlines", "c"]);
        assert_eq!(lines[2].0, 5, "lines are counted, not records");
    }

    #[test]
    fn a_header_without_the_column_is_refused() {
        let mut reader = Reader::new(&b"a,b\n"[..], Format::Csv, "c");
        assert!(reader.header().unwrap_err().contains("no column \"c\""));
        assert!(Reader::new(&b""[..], Format::Tsv, "c").header().is_err());
    }

    #[test]
    fn reading_goes_on_where_an_earlier_reader_was() {
        let input = b"{\"k\":1}\n{\"k\":2}\n{\"k\":3}\n";
        let mut reader = Reader::new(&input[..], Format::Json, "k");
        let first = reader.next().unwrap().unwrap();
        let mut second = Reader::new(&input[..], Format::Json, "k");
        second.skip_to(first.number, first.end).unwrap();
        let line = second.next().unwrap().unwrap();
        assert_eq!((line.number, line.change.unwrap().key()), (2, &b"2"[..]));
        assert!(
            Reader::new(&input[..], Format::Json, "k")
                .skip_to(9, 999)
                .is_err()
        );
    }
}
