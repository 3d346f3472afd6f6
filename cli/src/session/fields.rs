//! The commands of a session, the fields that each takes, and the check that a command has only
//! those.

use crate::output::CommandError;
use crate::record;
use serde_json::{Map, Value, json};
use vbstore::{Durability, Position};

/// The type of a field.
#[derive(Clone, Copy)]
enum Kind {
    /// A string, or `{"base64": ...}`.
    Bytes,
    ArrayOfBytes,
    /// A whole number from 0 to this.
    Number(u64),
    Bool,
    Durability,
    /// The `position` in the answer of an earlier `tail`.
    Position,
    /// The changes of a batch, each an object with fields of its own.
    Changes,
}

struct Field {
    name: &'static str,
    kind: Kind,
    is_required: bool,
}

const fn required(name: &'static str, kind: Kind) -> Field {
    Field {
        name,
        kind,
        is_required: true,
    }
}

const fn optional(name: &'static str, kind: Kind) -> Field {
    Field {
        name,
        kind,
        is_required: false,
    }
}

const VB: Field = required("vb", Kind::Number(0xffff));
const KEY: Field = required("key", Kind::Bytes);
const VALUE: Field = required("value", Kind::Bytes);
const DURABILITY: Field = optional("durability", Kind::Durability);
const EXPIRY: Field = optional("expiry", Kind::Number(0xffff_ffff));
const FLAGS: Field = optional("flags", Kind::Number(0xffff_ffff));
const CAS: Field = optional("cas", Kind::Number(u64::MAX));
const LIMIT: Field = optional("limit", Kind::Number(u64::MAX));
const FROM_KEY: Field = optional("from", Kind::Bytes);
const TIMEOUT: Field = optional("timeout_ms", Kind::Number(u64::MAX));
const PREFIX: Field = optional("prefix", Kind::Bytes);

/// A command: its name, its fields, and a note for `help`.
struct Op(&'static str, &'static [Field], &'static str);

const OPS: &[Op] = &[
    Op("set", &[KEY, VALUE, DURABILITY, EXPIRY, FLAGS, CAS], ""),
    Op("add", &[KEY, VALUE, DURABILITY, EXPIRY, FLAGS], ""),
    Op("replace", &[KEY, VALUE, DURABILITY, EXPIRY, FLAGS, CAS], ""),
    Op("del", &[KEY, DURABILITY, CAS], ""),
    Op(
        "touch",
        &[
            KEY,
            required("expiry", Kind::Number(0xffff_ffff)),
            DURABILITY,
            CAS,
        ],
        "",
    ),
    Op(
        "batch",
        &[VB, required("changes", Kind::Changes), DURABILITY],
        "each change is an object with the fields of set, add, replace, del or touch, and its `op` \
         (default: set)",
    ),
    Op("get", &[KEY], ""),
    Op("get_meta", &[KEY], ""),
    Op(
        "get_many",
        &[VB, required("keys", Kind::ArrayOfBytes)],
        "all keys must belong to this vBucket",
    ),
    Op(
        "prefix",
        &[VB, PREFIX, LIMIT, FROM_KEY],
        "to continue, give the \"next\" of an earlier answer as \"from\"",
    ),
    Op(
        "range",
        &[VB, FROM_KEY, optional("to", Kind::Bytes), LIMIT],
        "",
    ),
    Op("stats", &[optional("vb", Kind::Number(0xffff))], ""),
    Op("seqnos", &[VB], ""),
    Op("failover_log", &[VB], ""),
    Op(
        "wait_synced",
        &[VB, required("seqno", Kind::Number(u64::MAX)), TIMEOUT],
        "",
    ),
    Op("flush", &[], ""),
    Op("compact", &[VB], ""),
    Op(
        "tail",
        &[
            VB,
            optional("position", Kind::Position),
            optional("from", Kind::Number(u64::MAX)),
            LIMIT,
            TIMEOUT,
            PREFIX,
            optional("keys_only", Kind::Bool),
        ],
        "events after a position, or from a seqno",
    ),
    Op("verify", &[], ""),
    Op("delete_vbucket", &[VB], ""),
    Op("help", &[], ""),
    Op("quit", &[], ""),
];

/// The commands that a batch may hold as changes.
const CHANGES: [&str; 5] = ["set", "add", "replace", "del", "touch"];

impl Op {
    fn find(name: &str) -> Option<&'static Self> {
        OPS.iter().find(|op| op.0 == name)
    }

    /// Returns the names of the fields as a list; optional ones end with a question mark. A change
    /// of a batch has no `durability`: the batch has one for all.
    fn listed(&self, is_in_batch: bool) -> String {
        let fields = self
            .1
            .iter()
            .filter(|field| !is_in_batch || field.name != DURABILITY.name);
        let names: Vec<String> = fields
            .map(|field| format!("{}{}", field.name, if field.is_required { "" } else { "?" }))
            .collect();
        if names.is_empty() {
            "no fields".to_owned()
        } else {
            names.join(", ")
        }
    }
}

