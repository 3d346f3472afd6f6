//! Tests with valid and invalid JSON.

use super::*;
use std::io::BufReader;

type Read = (u64, u64, Result<(String, String), String>);

fn reader<R: BufRead>(input: R) -> JsonReader<R> {
    let key = JsonKey::parse("k").unwrap();
    JsonReader::new(input, b"", Content::Document(key))
}

fn all<R: BufRead>(reader: &mut JsonReader<R>) -> Vec<(Record, Read)> {
    let mut all = Vec::new();
    while let Some(mut record) = reader.next().unwrap() {
        let change = std::mem::replace(&mut record.change, Err(String::new()));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let change = change.map(|change| (text(change.key()), text(change.value())));
        let read = (record.first_line, record.last_line, change);
        all.push((record, read));
    }
    all
}

fn read(input: &str) -> Vec<Read> {
    let mut read_once = None;
    // The size of the pieces that the input delivers must not matter.
    for piece in [1, 7, 1 << 16] {
        let mut reader = reader(BufReader::with_capacity(piece, input.as_bytes()));
        let found: Vec<_> = all(&mut reader).into_iter().map(|(_, read)| read).collect();
        assert_eq!(*read_once.get_or_insert_with(|| found.clone()), found);
    }
    read_once.unwrap()
}

fn values(input: &str) -> Vec<String> {
    let read = read(input).into_iter();
    read.map(|(.., change)| change.unwrap_or_else(|error| panic!("{error}: {input}")).1)
        .collect()
}

fn keys(input: &str) -> String {
    let read = read(input).into_iter();
    read.map(|(.., change)| change.map_or("-".to_owned(), |(key, _)| key))
        .collect()
}

#[test]
fn lines_with_every_kind_of_ending() {
    for end in ["\n", "\r\n", "\r", "\n\n", " \r\r\n"] {
        let text = format!("{{\"k\":\"a\"}}{end}{{\"k\":7}}{end}nonsense{end}{{\"k\":\"z\"}}");
        assert_eq!(keys(&text), "a7-z", "{end:?}");
    }
    let read = read(" {\"k\":1} \r\n\n\u{feff}{\"k\":2}\n{\"k\":[]}");
    let value = |at: usize| read[at].2.clone().unwrap().1;
    assert_eq!(
        (value(0), value(1)),
        (" {\"k\":1} ".to_owned(), "{\"k\":2}".to_owned())
    );
    assert_eq!((read[1].0, read[2].0), (3, 4));
}

#[test]
fn the_elements_of_an_array_are_stored_as_they_are_written() {
    let elements = [
        "{\"k\":1}",
        "{ \"k\" : 2,\n  \"v\": [1, \"]},\\\"\"] }",
        "{\"k\":\"3\"}",
    ];
    for (before, between, after) in [
        ("[", ",", "]"),
        ("\u{feff}\n [\n  ", ",\n  ", "\n]\n"),
        ("[\r\n\t", "\r\n\t,", "\r\n]\r\n\r\n"),
        ("[", "][", "]"),
        ("[", ",", ",]"),
    ] {
        let text = format!("{before}{}{after}", elements.join(between));
        // The source has already removed the byte order mark at the beginning of the input.
        let text = text.trim_start_matches('\u{feff}');
        assert_eq!(values(text), elements, "{text}");
    }
    assert_eq!(values("[]"), Vec::<String>::new());
    assert_eq!(
        keys("[1, \"a,]\", null, {\"k\":5}, [{\"k\":6}], {\"k\":}, {\"k\":7}]"),
        "---5--7"
    );
}

#[test]
fn values_over_several_lines_are_read_one_after_the_other() {
    let text =
        "{\n  \"k\": 1,\n  \"v\": {\n    \"x\": []\n  }\n}\n{\n  \"k\": 2\n}{\"k\":3} {\"k\":4}\n";
    let read = read(text);
    assert_eq!(keys(text), "1234");
    let lines: Vec<_> = read.iter().map(|read| (read.0, read.1)).collect();
    assert_eq!(lines, [(1, 6), (7, 9), (9, 9), (9, 9)]);
    assert_eq!(keys("{\"k\":1}{\"k\":2}\n{\"k\":3}"), "123");
    // An array in an object, with elements that begin lines.
    assert_eq!(
        keys("{\"k\":1,\"v\":[\n{\"k\":2},\n{\"k\":3}\n]}\n{\"k\":4}"),
        "14"
    );
}

