//! Converts changes to and from JSON, the format that `dump` prints and `import --format dump`
//! reads.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use vbstore::{Cas, Change, ItemKind, ItemMeta, Seqno, VbId};

/// Returns bytes as a JSON string, or as `{"base64": ...}` if they are not UTF-8.
pub(crate) fn text(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => json!({"base64": STANDARD.encode(bytes)}),
    }
}

/// Returns a path as JSON, in the form of [`text`].
pub(crate) fn path(path: &Path) -> Value {
    text(path.as_os_str().as_bytes())
}

/// Returns the bytes that [`text`] encoded.
pub(crate) fn bytes(value: &Value) -> Result<Vec<u8>, String> {
    if let Some(text) = value.as_str() {
        return Ok(text.as_bytes().to_vec());
    }
    let encoded = value.get("base64").and_then(Value::as_str);
    let encoded = encoded.ok_or("neither a string nor {\"base64\": ...}")?;
    STANDARD
        .decode(encoded)
        .map_err(|error| format!("base64: {error}"))
}

/// Returns a change as one JSON object.
pub(crate) fn object(
    vb: VbId,
    meta: ItemMeta,
    key: &[u8],
    value: &[u8],
    prev_seqno: Option<Seqno>,
) -> Value {
    let mut object = json!({
        "vb": vb.get(),
        "seqno": meta.seqno.get(),
        "kind": meta.kind.name(),
        "key": text(key),
        "value": text(value),
        "cas": meta.cas.get(),
        "expiry": meta.expiry,
        "prev_seqno": prev_seqno.map(Seqno::get),
    });
    if let Some(object) = object.as_object_mut() {
        if meta.flags != 0 {
            object.insert("flags".to_owned(), meta.flags.into());
        }
        if meta.datatype != 0 {
            object.insert("datatype".to_owned(), meta.datatype.into());
        }
    }
    object
}

/// Returns the change that an object of `dump` describes, to be written to another store.
pub(crate) fn change(object: &Map<String, Value>) -> Result<Change, String> {
    let field = |name: &str| object.get(name).ok_or_else(|| format!("no field {name:?}"));
    let number = |name: &str| -> Result<u64, String> {
        field(name)?
            .as_u64()
            .ok_or_else(|| format!("{name:?} is not a number"))
    };
    let optional = |name: &str| object.get(name).map_or(Ok(0), |_| number(name));
    let small = |name: &'static str, value: u64| {
        u32::try_from(value).map_err(|_| format!("{name:?} is too large"))
    };
    let kind = field("kind")?.as_str().and_then(ItemKind::from_name);
    let kind = kind.ok_or("\"kind\" is none of mutation, deletion and expiration")?;
    let key = bytes(field("key")?).map_err(|error| format!("\"key\": {error}"))?;
    let value = bytes(field("value")?).map_err(|error| format!("\"value\": {error}"))?;
    let datatype = u8::try_from(optional("datatype")?).map_err(|_| "\"datatype\" is too large")?;
    Ok(Change::restore(kind, key, value, Cas::new(number("cas")?))
        .expiry(small("expiry", number("expiry")?)?)
        .flags(small("flags", optional("flags")?)?)
        .datatype(datatype))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_being_text() {
        for sample in [
            &b"plain"[..],
            b"",
            b"\xff\x00",
            "h\u{e9}".as_bytes(),
            b"\"quote\"",
        ] {
            assert_eq!(bytes(&text(sample)).unwrap(), sample);
        }
        assert!(bytes(&json!(12)).is_err());
        assert!(bytes(&json!({"base64": "!"})).is_err());
    }

    #[test]
    fn an_object_that_is_no_change_says_why() {
        let refused = |value: Value| change(value.as_object().unwrap()).unwrap_err();
        assert_eq!(refused(json!({})), "no field \"kind\"");
        let bad = json!({"kind": "odd", "key": "k", "value": "", "cas": 1, "expiry": 0});
        assert!(refused(bad).contains("none of"));
        let bad = json!({"kind": "mutation", "key": "k", "value": "", "cas": "1", "expiry": 0});
        assert_eq!(refused(bad), "\"cas\" is not a number");
    }
}