/// Returns all commands with their fields.
pub(super) fn help() -> Value {
    OPS.iter()
        .map(|op| {
            let fields = match (op.1, op.2) {
                ([], _) => String::new(),
                (_, "") => op.listed(false),
                (_, note) => format!("{}: {note}", op.listed(false)),
            };
            (op.0.to_owned(), json!(fields))
        })
        .collect()
}

/// Returns the name of a line's command, after a check of all its fields.
///
/// # Errors
/// There is no such command; a field is missing, unknown to the command, or of the wrong type.
pub(super) fn check(command: &Map<String, Value>) -> Result<&str, CommandError> {
    let Some(named) = command.get("op") else {
        return Err(CommandError::usage(
            "missing field \"op\"; try {\"op\":\"help\"}",
        ));
    };
    let op = named.as_str().and_then(Op::find).ok_or_else(|| {
        CommandError::usage(format!(
            "unknown op {}; try {{\"op\":\"help\"}}",
            shown(named)
        ))
    })?;
    check_fields(op, command, false).map_err(CommandError::usage)?;
    Ok(op.0)
}

fn check_fields(op: &Op, fields: &Map<String, Value>, is_in_batch: bool) -> Result<(), String> {
    let Op(name, known, _) = op;
    let takes = || format!("{name:?} takes {}", op.listed(is_in_batch));
    for (given, value) in fields {
        // Any `id` is allowed: the answer repeats it.
        if given == "op" || (given == "id" && !is_in_batch) {
            continue;
        }
        let field = known.iter().find(|field| field.name == given);
        let field = field.filter(|field| !is_in_batch || field.name != DURABILITY.name);
        let Some(field) = field else {
            return Err(format!("unknown field {given:?}: {}", takes()));
        };
        check_value(field, value)?;
    }
    for field in known.iter().filter(|field| field.is_required) {
        if !fields.contains_key(field.name) {
            return Err(format!("missing field {:?}: {}", field.name, takes()));
        }
    }
    Ok(())
}

fn check_value(field: &Field, value: &Value) -> Result<(), String> {
    let name = field.name;
    let must = |what: &str| Err(format!("{name:?} must be {what}, not {}", shown(value)));
    match field.kind {
        Kind::Bytes => {
            bytes_error(value).map_or(Ok(()), |error| Err(format!("{name:?} must be {error}")))
        }
        Kind::ArrayOfBytes => {
            let Some(items) = value.as_array() else {
                return must("an array");
            };
            for (at, error) in items.iter().map(bytes_error).enumerate() {
                if let Some(error) = error {
                    return Err(format!("{name}[{at}] must be {error}"));
                }
            }
            Ok(())
        }
        Kind::Number(max) => match value.as_u64() {
            Some(number) if number <= max => Ok(()),
            _ if max == u64::MAX => must("a whole number, 0 or more"),
            _ => must(&format!("a whole number from 0 to {max}")),
        },
        Kind::Bool if value.is_boolean() => Ok(()),
        Kind::Bool => must("true or false"),
        Kind::Durability => match value.as_str().and_then(Durability::from_name) {
            Some(_) => Ok(()),
            None => must("one of \"memory\", \"logged\" and \"synced\""),
        },
        Kind::Position => match serde_json::from_value::<Position>(value.clone()) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!(
                "{name:?} must be the position of an earlier answer: {error}"
            )),
        },
        Kind::Changes => {
            let Some(changes) = value.as_array() else {
                return must("an array");
            };
            for (at, change) in changes.iter().enumerate() {
                check_change(change).map_err(|error| format!("{name}[{at}]: {error}"))?;
            }
            Ok(())
        }
    }
}

