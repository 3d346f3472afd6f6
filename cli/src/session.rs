//! `session`: keeps a store open and takes JSON commands, one on each line.

mod fields;

use crate::args;
use crate::input::{PipeReader, read_line};
use crate::output::{CommandError, CommandResult, DONE, IO, Output};
use crate::record::{bytes, text};
use crate::stop::StopFlag;
use crate::{record, stats, store, tail, verify};
use serde_json::{Map, Value, json};
use std::time::Duration;
use vbstore::{
    Cas, Change, Clock, ConsumerConfig, Durability, Engine, KeyRange, OpenOutcome, PageForm,
    Position, Seqno, SliceBudget, StreamOptions, StreamRequest, Streams, StreamsConfig,
    SystemClock, VBucket, WriteReceipt,
};

pub(crate) fn run(args: &args::SessionArgs, out: &mut Output, stop: &StopFlag) -> CommandResult {
    let engine = if args.read_only {
        store::open_read_only(&args.dir)?
    } else {
        store::open_or_create(&args.dir, args.vbuckets)?
    };
    let streams = Streams::start(&engine, &StreamsConfig::default())?;
    let mut input = PipeReader::stdin(stop).map_err(|error| CommandError::thread(&error))?;
    let mut line = Vec::new();
    loop {
        line.clear();
        // After a stop was requested, the line may be incomplete: it is not run.
        let read = read_line(&mut input, &mut line).map_err(|error| {
            let text = format!("cannot read standard input: {error}");
            CommandError::new(IO, "io", text)
        })?;
        if read == 0 || stop.is_asked() {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let (answer, is_last) = run_line(&engine, &streams, &line);
        out.line(answer)?;
        out.flush()?;
        if is_last {
            break;
        }
    }
    drop(streams);
    engine.close()?;
    Ok(DONE)
}

/// Runs the command on one line. Returns its answer, and whether it ends the session.
fn run_line(engine: &Engine, streams: &Streams, line: &[u8]) -> (Value, bool) {
    let parsed: Result<Map<String, Value>, _> = serde_json::from_slice(line);
    let (id, outcome, is_last) = match parsed {
        Err(error) => (
            None,
            Err(CommandError::usage(format!(
                "the line is not a JSON object: {error}"
            ))),
            false,
        ),
        Ok(command) => {
            let checked = fields::check(&command);
            let is_quit = checked.as_ref().is_ok_and(|op| *op == "quit");
            let outcome = checked.and_then(|op| {
                SessionCommand {
                    engine,
                    streams,
                    fields: &command,
                }
                .run(op)
            });
            (command.get("id").cloned(), outcome, is_quit)
        }
    };
    let mut object = match outcome {
        Ok(Value::Object(mut object)) => {
            object.insert("ok".to_owned(), true.into());
            object
        }
        Ok(value) => Map::from_iter([("ok".to_owned(), true.into()), ("result".to_owned(), value)]),
        Err(failure) => {
            let mut object = Map::from_iter([("ok".to_owned(), false.into())]);
            object.extend(failure.to_json().as_object().cloned().unwrap_or_default());
            object
        }
    };
    if let Some(id) = id {
        object.insert("id".to_owned(), id);
    }
    (Value::Object(object), is_last)
}

struct SessionCommand<'a> {
    engine: &'a Engine,
    streams: &'a Streams,
    fields: &'a Map<String, Value>,
}

