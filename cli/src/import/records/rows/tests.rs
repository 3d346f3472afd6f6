//! Tests with valid and invalid rows.

use super::*;
use std::io::BufReader;

fn options(key: &str) -> RowsOptions {
    RowsOptions {
        key: Column::Named(key.to_owned()),
        delimiter: b',',
        is_quoted: true,
        stored_as: StoredAs::Line,
    }
}

fn tsv(key: &str) -> RowsOptions {
    RowsOptions {
        delimiter: b'\t',
        is_quoted: false,
        ..options(key)
    }
}

type Read = (u64, u64, Result<(String, String), String>);

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns the lines of each record, and its key and value.
fn read(input: &[u8], options: &RowsOptions) -> Vec<Read> {
    let mut read_once = None;
    // The size of the pieces that the input delivers must not matter.
    for piece in [1, 7, 1 << 16] {
        let input = BufReader::with_capacity(piece, input);
        let mut reader = RowsReader::new(input, b"", options.clone()).unwrap();
        let mut all = Vec::new();
        while let Some(record) = reader.next().unwrap() {
            let change = record.change;
            let change = change.map(|change| (text(change.key()), text(change.value())));
            all.push((record.first_line, record.last_line, change));
        }
        assert_eq!(*read_once.get_or_insert_with(|| all.clone()), all);
    }
    read_once.unwrap()
}

fn keys(input: &[u8], options: &RowsOptions) -> Vec<String> {
    let read = read(input, options).into_iter();
    read.map(|(.., change)| change.unwrap().0).collect()
}

fn refused(input: &[u8], options: &RowsOptions) -> String {
    match RowsReader::new(input, b"", options.clone()) {
        Err(Refused::Header(what)) => what,
        _ => panic!("not refused"),
    }
}

#[test]
fn a_field_may_be_quoted_and_go_over_lines() {
    let input = b"name,id\r\n\"a, \"\"b\"\"\",1\r\n\r\n\"two\nlines\",2\r\nc,\"3\rx\"\n5\" pipe,4";
    let read = read(input, &options("name"));
    let found: Vec<_> = read
        .iter()
        .map(|(first, last, change)| (*first, *last, change.clone().unwrap()))
        .collect();
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(
        found,
        [
            (2, 2, pair("a, \"b\"", "\"a, \"\"b\"\"\",1")),
            (4, 5, pair("two\nlines", "\"two\nlines\",2")),
            (6, 6, pair("c", "c,\"3\rx\"")),
            (7, 7, pair("5\" pipe", "5\" pipe,4")),
        ]
    );
}

#[test]
fn rows_end_as_the_first_does() {
    for end in ["\n", "\r\n", "\r"] {
        let text = format!("k,v{end}1,\"a\rb\"{end}{end}2,\"c\nd\"{end}3,\"e\r\nf\"");
        assert_eq!(
            keys(text.as_bytes(), &options("k")),
            ["1", "2", "3"],
            "{end:?}"
        );
        let last = format!("v,k{end}a,1{end}b,\"2\"{end}");
        assert_eq!(keys(last.as_bytes(), &options("k")), ["1", "2"], "{end:?}");
        let last = format!("v\tk{end}a\t1{end}b\t\"2{end}");
        assert_eq!(keys(last.as_bytes(), &tsv("k")), ["1", "\"2"], "{end:?}");
    }
    // A carriage return that ends no line is data, unless the number of fields differs from the
    // header.
    let read = read(b"k,v\n1,a\rb\n2,a\r3,b\r4,c\n", &options("k"));
    assert_eq!(read[0].2.as_ref().unwrap().1, "1,a\rb");
    assert!(
        read[1]
            .2
            .as_ref()
            .unwrap_err()
            .contains("line end of another kind")
    );
}