fn check_change(change: &Value) -> Result<(), String> {
    let Some(fields) = change.as_object() else {
        return Err(format!("must be an object, not {}", shown(change)));
    };
    let named = match fields.get("op") {
        None => Some("set"),
        Some(op) => op.as_str().filter(|op| CHANGES.contains(op)),
    };
    let Some(op) = named.and_then(Op::find) else {
        let known = CHANGES.join(", ");
        let op = fields.get("op").map(shown).unwrap_or_default();
        return Err(format!("\"op\" must be one of {known}, not {op}"));
    };
    check_fields(op, fields, true)
}

/// Returns what a field of bytes must hold, if `value` is something else.
fn bytes_error(value: &Value) -> Option<String> {
    let what = "a string or {\"base64\": \"...\"}";
    match record::bytes(value) {
        Ok(_) => None,
        // The field has the right form, but its text is not base64: name what is wrong there.
        Err(error) if value.get("base64").is_some_and(Value::is_string) => {
            Some(format!("{what}: {error}"))
        }
        Err(_) => Some(format!("{what}, not {}", shown(value))),
    }
}

/// Returns a short text for a value in an error.
fn shown(value: &Value) -> String {
    /// Longer strings are not shown.
    const LENGTH_MAX: usize = 40;
    match value {
        Value::String(text) if text.len() > LENGTH_MAX => "a string".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &Value) -> String {
        check(line.as_object().unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn a_field_that_is_unknown_missing_or_of_another_type_is_named() {
        for (line, message) in [
            (
                json!({"op": "set", "key": "k", "value": "v", "durabilty": "memory"}),
                "unknown field \"durabilty\": \"set\" takes key, value, durability?, expiry?, \
                 flags?, cas?",
            ),
            (
                json!({"op": "get", "key": "k", "cas": 7}),
                "unknown field \"cas\": \"get\" takes key",
            ),
            (
                json!({"op": "add", "key": "k"}),
                "missing field \"value\": \"add\" takes key, value, durability?, expiry?, flags?",
            ),
            (
                json!({"op": "set", "key": 7, "value": "v"}),
                "\"key\" must be a string or {\"base64\": \"...\"}, not 7",
            ),
            (
                json!({"op": "touch", "key": "k", "expiry": "soon"}),
                "\"expiry\" must be a whole number from 0 to 4294967295, not \"soon\"",
            ),
            (
                json!({"op": "del", "key": "k", "cas": -1}),
                "\"cas\" must be a whole number, 0 or more, not -1",
            ),
            (
                json!({"op": "del", "key": "k", "durability": "durable"}),
                "\"durability\" must be one of \"memory\", \"logged\" and \"synced\", not \
                 \"durable\"",
            ),
            (
                json!({"op": "tail", "vb": 0, "keys_only": 1}),
                "\"keys_only\" must be true or false, not 1",
            ),
            (
                json!({"op": "get_many", "vb": 0, "keys": ["a", null]}),
                "keys[1] must be a string or {\"base64\": \"...\"}, not null",
            ),
            (
                json!({"op": "batch", "vb": 0, "changes": [{"key": "k", "value": "v"},
                    {"op": "del", "key": "k", "durability": "memory"}]}),
                "changes[1]: unknown field \"durability\": \"del\" takes key, cas?",
            ),
            (
                json!({"op": "batch", "vb": 0, "changes": [{"op": "get", "key": "k"}]}),
                "changes[0]: \"op\" must be one of set, add, replace, del, touch, not \"get\"",
            ),
            (json!({"op": 7}), "unknown op 7; try {\"op\":\"help\"}"),
            (json!({}), "missing field \"op\"; try {\"op\":\"help\"}"),
            (
                json!({"op": "flush", "vb": 1}),
                "unknown field \"vb\": \"flush\" takes no fields",
            ),
        ] {
            assert_eq!(refused(&line), message);
        }
        assert!(refused(&json!({"op": "tail", "vb": 0, "position": {}})).contains("\"position\""));
    }

    #[test]
    fn what_is_right_passes_with_any_id() {
        for line in [
            json!({"op": "set", "key": {"base64": "/w=="}, "value": "", "cas": u64::MAX, "id": {}}),
            json!({"op": "batch", "vb": 3, "changes": [{"op": "touch", "key": "k", "expiry": 1}]}),
            json!({"op": "tail", "vb": 0, "position": Position::default(), "keys_only": true}),
            json!({"op": "quit", "id": null}),
        ] {
            let op = check(line.as_object().unwrap()).unwrap();
            assert_eq!(line["op"], op);
        }
    }
}
