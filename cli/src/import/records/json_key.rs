//! Extracts the key of a JSON record, without building the record in memory. The key keeps the
//! spelling that it has in the record.

use super::record::listed;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;

/// The most names that an error message lists.
const NAMES_MAX: usize = 20;

/// The location of the key within a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JsonKey {
    /// The text given on the command line, for messages.
    given: String,
    /// Names of fields or numbers of array elements, from the outermost to the innermost.
    path: Vec<String>,
}

impl JsonKey {
    /// Parses the name of a field, or a JSON pointer (RFC 6901) if `given` begins with `/`.
    ///
    /// # Errors
    /// A pointer contains a `~` that is part of neither `~0` nor `~1`.
    pub(crate) fn parse(given: &str) -> Result<Self, String> {
        let path = match given.strip_prefix('/') {
            None => vec![given.to_owned()],
            Some(pointer) => pointer
                .split('/')
                .map(unescape)
                .collect::<Option<_>>()
                .ok_or(format!(
                    "--key {given}: in a JSON pointer `~` is written `~0`, and `/` in a name `~1`"
                ))?,
        };
        Ok(Self {
            given: given.to_owned(),
            path,
        })
    }

    /// Returns the key of a record: the text of a string, or a number as it is written.
    /// Numbers are not converted to doubles, because several keys would become one.
    ///
    /// # Errors
    /// The reason why the record is rejected. If the key is missing and `names` is set, the reason
    /// lists the fields of the record, and `names` is cleared.
    pub(super) fn of(&self, record: &str, names: &mut bool) -> Result<String, String> {
        let mut value = record;
        for (depth, name) in self.path.iter().enumerate() {
            let found = member(value, name).map_err(|error| {
                if depth == 0 {
                    not_json(&error, record)
                } else {
                    format!(
                        "no field {:?}: {} is not an object",
                        self.given,
                        self.up_to(depth)
                    )
                }
            })?;
            let Some(found) = found else {
                let there = if std::mem::take(names) {
                    fields_of(value)
                } else {
                    String::new()
                };
                return Err(format!("no field {:?}{there}", self.given));
            };
            value = found.get();
        }
        self.text(value)
    }

    fn text(&self, value: &str) -> Result<String, String> {
        let what = match value.as_bytes().first() {
            Some(b'"') => {
                return serde_json::from_str(value)
                    .map_err(|error| format!("field {:?}: {}", self.given, place(&error, value)));
            }
            Some(b'-' | b'0'..=b'9') => return Ok(value.to_owned()),
            Some(b'{') => "an object",
            Some(b'[') => "an array",
            _ => value,
        };
        Err(format!(
            "field {:?} is {what}: a key is a string or a number",
            self.given
        ))
    }

    fn up_to(&self, depth: usize) -> String {
        let names: Vec<&str> = self.path.iter().take(depth).map(String::as_str).collect();
        format!("/{}", names.join("/"))
    }
}

fn unescape(token: &str) -> Option<String> {
    let is_wrong = token
        .split('~')
        .skip(1)
        .any(|rest| !rest.starts_with(['0', '1']));
    // ORDER: RFC 6901 requires `~1` first, so that `~01` becomes `~1`.
    (!is_wrong).then(|| token.replace("~1", "/").replace("~0", "~"))
}

/// Returns the reason to reject a record that is not JSON, or not a JSON object.
pub(super) fn not_json(error: &serde_json::Error, record: &str) -> String {
    if error.is_data() {
        return "not a JSON object".to_owned();
    }
    format!("not JSON: {}", place(error, record))
}

/// Returns an error with its position in the record. serde's own text is replaced, because its
/// "line 1" would be read as line 1 of the input.
fn place(error: &serde_json::Error, record: &str) -> String {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let what = text
        .strip_suffix(&format!(" at line {line} column {column}"))
        .unwrap_or(&text);
    if record.contains('\n') {
        format!("{what} (line {line} of the record, column {column})")
    } else {
        format!("{what} (column {column})")
    }
}

/// Returns the last field named `name` of an object, or the element with that number of an array.
/// Reads the whole text, so that invalid JSON anywhere in it is an error.
fn member<'a>(text: &'a str, name: &str) -> serde_json::Result<Option<&'a RawValue>> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let found = match text.trim_ascii_start().as_bytes().first() {
        Some(b'[') => {
            // RFC 6901 allows neither a sign nor leading zeros.
            let is_number = name == "0" || !name.starts_with(['0', '+']);
            let at = name.parse().ok().filter(|_| is_number);
            deserializer.deserialize_seq(Element(at))?
        }
        _ => deserializer.deserialize_map(Field(name))?,
    };
    deserializer.end()?;
    Ok(found)
}