#[test]
fn a_quoted_field_that_is_not_closed_costs_its_row_only() {
    let input = b"k,v\n1,a\n2,\"b\nc\n3,c\n4,d".to_vec();
    let rows = read(&input, &options("k"));
    let places: Vec<_> = rows.iter().map(|row| (row.0, row.1)).collect();
    assert_eq!(places, [(2, 2), (3, 3), (4, 4), (5, 5), (6, 6)]);
    let said = rows[1].2.as_ref().unwrap_err();
    assert!(
        said.contains("begins in line 3") && said.contains("3 lines"),
        "{said}"
    );
    assert!(rows[2].2.as_ref().unwrap_err().contains("1 fields, not 2"));
    let good: Vec<_> = rows.iter().filter_map(|row| row.2.as_ref().ok()).collect();
    assert_eq!(good.len(), 3);

    // The quoted field may begin in a later line than its row.
    let rows = read(b"k,v,w\n1,\"a\nb\",\"open\n2,c,d\n", &options("k"));
    assert_eq!((rows[0].0, rows[0].1), (2, 3));
    assert!(rows[0].2.as_ref().unwrap_err().contains("begins in line 3"));
    assert_eq!(rows[1].2.as_ref().unwrap().0, "2");
}

#[test]
fn a_stray_quote_does_not_take_rows_to_the_next_quote_along() {
    for later in ["\"x, y\"", "\"xy\"", "\"x \"\"y\"\"\"", "\"x\ny\"", "\"\""] {
        let input = format!("k,v\n1,a\n2,\"b\n3,c\n4,d\n5,{later}\n6,\"e\nf\"\n7,g\n");
        let rows = read(input.as_bytes(), &options("k"));
        let good = rows.iter().filter_map(|row| row.2.as_ref().ok());
        let good: Vec<_> = good.map(|(key, _)| key.as_str()).collect();
        assert_eq!(good, ["1", "3", "4", "5", "6", "7"], "{later}");
        let bad: Vec<_> = rows.iter().filter(|row| row.2.is_err()).collect();
        assert_eq!((bad.len(), bad[0].0, bad[0].1), (1, 3, 3), "{later}");
    }
    // A row that spans several lines must have all fields. A row of one line need not.
    let rows = read(b"k,v,w\n1,\"a\nb\"\n2,c\n3,\"d\ne\",f\n", &options("k"));
    let found: Vec<_> = rows.iter().map(|row| row.2.is_ok()).collect();
    assert_eq!(found, [false, false, true, true]);
    assert!(refused(b"k,\"v\n1,a\n2,\"b\"\n", &options("k")).contains("do not match"));
    // A stray quote in the first row must not cause the rejection of all other rows.
    let first = RowsOptions {
        key: Column::At(0),
        ..options("k")
    };
    let rows = read(b"1,\"a\n2,b\n3,c\n", &first);
    let found: Vec<_> = rows.iter().map(|row| row.2.is_ok()).collect();
    assert_eq!(found, [false, true, true]);
}

#[test]
fn what_is_not_whole_is_read_again_from_its_beginning() {
    for (input, is_whole) in [
        (&b"k,v\n1,a\n2,b\n"[..], &[true, true][..]),
        (b"k,v\n1,a\n2,b", &[true, false]),
        (b"k,v\n1,a\n2,\"b\n3,c\n", &[true, false, false]),
    ] {
        let mut reader = RowsReader::new(input, b"", options("k")).unwrap();
        let mut found = Vec::new();
        while let Some(record) = reader.next().unwrap() {
            found.push(record.is_whole);
        }
        assert_eq!(found, is_whole);
    }
}

#[test]
fn reading_goes_on_where_an_earlier_reader_was() {
    let input = "k,v\r\n1,\"a\nb\"\r\n\u{feff}2,b\r\n3,c\r\n".as_bytes();
    for no_header in [false, true] {
        let mut options = options("k");
        if no_header {
            options.key = Column::At(0);
        }
        let reader = || RowsReader::new(input, b"", options.clone()).unwrap();
        let mut first = reader();
        let mut places = Vec::new();
        while let Some(record) = first.next().unwrap() {
            places.push((record.place, record.last_line));
        }
        for (at, (place, line)) in places.iter().enumerate() {
            let mut second = reader();
            assert_eq!(second.skip_to(place).unwrap(), Skipped::Same);
            let record = second.next().unwrap();
            assert_eq!(record.as_ref().map(|record| record.first_line), {
                (at + 1 < places.len()).then(|| line + 1)
            });
            if let (Some(record), 1) = (record, at + usize::from(!no_header)) {
                // A byte order mark that is not at the beginning is data.
                assert_eq!(text(record.change.unwrap().key()), "\u{feff}2");
            }
        }
        let mut second = reader();
        assert_eq!(second.skip_to(&Place::default()).unwrap(), Skipped::Same);
        assert_eq!(
            second.next().unwrap().unwrap().first_line,
            2 - u64::from(no_header)
        );
    }
}

