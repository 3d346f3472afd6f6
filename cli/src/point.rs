//! `get`, `set`, `del`: one key.

use crate::args::{GetArgs, PointArgs, SetArgs};
use crate::output::{CommandError, CommandResult, DONE, Output, PROBLEM};
use crate::{record, store};
use serde_json::json;
use vbstore::{Cas, Change, WriteReceipt};

pub(crate) fn get(
    GetArgs {
        reading,
        point: args,
    }: &GetArgs,
    out: &mut Output,
) -> CommandResult {
    let engine = store::open_to_read(&args.dir, *reading, out)?;
    let vb = engine.for_key(&args.key);
    let found = vb.get(&args.key)?;
    let Some(document) = found else {
        return Err(CommandError::new(
            PROBLEM,
            "not_found",
            format!("{:?} has no value", args.key),
        ));
    };
    if out.is_json {
        let object = record::object(
            vb.id(),
            document.meta,
            args.key.as_bytes(),
            &document.value,
            None,
        );
        out.line(object)?;
    } else {
        out.bytes(&document.value)?;
        out.bytes(b"\n")?;
    }
    engine.close()?;
    Ok(DONE)
}

pub(crate) fn set(args: SetArgs, out: &mut Output) -> CommandResult {
    let engine = store::open_or_create(&args.dir, None)?;
    let mut change = Change::set(&args.key, args.value).expiry(args.expiry);
    if let Some(cas) = args.cas {
        change = change.cas(Cas::new(cas));
    }
    let vb = engine.for_key(&args.key);
    let written = vb.write(change, args.durability.into())?;
    tell(out, vb.id().get(), written)?;
    engine.close()?;
    Ok(DONE)
}

pub(crate) fn del(args: &PointArgs, out: &mut Output) -> CommandResult {
    let engine = store::open(&args.dir)?;
    let vb = engine.for_key(&args.key);
    let written = vb.delete(&args.key)?;
    tell(out, vb.id().get(), written)?;
    engine.close()?;
    Ok(DONE)
}

fn tell(out: &mut Output, vb: u16, written: WriteReceipt) -> Result<(), CommandError> {
    let (seqno, cas) = (written.seqno.get(), written.cas.get());
    let object = json!({"vb": vb, "seqno": seqno, "cas": cas, "vb_uuid": written.vb_uuid.get()});
    out.answer(&object, format_args!("vb {vb} seqno {seqno} cas {cas}"))
}
