//! `get`, `set`, `del`: one key.

use crate::args::{Get, Point, Set};
use crate::output::{DONE, Failure, Out, PROBLEM, Run};
use crate::{record, store};
use serde_json::json;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use vbstore::{Cas, Change, Error, Written};

pub(crate) fn get(
    Get {
        reading,
        point: args,
    }: &Get,
    out: &mut Out,
) -> Run {
    let key = key_of(&args.key)?;
    let engine = store::open_to_read(&args.dir, *reading)?;
    let vb = engine.for_key(key);
    let Some(document) = vb.get(key)? else {
        return Err(not_found(&args.key));
    };
    if out.is_json {
        let object = record::object(vb.id(), document.meta, key, &document.value, None);
        out.line(object)?;
    } else {
        out.bytes(&document.value)?;
        out.bytes(b"\n")?;
    }
    engine.close()?;
    Ok(DONE)
}

pub(crate) fn set(args: &Set, out: &mut Out) -> Run {
    let key = key_of(&args.key)?;
    let engine = store::open_or_create(&args.dir, None)?;
    let mut change = Change::set(key, args.value.as_bytes().to_vec()).expiry(args.expiry);
    if let Some(cas) = args.cas {
        change = change.cas(Cas::new(cas));
    }
    let vb = engine.for_key(key);
    let written = vb.write(change, args.durability.into())?;
    tell(out, vb.id().get(), written)?;
    engine.close()?;
    Ok(DONE)
}

pub(crate) fn del(args: &Point, out: &mut Out) -> Run {
    let key = key_of(&args.key)?;
    let engine = store::open(&args.dir)?;
    let vb = engine.for_key(key);
    let written = match vb.delete(key) {
        Err(Error::NotFound) => return Err(not_found(&args.key)),
        written => written?,
    };
    tell(out, vb.id().get(), written)?;
    engine.close()?;
    Ok(DONE)
}

/// Returns the error that a key has no value.
fn not_found(key: &OsStr) -> Failure {
    Failure::new(PROBLEM, "not_found", format!("{key:?} has no value"))
}

/// Returns the bytes of a key, which has some.
fn key_of(key: &OsStr) -> Result<&[u8], Failure> {
    if key.is_empty() {
        return Err(Failure::usage("the key is empty"));
    }
    Ok(key.as_bytes())
}

fn tell(out: &mut Out, vb: u16, written: Written) -> Result<(), Failure> {
    let (seqno, cas) = (written.seqno.get(), written.cas.get());
    let object = json!({"vb": vb, "seqno": seqno, "cas": cas, "vb_uuid": written.vb_uuid.get()});
    out.answer(&object, format_args!("vb {vb} seqno {seqno} cas {cas}"))
}
