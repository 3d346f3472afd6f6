//! From input to records: lines, their keys, and why some are rejected.

use super::quotes::QuoteState;
use crate::args::Format;
use crate::input::{LINE_MAX, read_line};
use crate::number::u64_from;
use crate::record;
use serde_json::Value;
use std::io::BufRead;
use vbstore::Change;

/// From here on a double no longer tells whole numbers apart.
const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;

/// One line of the input.
#[derive(Debug)]
pub(crate) struct InputLine {
    /// Counted from 1. Of a record over several lines, the last one.
    pub(crate) number: u64,
    /// Where the next line begins, in bytes.
    pub(crate) end: u64,
    /// What it asks to be written, or why it is rejected.
    pub(crate) change: Result<Change, String>,
}

/// Reads records from an input.
pub(crate) struct InputReader<R> {
    input: R,
    format: Format,
    key: String,
    /// Of the key among the fields; known once the header was read.
    column: Option<usize>,
    number: u64,
    offset: u64,
    buffer: Vec<u8>,
    /// The line in which a quoted field begins that the input does not close.
    open_since: Option<u64>,
}

impl<R: BufRead> InputReader<R> {
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
            open_since: None,
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
            left -= u64_from(step);
        }
        // The header was read already, and may be all that the earlier reader had read.
        self.number = number.max(self.number);
        self.offset = offset.max(self.offset);
        Ok(())
    }

    /// Returns the next line that is not empty, `None` at the end.
    pub(crate) fn next(&mut self) -> std::io::Result<Option<InputLine>> {
        while self.fill()? {
            if self.buffer.is_empty() {
                continue;
            }
            let change = self.parse();
            return Ok(Some(InputLine {
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
        self.open_since = None;
        let first = self.number + 1;
        let mut quotes = QuoteState::default();
        loop {
            let seen = self.buffer.len();
            let read = read_line(&mut self.input, &mut self.buffer)?;
            if read == 0 {
                break;
            }
            self.offset += read;
            self.number += 1;
            if self.format != Format::Csv || self.buffer.len() > LINE_MAX {
                break;
            }
            // A quoted field goes on in the next line. Only what is new is looked at: with one
            // stray quote the record grows to the limit.
            quotes.follow(self.buffer.get(seen..).unwrap_or_default());
            if !quotes.is_open() {
                break;
            }
        }
        self.open_since = quotes.is_open().then_some(first);
        if self.buffer.is_empty() {
            return Ok(false);
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
        if let Some(first) = self.open_since {
            return Err(format!(
                "the quoted field begun in line {first} is not closed"
            ));
        }
        if self.buffer.len() > LINE_MAX {
            return Err(format!("longer than {LINE_MAX} bytes"));
        }
        match self.format {
            Format::Json => {
                let object: Value =
                    serde_json::from_slice(&self.buffer).map_err(|e| format!("not JSON: {e}"))?;
                let key = match object.get(&self.key) {
                    Some(Value::String(key)) => key.clone(),
                    // Two large numbers may read as one double, and would be one key.
                    Some(Value::Number(key)) if is_rounded(key) => {
                        return Err(format!("field {:?} is too large a number", self.key));
                    }
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
        let column = self.column.ok_or("no header was read")?;
        let key = fields
            .get(column)
            .ok_or_else(|| format!("only {} fields", fields.len()))?;
        Ok(Change::set(key, self.buffer.clone()))
    }
}

/// Whether a number may have lost digits when it was read.
fn is_rounded(number: &serde_json::Number) -> bool {
    number.is_f64()
        && number
            .as_f64()
            .is_none_or(|double| double.abs() >= EXACT_BELOW)
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
        // The end of the record was cut off; a carriage return within it is data.
        .terminator(csv::Terminator::Any(b'\n'))
        .from_reader(record);
    let first = reader.byte_records().next();
    let first = first.ok_or("empty")?.map_err(|error| error.to_string())?;
    Ok(first.iter().map(<[u8]>::to_vec).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8], format: Format, key: &str) -> Vec<(u64, u64, Result<String, String>)> {
        let mut reader = InputReader::new(input, format, key);
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
    fn a_quote_within_a_field_is_a_character_of_it() {
        let input = b"name,size\npipe,5\" steel\nrod,3 cm\n\"a\"\" b\",\"\"\r\nlast,1";
        let lines = read(input, Format::Csv, "name");
        let found: Vec<_> = lines
            .iter()
            .map(|line| (line.0, line.2.as_deref().unwrap()))
            .collect();
        assert_eq!(found, [(2, "pipe"), (3, "rod"), (4, "a\" b"), (5, "last")]);
    }

    #[test]
    fn a_field_that_is_never_closed_is_rejected_and_says_where_it_began() {
        let lines = read(b"n,v\na,1\nb,\"open\nc,3\n", Format::Csv, "n");
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1].0, 4);
        assert!(lines[1].2.as_ref().unwrap_err().contains("line 3"));
    }

    #[test]
    fn numbers_that_could_be_one_key_are_rejected() {
        let one = |text: &str| {
            let line = format!("{{\"k\":{text}}}");
            read(line.as_bytes(), Format::Json, "k")[0].2.clone()
        };
        assert_eq!(one("18446744073709551615").unwrap(), "18446744073709551615");
        assert_eq!(one("-5").unwrap(), "-5");
        assert_eq!(one("1.5").unwrap(), "1.5");
        assert!(
            one("123456789012345678901231")
                .unwrap_err()
                .contains("too large")
        );
        assert!(one("-1e300").is_err());
    }

    #[test]
    fn a_line_beyond_the_limit_is_rejected_and_the_next_one_read() {
        let mut input = vec![b'x'; LINE_MAX + 1];
        input.extend(b"\n{\"k\":\"b\"}\n");
        let lines = read(&input, Format::Json, "k");
        assert!(lines[0].2.as_ref().unwrap_err().contains("longer than"));
        assert_eq!((lines[1].0, lines[1].2.as_deref()), (2, Ok("b")));
    }

    #[test]
    fn reading_goes_on_after_a_header_only() {
        let mut reader = InputReader::new(&b"k\n1\n"[..], Format::Csv, "k");
        reader.header().unwrap();
        reader.skip_to(0, 0).unwrap();
        assert_eq!(reader.next().unwrap().unwrap().number, 2);
    }

    #[test]
    fn a_header_without_the_column_is_refused() {
        let mut reader = InputReader::new(&b"a,b\n"[..], Format::Csv, "c");
        assert!(reader.header().unwrap_err().contains("no column \"c\""));
        assert!(
            InputReader::new(&b""[..], Format::Tsv, "c")
                .header()
                .is_err()
        );
    }

    #[test]
    fn reading_goes_on_where_an_earlier_reader_was() {
        let input = b"{\"k\":1}\n{\"k\":2}\n{\"k\":3}\n";
        let mut reader = InputReader::new(&input[..], Format::Json, "k");
        let first = reader.next().unwrap().unwrap();
        let mut second = InputReader::new(&input[..], Format::Json, "k");
        second.skip_to(first.number, first.end).unwrap();
        let line = second.next().unwrap().unwrap();
        assert_eq!((line.number, line.change.unwrap().key()), (2, &b"2"[..]));
        assert!(
            InputReader::new(&input[..], Format::Json, "k")
                .skip_to(9, 999)
                .is_err()
        );
    }
}
