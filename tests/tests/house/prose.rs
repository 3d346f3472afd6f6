//! How comments, messages and documents are written.

use super::files::{files, read};

/// The longest line of prose, in characters. rustfmt of the stable toolchain does not wrap
/// comments.
const COLUMNS_MAX: usize = 100;

/// The one file that may hold the words of [`AVOIDED`].
const THIS: &str = "tests/tests/house/prose.rs";

/// Words and phrases of an earlier dialect, and what to write instead. They are looked for in
/// comments, identifiers, string literals and documents, across line ends.
const AVOIDED: [(&str, &str); 21] = [
    ("spoilt", "corrupt"),
    ("spoils", "corrupts, or damages"),
    ("unwell", "unhealthy, or the name of the state"),
    ("figure", "metric, value or measurement"),
    ("figures", "metrics, values or measurements"),
    ("whoever", "the caller, the reader, the thread"),
    ("is told", "is notified, or wakes, or returns"),
    ("are told", "are notified, or wake, or return"),
    ("was told", "was notified"),
    ("bears witness", "records the synced sequence"),
    ("but for", "except"),
    ("given back", "released, or returned"),
    ("gives back", "releases, or returns"),
    ("give back", "release, or return"),
    ("of its own accord", "by itself"),
    ("of their own accord", "by themselves"),
    ("came to", "led to, reached, or ended as"),
    ("what it was", "its earlier value, or its kind"),
    ("is no number", "is not a number"),
    ("is no boundary", "is not a boundary"),
    ("is no power", "is not a power"),
];

#[test]
fn prose_has_no_words_of_the_earlier_dialect() {
    let wrong: Vec<String> = files("rs")
        .into_iter()
        .chain(files("md"))
        .filter(|path| path != THIS)
        .flat_map(|path| avoided(&path, &read(&path)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_rule_on_words_finds_what_breaks_it() {
    for (wrong, line) in [
        ("// The block is spoilt.", 1),
        ("let figures = 1;", 1),
        ("fn f() {}\nlet x = \"a place is given back\";", 2),
        ("/// Nothing is given\n/// back here.", 1),
        ("fn is_told() {}", 1),
        ("All but for one.", 1),
    ] {
        let found = avoided("x.rs", wrong);
        assert_eq!(found.len(), 1, "{wrong}: {found:?}");
        assert!(found[0].starts_with(&format!("x.rs:{line}: ")), "{found:?}");
    }
    for right in [
        "// All but one. For the others see above.",
        "a configured value",
        "// given. Back to",
        "let given = back;",
    ] {
        assert_eq!(avoided("x.rs", right), Vec::<String>::new(), "{right}");
    }
}

#[test]
fn lines_of_prose_are_short() {
    let sources = files("rs").into_iter().flat_map(|path| {
        let text = read(&path);
        long_lines(&path, text.lines(), |line| {
            line.trim_start().starts_with("//")
        })
    });
    let documents = files("md").into_iter().flat_map(|path| {
        let text = read(&path);
        let mut is_code = false;
        long_lines(&path, text.lines(), |line| {
            if line.trim_start().starts_with("```") {
                is_code = !is_code;
            }
            // A table cannot be wrapped, nor can a link.
            !is_code && !line.trim_start().starts_with('|')
        })
    });
    let wrong: Vec<String> = sources.chain(documents).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_rule_on_columns_finds_what_breaks_it() {
    let limit = "/".repeat(COLUMNS_MAX);
    assert_eq!(long_lines("x", limit.lines(), |_| true), [""; 0]);
    let long = format!("fine\n{limit}/");
    let found = long_lines("x", long.lines(), |_| true);
    assert_eq!(found, ["x:2: 101 columns, 100 are the most: wrap the line"]);
}

/// Returns where `text` holds a word or phrase of [`AVOIDED`].
fn avoided(path: &str, text: &str) -> Vec<String> {
    let words = words(text);
    let mut found = Vec::new();
    for (phrase, instead) in AVOIDED {
        let phrase: Vec<&str> = phrase.split(' ').collect();
        let places = words.windows(phrase.len()).filter(|window| {
            let window = window.iter().map(|(word, _)| word.as_str());
            window.eq(phrase.iter().copied())
        });
        found.extend(places.map(|place| {
            let phrase = phrase.join(" ");
            format!("{path}:{}: \"{phrase}\": write {instead}", place[0].1)
        }));
    }
    found
}

/// Returns the words of a text in lower case, with their lines. Identifiers are taken apart at
/// underscores. The end of a sentence or of a statement is a word of its own, so that no phrase
/// reaches across it.
fn words(text: &str) -> Vec<(String, usize)> {
    let mut words = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let mut word = String::new();
        for letter in line.chars().chain([' ']) {
            if letter.is_alphanumeric() || letter == '\'' {
                word.extend(letter.to_lowercase());
                continue;
            }
            if !word.is_empty() {
                words.push((std::mem::take(&mut word), number));
            }
            if ".;:,=(){}\"".contains(letter) {
                words.push((letter.to_string(), number));
            }
        }
    }
    words
}

/// Returns the lines of prose that are too long.
fn long_lines<'a>(
    path: &str,
    lines: impl Iterator<Item = &'a str>,
    mut is_prose: impl FnMut(&str) -> bool,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, line) in (1..).zip(lines) {
        let columns = line.chars().count();
        let is_link = line.split_whitespace().any(|word| word.contains("://"));
        if is_prose(line) && columns > COLUMNS_MAX && !is_link {
            wrong.push(format!(
                "{path}:{number}: {columns} columns, {COLUMNS_MAX} are the most: wrap the line"
            ));
        }
    }
    wrong
}
