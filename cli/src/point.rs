//! `get`, `set` and `del`: read or change one key.

use crate::args::{DelArgs, GetArgs, SetArgs};
use crate::input::PipeReader;
use crate::number::u64_from;
use crate::output::{CommandError, CommandResult, DONE, IO, Output, PROBLEM, USAGE};
use crate::stop::StopFlag;
use crate::{bytes, record, store};
use serde_json::json;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use vbstore::{Cas, Change, Error, WriteReceipt};

/// Bound of the memory for a value from standard input. More than a store takes: a longer value is
/// refused before the store is opened.
const STDIN_MAX: usize = 64 << 20;

pub(crate) fn get(args: &GetArgs, out: &mut Output) -> CommandResult {
    let key = bytes::key(&args.key, args.base64)?;
    let engine = store::open_to_read(&args.dir, args.reading)?;
    let vb = engine.for_key(&key);
    let Some(document) = vb.get(&key)? else {
        engine.close()?;
        return Err(not_found(&args.key));
    };
    let value = &document.value;
    if out.is_json {
        let mut object = record::object(vb.id(), document.meta, &key, value, None);
        if args.base64
            && let Some(object) = object.as_object_mut()
        {
            let encoded = |bytes| json!({"base64": bytes::base64(bytes)});
            object.insert("key".to_owned(), encoded(&key));
            object.insert("value".to_owned(), encoded(value));
        }
        out.line(object)?;
    } else if args.base64 {
        out.line(bytes::base64(value))?;
    } else {
        out.bytes(value)?;
        if Output::is_terminal() && !value.ends_with(b"\n") {
            out.bytes(b"\n")?;
        }
    }
    engine.close()?;
    Ok(DONE)
}

pub(crate) fn set(args: &SetArgs, out: &mut Output, stop: &StopFlag) -> CommandResult {
    let key = bytes::key(&args.key, args.base64)?;
    // Read before the store is opened, so that other processes can use it until the input ends.
    let value = if args.value == "-" {
        from_stdin(stop)?
    } else {
        bytes::argument("the value", &args.value, args.base64)?
    };
    let engine = store::open_or_create(&args.dir, None)?;
    let mut change = Change::set(&key, value).expiry(args.expiry);
    if let Some(cas) = args.cas {
        change = change.cas(Cas::new(cas));
    }
    let vb = engine.for_key(&key);
    let written = vb.write(change, args.durability.into())?;
    print_receipt(out, vb.id().get(), written)?;
    engine.close()?;
    Ok(DONE)
}

/// Reads a value from standard input, up to its end.
fn from_stdin(stop: &StopFlag) -> Result<Vec<u8>, CommandError> {
    let mut value = Vec::new();
    let input = PipeReader::stdin(stop).map_err(|error| CommandError::thread(&error))?;
    let read = input.take(u64_from(STDIN_MAX + 1)).read_to_end(&mut value);
    read.map_err(|error| {
        let text = format!("cannot read standard input: {error}");
        CommandError::new(IO, "io", text)
    })?;
    if stop.is_asked() {
        // The value may be incomplete.
        return Err(CommandError::interrupted("interrupted: nothing was set"));
    }
    if value.len() > STDIN_MAX {
        let text = format!("the value on standard input is longer than {STDIN_MAX} bytes");
        return Err(CommandError::new(USAGE, "too_large", text));
    }
    Ok(value)
}

pub(crate) fn del(args: &DelArgs, out: &mut Output) -> CommandResult {
    let key = bytes::key(&args.key, args.base64)?;
    let engine = store::open(&args.dir)?;
    let vb = engine.for_key(&key);
    let mut change = Change::delete(&key);
    if let Some(cas) = args.cas {
        change = change.cas(Cas::new(cas));
    }
    let written = match vb.write(change, args.durability.into()) {
        Err(Error::NotFound) => {
            engine.close()?;
            return Err(not_found(&args.key));
        }
        written => written?,
    };
    print_receipt(out, vb.id().get(), written)?;
    engine.close()?;
    Ok(DONE)
}

/// Returns the error of a key without a value.
fn not_found(key: &OsStr) -> CommandError {
    CommandError::new(
        PROBLEM,
        "not_found",
        format!("{} has no value", bytes::quoted(key.as_bytes())),
    )
}

fn print_receipt(out: &mut Output, vb: u16, written: WriteReceipt) -> Result<(), CommandError> {
    let (seqno, cas) = (written.seqno.get(), written.cas.get());
    let object = json!({"vb": vb, "seqno": seqno, "cas": cas, "vb_uuid": written.vb_uuid.get()});
    out.answer(&object, format_args!("vb {vb} seqno {seqno} cas {cas}"))
}