#[test]
fn what_is_not_closed_costs_itself_only() {
    let cut = "{\n  \"k\": 1,\n  \"v\": \"ope\n{\n  \"k\": 2\n}\n{\n  \"k\": 3\n";
    let found = read(cut);
    assert_eq!(keys(cut), "-2-");
    assert!(
        found[0]
            .2
            .as_ref()
            .unwrap_err()
            .contains("line 1 is not closed where line 4")
    );
    assert_eq!((found[0].0, found[0].1), (1, 3));
    assert!(
        found[2]
            .2
            .as_ref()
            .unwrap_err()
            .contains("line 7 is not closed before the input")
    );

    let array =
        "[\n  {\n    \"k\": 1\n  ,\n  {\n    \"k\": 2\n  },\n  {\"k\":\"3},\n  {\"k\":4}\n]";
    assert_eq!(keys(array), "-2-4");
    for (cut, expected) in [
        ("[{\"k\":1}", "1-"),
        ("[{\"k\":1},", "1-"),
        ("[{\"k\":1},{\"k\"", "1-"),
        ("[", "-"),
    ] {
        assert_eq!(keys(cut), expected, "{cut}");
    }
    assert_eq!(keys("[{\"k\":1}]\nrest of it\n{\"k\":2}"), "1-2");
    // A truncated line causes one rejection, even if it is the first line.
    assert_eq!(keys("{\"k\":1\n{\"k\":2}\n{\"k\":3,\n{\"k\":4}\n"), "-2-4");
    assert_eq!(
        keys("{\"k\":0}\n{\"k\":1\n{\"k\":2}\n{\"k\":\"x\n{\"k\":4}"),
        "0-2-4"
    );
}

#[test]
fn reading_goes_on_where_an_earlier_reader_was() {
    for text in [
        "{\"k\":1}\n\n{\"k\":2}\r\n{\"k\":3}\n",
        "[\n{\"k\":1},\n{\"k\":2}\n,{\"k\":3}]\n",
        "[{\"k\":1}][{\"k\":2},{\"k\":3}]",
        "{\n\"k\":1}\n{\"k\":2}{\"k\":3}",
    ] {
        let mut first = reader(text.as_bytes());
        let found = all(&mut first);
        assert!(found.iter().all(|(record, _)| record.is_whole), "{text}");
        for (at, (record, _)) in found.iter().enumerate() {
            let mut second = reader(text.as_bytes());
            let skipped = second.skip_to(&record.place, first.layout()).unwrap();
            assert_eq!(skipped, Skipped::Same);
            let rest: Vec<_> = all(&mut second).into_iter().map(|(_, read)| read).collect();
            let expected = found.iter().skip(at + 1).map(|(_, read)| read.clone());
            assert_eq!(rest, expected.collect::<Vec<_>>(), "{text}");
        }
    }
}

#[test]
fn the_end_of_a_file_that_may_grow_is_not_whole() {
    for (text, last_is_whole) in [
        ("{\"k\":1}\n{\"k\":2}\n", true),
        ("{\"k\":1}\n{\"k\":2}", false),
        ("{\"k\":1}\n{\"k\":", false),
        ("[{\"k\":1},{\"k\":2}]", true),
        ("[{\"k\":1},{\"k\":2}", false),
        ("{\n\"k\":1}\n{\"k\":2", false),
    ] {
        let found = all(&mut reader(text.as_bytes()));
        assert_eq!(found.last().unwrap().0.is_whole, last_is_whole, "{text}");
        assert!(found[0].0.is_whole, "{text}");
    }
}

#[test]
fn a_record_beyond_the_limit_is_rejected_and_the_next_one_read() {
    let long = format!("{{\"k\":\"{}\"}}", "x".repeat(LINE_MAX));
    for text in [
        format!("{long}\n{{\"k\":2}}\n"),
        format!("[{long},{{\"k\":2}}]"),
    ] {
        let found = all(&mut reader(text.as_bytes()));
        assert!(found[0].1.2.as_ref().unwrap_err().contains("longer than"));
        assert_eq!(found[1].1.2.as_ref().unwrap().0, "2");
    }
}

#[test]
fn bytes_that_are_not_utf_8_are_rejected() {
    let found = all(&mut reader(
        &b"{\"k\":1}\n{\"k\":\"\xff\"}\n{\"k\":3}\n"[..],
    ));
    assert!(found[1].1.2.as_ref().unwrap_err().starts_with("not UTF-8"));
    assert!(found[2].1.2.is_ok());
}