impl SessionCommand<'_> {
    fn run(&self, op: &str) -> Result<Value, CommandError> {
        match op {
            "set" | "add" | "replace" | "del" | "touch" => {
                let change = change(op, self.fields)?;
                let vb = self.engine.for_key(change.key());
                let written = vb.write(change, self.durability()?)?;
                Ok(receipt_object(&vb, written))
            }
            "batch" => self.batch(),
            "get" => {
                let key = self.key()?;
                let vb = self.engine.for_key(&key);
                Ok(match vb.get(&key)? {
                    None => json!({"found": false}),
                    Some(document) => json!({
                        "found": true,
                        "record": record::object(vb.id(), document.meta, &key, &document.value, None),
                    }),
                })
            }
            "get_meta" => {
                let key = self.key()?;
                let vb = self.engine.for_key(&key);
                Ok(match vb.get_meta(&key)? {
                    None => json!({"found": false}),
                    Some(meta) => {
                        let mut object = record::object(vb.id(), meta, &key, b"", None);
                        if let Some(object) = object.as_object_mut() {
                            object.remove("value");
                            object.insert("value_len".to_owned(), meta.value_len.into());
                        }
                        json!({"found": true, "record": object})
                    }
                })
            }
            "get_many" => self.get_many(),
            "prefix" | "range" => self.page(op),
            "wait_synced" => {
                let timeout = self.optional_number("timeout_ms")?.unwrap_or(10_000);
                let seqno = Seqno::new(self.number("seqno")?);
                self.vb()?
                    .wait_synced(seqno, Duration::from_millis(timeout))?;
                Ok(json!({}))
            }
            "flush" => Ok(self.engine.flush().map(|()| json!({}))?),
            "compact" => Ok(self.engine.compact(self.vb()?.id()).map(|()| json!({}))?),
            "delete_vbucket" => {
                let uuid = self.engine.delete_vbucket(self.vb()?.id())?;
                Ok(json!({"vb_uuid": uuid.get()}))
            }
            "stats" if self.fields.contains_key("vb") => Ok(stats::vbucket_object(&self.vb()?)?),
            "stats" => Ok(stats::engine_object(self.engine)?),
            "seqnos" => {
                let seqnos = self.vb()?.seqnos()?;
                Ok(json!({
                    "high": seqnos.high.get(), "persisted": seqnos.persisted.get(),
                    "synced": seqnos.synced.get(), "purge": seqnos.purge.get(),
                    "vb_uuid": seqnos.vb_uuid.get(),
                }))
            }
            "failover_log" => Ok(json!({"entries": stats::failover_log(&self.vb()?)?})),
            "tail" => self.tail(),
            "verify" => {
                let found = verify::all(self.engine)?;
                Ok(json!({"verification": verify::object(&found, found.is_ok())}))
            }
            "help" => Ok(fields::help()),
            "quit" => Ok(json!({})),
            other => Err(CommandError::usage(format!(
                "unknown op {other:?}; try {{\"op\":\"help\"}}"
            ))),
        }
    }

    fn batch(&self) -> Result<Value, CommandError> {
        let changes = self.fields.get("changes").and_then(Value::as_array);
        let changes = changes.ok_or_else(|| CommandError::usage("\"changes\" must be an array"))?;
        let changes: Result<Vec<Change>, CommandError> = changes
            .iter()
            .map(|item| {
                let fields = item
                    .as_object()
                    .ok_or_else(|| CommandError::usage("each change must be an object"))?;
                change(
                    fields.get("op").and_then(Value::as_str).unwrap_or("set"),
                    fields,
                )
            })
            .collect();
        let vb = self.vb()?;
        let written = vb.batch(&changes?, self.durability()?)?;
        let written: Vec<Value> = written
            .into_iter()
            .map(|w| receipt_object(&vb, w))
            .collect();
        Ok(json!({"written": written}))
    }

    fn get_many(&self) -> Result<Value, CommandError> {
        let keys = self.fields.get("keys").and_then(Value::as_array);
        let keys = keys.ok_or_else(|| CommandError::usage("\"keys\" must be an array"))?;
        let keys: Result<Vec<Vec<u8>>, String> = keys.iter().map(bytes).collect();
        let keys = keys.map_err(CommandError::usage)?;
        let values: Vec<Value> = self
            .vb()?
            .get_many(&keys)?
            .into_iter()
            .map(|document| document.map_or(Value::Null, |document| text(&document.value)))
            .collect();
        Ok(json!({"values": values}))
    }

    fn page(&self, op: &str) -> Result<Value, CommandError> {
        let optional = |name: &str| -> Result<Option<Vec<u8>>, CommandError> {
            self.fields
                .get(name)
                .map(|value| {
                    bytes(value).map_err(|e| CommandError::usage(format!("{name:?}: {e}")))
                })
                .transpose()
        };
        let from = optional("from")?;
        let mut range = if op == "prefix" {
            KeyRange::prefix(optional("prefix")?.unwrap_or_default())
        } else {
            KeyRange::new(
                from.clone().unwrap_or_default(),
                optional("to")?.map(Into::into),
            )
        };
        if let Some(from) = from.filter(|_| op == "prefix") {
            range = range.starting_at(from);
        }
        let limit = self.optional_number("limit")?.unwrap_or(100);
        let items_max = usize::try_from(limit).unwrap_or(usize::MAX);
        let budget = SliceBudget {
            items_max,
            ..SliceBudget::default()
        };
        let vb = self.vb()?;
        let page = vb.range_within(&range, PageForm::Documents, budget)?;
        let entries: Vec<Value> = page
            .entries
            .iter()
            .map(|entry| {
                let value = entry.value.as_deref().unwrap_or_default();
                record::object(vb.id(), entry.meta, &entry.key, value, None)
            })
            .collect();
        let next = page.rest.as_ref().map(|rest| text(rest.from()));
        Ok(json!({"entries": entries, "as_of": page.as_of.get(), "next": next}))
    }

    /// Returns up to `limit` events after a position, and the position after the last of them.
    ///
    /// Waits up to `timeout_ms` in all for events that do not exist yet.
    fn tail(&self) -> Result<Value, CommandError> {
        let vb = self.vb()?;
        let position = match self.fields.get("position") {
            Some(position) => serde_json::from_value(position.clone())
                .map_err(|error| CommandError::usage(format!("\"position\": {error}")))?,
            None => match self.optional_number("from")? {
                Some(from) => tail::after(&vb, from)?,
                None => Position::default(),
            },
        };
        let prefix = match self.fields.get("prefix") {
            Some(prefix) => bytes(prefix).map_err(CommandError::usage)?,
            None => Vec::new(),
        };
        let is_keys_only = self.fields.get("keys_only") == Some(&Value::Bool(true));
        let options = StreamOptions {
            prefix: prefix.into(),
            is_keys_only,
            ..StreamOptions::default()
        };
        let limit = usize::try_from(self.optional_number("limit")?.unwrap_or(100));
        let limit = limit.unwrap_or(usize::MAX);
        let timeout = self.optional_number("timeout_ms")?.unwrap_or(1_000);
        let clock = SystemClock::new();
        let mut consumer = self
            .streams
            .consumer("session", &ConsumerConfig::default())?;
        let request = StreamRequest::resume(vb.id(), position).options(options);
        if let OpenOutcome::Rollback { to, reason } = consumer.open(&request)? {
            return Ok(json!({"rollback": {"to": to.get(), "reason": reason.name()}}));
        }
        let mut events = Vec::new();
        while events.len() < limit {
            let left = Duration::from_millis(timeout).saturating_sub(clock.monotonic());
            match consumer.recv_timeout(left) {
                Ok(event) => events.push(tail::object(event.vb, &event.event, is_keys_only)),
                Err(_) => break,
            }
        }
        Ok(json!({"events": events, "position": consumer.position(vb.id())}))
    }

    fn key(&self) -> Result<Vec<u8>, CommandError> {
        key(self.fields)
    }

    fn vb(&self) -> Result<VBucket, CommandError> {
        let number = self.number("vb")?;
        let number = u16::try_from(number)
            .map_err(|_| CommandError::usage("\"vb\" must be a number from 0 to 65535"))?;
        store::vbucket(self.engine, number)
    }

    fn durability(&self) -> Result<Durability, CommandError> {
        let Some(value) = self.fields.get("durability") else {
            return Ok(Durability::Synced);
        };
        let named = value.as_str().and_then(Durability::from_name);
        let refuse = || CommandError::usage("\"durability\" must be memory, logged or synced");
        named.ok_or_else(refuse)
    }

    fn number(&self, name: &str) -> Result<u64, CommandError> {
        let number = number(self.fields, name)?;
        number.ok_or_else(|| CommandError::usage(format!("missing field {name:?}")))
    }

    fn optional_number(&self, name: &str) -> Result<Option<u64>, CommandError> {
        number(self.fields, name)
    }
}

