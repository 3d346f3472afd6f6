//! Parses a command of a session into its fields and the original text of its `id`.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::fmt;

/// A command. The `id` is kept as text and returned unchanged: a conversion to a number could round
/// it, or fail.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) id: Option<&'a RawValue>,
    /// The other fields, or the error of one of them.
    pub(crate) fields: Result<Map<String, Value>, String>,
}

impl<'de> Deserialize<'de> for Asked<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AskedVisitor)
    }
}

struct AskedVisitor;

impl<'de> Visitor<'de> for AskedVisitor {
    type Value = Asked<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Asked<'de>, A::Error> {
        let mut id = None;
        let mut fields = Ok(Map::new());
        while let Some(name) = map.next_key::<String>()? {
            let text: &RawValue = map.next_value()?;
            if name == "id" {
                id = Some(text);
                continue;
            }
            match serde_json::from_str(text.get()) {
                Ok(value) => {
                    if let Ok(fields) = &mut fields {
                        fields.insert(name, value);
                    }
                }
                Err(error) => fields = Err(format!("{name:?}: {error}")),
            }
        }
        Ok(Asked { id, fields })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_text_it_came_as() {
        for id in [
            "12345678901234567890123",
            "0.1234567890123456789",
            "1e400",
            "-0",
            "1.0",
            "1E5",
            "\"\\u00e9\\ud800\"",
            "{ \"b\" : 1,\"a\":1.10}",
            "[1, 2]",
            "null",
            "true",
        ] {
            let line = format!("{{\"op\":\"get\",\"id\":{id} ,\"key\":\"k\"}}\n");
            let asked: Asked<'_> = serde_json::from_slice(line.as_bytes()).unwrap();
            assert_eq!(asked.id.unwrap().get(), id);
            assert_eq!(asked.fields.unwrap()["key"], "k");
        }
        let twice: Asked<'_> = serde_json::from_str(r#"{"id":1,"id":2.0}"#).unwrap();
        assert_eq!(twice.id.unwrap().get(), "2.0");
    }

    #[test]
    fn an_id_is_known_although_another_field_is_not_a_number() {
        let asked: Asked<'_> = serde_json::from_str(r#"{"expiry":1e400,"id":7}"#).unwrap();
        assert_eq!(asked.id.unwrap().get(), "7");
        assert!(asked.fields.unwrap_err().starts_with("\"expiry\": "));
        assert!(serde_json::from_str::<Asked<'_>>("[1]").is_err());
    }
}
