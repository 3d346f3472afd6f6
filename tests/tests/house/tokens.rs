//! Splits a source into words and signs.

/// A word or a sign of a source. Comments, strings and lifetimes yield no token.
pub(super) struct Token {
    pub(super) line: usize,
    pub(super) text: String,
}

/// Splits a source into its tokens.
pub(super) fn tokens(source: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = source;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|letter| !is_word(letter)).unwrap_or(rest.len());
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => comment_length(rest),
            '"' => string_length(rest),
            '\'' => quote_length(rest),
            'b' | 'c' if word == 1 && rest[1..].starts_with('"') => 1 + string_length(&rest[1..]),
            'b' if word == 1 && rest[1..].starts_with('\'') => 1 + quote_length(&rest[1..]),
            'r' | 'b' | 'c' if raw_string_length(rest, word).is_some() => {
                raw_string_length(rest, word).unwrap()
            }
            'r' if word == 1 && rest[1..].starts_with('#') => 2,
            letter if is_word(letter) => {
                found.push(Token {
                    line,
                    text: rest[..word].to_owned(),
                });
                word
            }
            letter if letter.is_whitespace() => letter.len_utf8(),
            letter => {
                let length = if rest.starts_with("::") {
                    2
                } else {
                    letter.len_utf8()
                };
                found.push(Token {
                    line,
                    text: rest[..length].to_owned(),
                });
                length
            }
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    found
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Returns the length of the block comment at the start; block comments nest.
fn comment_length(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        if text.as_bytes()[at..].starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text.as_bytes()[at..].starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// Returns the length of the string at the start, quotes included.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Returns the length of the raw string at the start, if one follows its prefix.
fn raw_string_length(text: &str, prefix: usize) -> Option<usize> {
    let body = &text[prefix..];
    let hashes = body.find(|letter| letter != '#')?;
    let is_raw = matches!(&text[..prefix], "r" | "br" | "cr") && body[hashes..].starts_with('"');
    let end = format!("\"{}", "#".repeat(hashes));
    let start = prefix + hashes + 1;
    is_raw.then(|| {
        text[start..]
            .find(&end)
            .map_or(text.len(), |at| start + at + end.len())
    })
}

/// Returns the length of the character or lifetime at the start.
fn quote_length(text: &str) -> usize {
    let mut letters = text.char_indices().skip(1);
    match (letters.next(), letters.next()) {
        // The letter after the backslash may itself be a quote.
        (Some((_, '\\')), Some((at, _))) => text[at + 1..].find('\'').map_or(1, |end| at + end + 2),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => {
            1 + text[1..]
                .find(|letter| !is_word(letter))
                .unwrap_or(text.len() - 1)
        }
    }
}