fn key(fields: &Map<String, Value>) -> Result<Vec<u8>, CommandError> {
    let key = fields
        .get("key")
        .ok_or_else(|| CommandError::usage("missing field \"key\""))?;
    bytes(key).map_err(|error| CommandError::usage(format!("\"key\": {error}")))
}

fn number(fields: &Map<String, Value>, name: &str) -> Result<Option<u64>, CommandError> {
    let parse = |value: &Value| {
        value.as_u64().ok_or_else(|| {
            CommandError::usage(format!("{name:?} must be a whole number, 0 or more"))
        })
    };
    fields.get(name).map(parse).transpose()
}

/// Returns the change that a command or a batch entry describes.
fn change(op: &str, fields: &Map<String, Value>) -> Result<Change, CommandError> {
    let key = key(fields)?;
    let value = || {
        let value = fields
            .get("value")
            .ok_or_else(|| CommandError::usage("missing field \"value\""))?;
        bytes(value).map_err(|error| CommandError::usage(format!("\"value\": {error}")))
    };
    let small = |name: &str| -> Result<u32, CommandError> {
        let number = number(fields, name)?.unwrap_or(0);
        u32::try_from(number)
            .map_err(|_| CommandError::usage(format!("{name:?} must be at most {}", u32::MAX)))
    };
    let mut change = match op {
        "set" => Change::set(key, value()?),
        "add" => Change::add(key, value()?),
        "replace" => Change::replace(key, value()?),
        "del" => Change::delete(key),
        "touch" => Change::touch(key, small("expiry")?),
        other => {
            return Err(CommandError::usage(format!(
                "{other:?} cannot be a change of a batch"
            )));
        }
    };
    change = change.expiry(small("expiry")?).flags(small("flags")?);
    if let Some(cas) = number(fields, "cas")? {
        change = change.cas(Cas::new(cas));
    }
    Ok(change)
}

/// Returns the receipt of a write as one JSON object.
fn receipt_object(vb: &VBucket, written: WriteReceipt) -> Value {
    json!({
        "vb": vb.id().get(),
        "seqno": written.seqno.get(),
        "cas": written.cas.get(),
        "vb_uuid": written.vb_uuid.get(),
    })
}