#[test]
fn a_row_is_an_object_of_its_fields() {
    let json = RowsOptions {
        stored_as: StoredAs::Json,
        delimiter: b';',
        ..options("k")
    };
    let input = b"k;a name;\n1;\"x;\"\"y\"\"\nz\";\n2;short\n3;a;b;c\n4;\xff;\n";
    let rows = read(input, &json);
    let value = |at: usize| rows[at].2.clone().map(|(_, value)| value);
    assert_eq!(
        value(0).unwrap(),
        r#"{"k":"1","a name":"x;\"y\"\nz","":""}"#
    );
    assert_eq!(value(1).unwrap(), r#"{"k":"2","a name":"short"}"#);
    assert!(value(2).unwrap_err().contains("4 fields, more than the 3"));
    assert!(value(3).unwrap_err().contains("not UTF-8"));
    let numbered = RowsOptions {
        key: Column::At(1),
        ..json.clone()
    };
    let rows = read(b"x;y\nz\n", &numbered);
    assert_eq!(
        rows[0].2.clone().unwrap(),
        ("y".to_owned(), r#"{"1":"x","2":"y"}"#.to_owned())
    );
    assert!(rows[1].2.as_ref().unwrap_err().contains("the 2nd"));
    assert!(refused(b"k;b;b\n", &json).contains("2 and 3"));
}

#[test]
fn a_header_without_the_column_says_which_there_are() {
    assert_eq!(
        refused(b"a,\"b c\"\n", &options("c")),
        "no column \"c\": the header has \"a\", \"b c\""
    );
    assert!(refused(b"a;c\n", &options("c")).contains("--delimiter"));
    for empty in [&b""[..], b"\n\n", b"\r\n"] {
        assert!(
            refused(empty, &options("c")).contains("is empty"),
            "{empty:?}"
        );
    }
    assert!(refused(b"a,\"b\n1,2\n", &options("b")).contains("not closed"));
    assert_eq!(keys(b"\"first\nname\",id\nx,7\n", &options("id")), ["7"]);
}

#[test]
fn a_row_beyond_the_limit_is_rejected_and_the_next_one_read() {
    let mut input = b"k,v\n".to_vec();
    input.extend(vec![b'x'; LINE_MAX + 1]);
    input.extend(b",1\nb,2\n");
    let mut reader = RowsReader::new(&input[..], b"", options("k")).unwrap();
    let record = reader.next().unwrap().unwrap();
    assert!(record.change.unwrap_err().contains("longer than"));
    let record = reader.next().unwrap().unwrap();
    assert_eq!(
        (record.first_line, text(record.change.unwrap().key())),
        (3, "b".to_owned())
    );
    assert!(reader.next().unwrap().is_none());

    // A quote that is not closed within the limit.
    let mut input = b"k,v\na,\"open\n".to_vec();
    for n in 0..LINE_MAX / 16 + 10 {
        input.extend(format!("{n:0>8},{n:0>7}\n").bytes());
    }
    let mut reader = RowsReader::new(&input[..], b"", options("k")).unwrap();
    let record = reader.next().unwrap().unwrap();
    let said = record.change.unwrap_err();
    assert!(said.contains("within the longest record"), "{said}");
    let mut count = 0;
    while let Some(record) = reader.next().unwrap() {
        assert!(record.change.is_ok() && record.is_whole);
        count += 1;
    }
    assert_eq!(count, LINE_MAX / 16 + 10);
}