struct Field<'n>(&'n str);

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_it) = map.next_key_seed(IsName(self.0))? {
            if is_it {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

struct Element(Option<usize>);

impl<'de> Visitor<'de> for Element {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let (mut found, mut at) = (None, 0);
        while let Some(element) = seq.next_element::<&RawValue>()? {
            if self.0 == Some(at) {
                found = Some(element);
            }
            at += 1;
        }
        Ok(found)
    }
}

/// Compares the name of a field without copying it.
struct IsName<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for IsName<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for IsName<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

/// Lists the fields of an object, for the message about a missing one.
fn fields_of(text: &str) -> String {
    let Ok(fields) = serde_json::from_str::<BTreeMap<String, &RawValue>>(text) else {
        return String::new();
    };
    let names: Vec<String> = fields.keys().map(|name| format!("{name:?}")).collect();
    listed(&names, NAMES_MAX, "the record has")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(given: &str, record: &str) -> Result<String, String> {
        JsonKey::parse(given).unwrap().of(record, &mut true)
    }

    #[test]
    fn a_number_is_the_key_as_it_is_written() {
        for number in [
            "0.916345371808552",
            "0.9163453718085521",
            "1e-400",
            "1e-401",
            "1",
            "1.0",
            "1e3",
            "1E+3",
            "-0",
            "-0.0",
            "18446744073709551616",
            "123456789012345678901234567890",
            "1e400",
        ] {
            assert_eq!(
                key("k", &format!("{{\"k\": {number} ,\"v\":1}}")).unwrap(),
                number
            );
        }
        for wrong in ["01", "1.", ".5", "+1", "-", "1e", "0x10", "NaN"] {
            let refused = key("k", &format!("{{\"k\":{wrong}}}")).unwrap_err();
            assert!(refused.starts_with("not JSON: "), "{wrong}: {refused}");
        }
    }

    #[test]
    fn a_string_is_decoded_and_the_last_of_two_fields_counts() {
        assert_eq!(
            key("k", r#"{"k":"a\u00e9\n\ud83d\ude00"}"#).unwrap(),
            "a\u{e9}\n\u{1f600}"
        );
        assert_eq!(
            key("k", r#"{"k":1,"x":{"k":5},"\u006b":"last"}"#).unwrap(),
            "last"
        );
        // Other fields are not decoded, but they must be valid JSON.
        assert_eq!(
            key("k", r#"{"other":1e999,"s":"\ud800","k":1}"#).unwrap(),
            "1"
        );
        assert!(
            key("k", r#"{"k":"\ud800"}"#)
                .unwrap_err()
                .starts_with("field \"k\": ")
        );
        for wrong in [
            r#"{"k":1} x"#,
            r#"{"k":1,}"#,
            r#"{"k":1"#,
            "nonsense",
            "{\"k\":1,\"s\":\"\t\"}",
        ] {
            assert!(
                key("k", wrong).unwrap_err().starts_with("not JSON: "),
                "{wrong}"
            );
        }
    }

    #[test]
    fn what_is_no_key_says_what_it_is() {
        for (value, what) in [
            ("true", "is true"),
            ("null", "is null"),
            ("[]", "is an array"),
            ("{}", "is an object"),
        ] {
            let refused = key("k", &format!("{{\"k\":{value}}}")).unwrap_err();
            assert!(refused.contains(what), "{refused}");
        }
        for record in ["5", "\"k\"", "null"] {
            assert_eq!(key("k", record).unwrap_err(), "not a JSON object");
        }
        let mut names = true;
        let none = JsonKey::parse("none").unwrap();
        let record = r#"{"b":1,"a":{"x":1}}"#;
        let refused = none.of(record, &mut names).unwrap_err();
        assert_eq!(refused, "no field \"none\": the record has \"a\", \"b\"");
        assert_eq!(
            none.of(record, &mut names).unwrap_err(),
            "no field \"none\""
        );
    }

    #[test]
    fn a_pointer_leads_to_a_nested_key() {
        let record =
            r#"{"user":{"id":7,"tags":["x","y"],"id":8},"/id":"slash","~":"tilde","":{"":"e"}}"#;
        for (pointer, found) in [
            ("/user/id", "8"),
            ("/user/tags/1", "y"),
            ("/~1id", "slash"),
            ("/~0", "tilde"),
            ("//", "e"),
        ] {
            assert_eq!(key(pointer, record).unwrap(), found, "{pointer}");
        }
        assert_eq!(key("/0", "[\"a\"]").unwrap(), "a");
        assert_eq!(
            key("/user/name", record).unwrap_err(),
            "no field \"/user/name\": the record has \"id\", \"tags\""
        );
        assert_eq!(
            key("/user/id/x", record).unwrap_err(),
            "no field \"/user/id/x\": /user/id is not an object"
        );
        for missing in [
            "/user/tags/2",
            "/user/tags/01",
            "/user/tags/-",
            "/user/tags/+1",
        ] {
            assert!(key(missing, record).is_err(), "{missing}");
        }
        assert!(JsonKey::parse("/a~2b").is_err());
        assert!(JsonKey::parse("/a~").is_err());
        assert_eq!(JsonKey::parse("a~b").unwrap().path, ["a~b"]);
    }
}
