//! `stats`: prints counts, seqnos, disk space and health.

use crate::args;
use crate::output::{CommandResult, DONE, Output};
use crate::store;
use serde_json::{Value, json};
use vbstore::{Clock, DbSnapshotHolder, Engine, Error, SystemClock, VBucket, VbId};

pub(crate) fn run(args: &args::StatsArgs, out: &mut Output) -> CommandResult {
    let engine = store::open_to_read(&args.dir, args.reading)?;
    let object = match args.vb {
        Some(number) => vbucket_object(&store::vbucket(&engine, number)?)?,
        None => engine_object(&engine)?,
    };
    if out.is_json {
        out.line(&object)?;
    } else {
        // The metrics are hundreds of values: only programs read them.
        let fields = object.as_object().into_iter().flatten();
        for (name, value) in fields.filter(|(name, _)| *name != "metrics") {
            for (at, line) in display_lines(value).iter().enumerate() {
                let name = if at == 0 { name } else { "" };
                out.line(format_args!("{name:24} {line}"))?;
            }
        }
    }
    engine.close()?;
    Ok(DONE)
}

/// Returns a value as text: one line, or one for each element of an array.
fn display_lines(value: &Value) -> Vec<String> {
    let fields = |object: &serde_json::Map<String, Value>| {
        let fields = object.iter();
        let fields: Vec<String> = fields
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        fields.join(", ")
    };
    match value {
        Value::Null => vec!["-".to_owned()],
        Value::String(text) => vec![text.clone()],
        Value::Object(object) => vec![fields(object)],
        Value::Array(elements) if !elements.is_empty() => {
            elements.iter().flat_map(display_lines).collect()
        }
        other => vec![other.to_string()],
    }
}

/// Returns the state of the whole engine as one JSON object.
pub(crate) fn engine_object(engine: &Engine) -> Result<Value, Error> {
    let (mut items, mut tombstones, mut bytes) = (0_u64, 0_u64, 0_u64);
    let (mut high, mut persisted, mut synced) = (0_u64, 0_u64, 0_u64);
    for number in 0..engine.vbuckets() {
        let vb = engine.vbucket(VbId::new(number))?;
        let counts = vb.counts()?.counts;
        items += counts.items;
        tombstones += counts.tombstones;
        bytes += counts.bytes;
        let seqnos = vb.seqnos()?;
        high += seqnos.high.get();
        persisted += seqnos.persisted.get();
        synced += seqnos.synced.get();
    }
    let usage = engine.disk_usage()?;
    let metrics = engine.metrics();
    let snapshots: serde_json::Map<String, Value> = DbSnapshotHolder::ALL
        .into_iter()
        .map(|holder| {
            (
                holder.name().to_owned(),
                metrics.db_snapshots.open_by(holder).into(),
            )
        })
        .collect();
    let longest = metrics.db_snapshots.longest_hold().as_secs_f64() * 1_000.0;
    let health = engine.health();
    Ok(json!({
        "store": engine.store_uuid().to_string(),
        "vbuckets": engine.vbuckets(),
        "items": items,
        "tombstones": tombstones,
        "bytes": bytes,
        "high_seqno_sum": high,
        "persisted_seqno_sum": persisted,
        "synced_seqno_sum": synced,
        "health": health.name(),
        "health_cause": health.cause().map(ToString::to_string),
        "checkpoint_memory": engine.checkpoint_memory(),
        "disk_total": usage.total,
        "disk_log": usage.log,
        "disk_live_sst": usage.live_sst,
        "disk_obsolete_sst": usage.obsolete_sst,
        "open_db_snapshots": snapshots,
        "rocksdb_open_snapshots": engine.rocks_snapshots()?.open,
        "longest_db_snapshot_ms": longest,
        "flushes": metrics.flushes.get(),
        "flushed_items": metrics.flushed_items.get(),
        "flush_failures": metrics.flush_failures.get(),
        "syncs": metrics.syncs.get(),
        "busy_refusals": metrics.refusals.memory.get(),
        "checkpoints_freed": metrics.checkpoints_freed.get(),
        "metrics": engine.metrics_snapshot()?.families,
    }))
}

/// Returns the state of one vBucket as one JSON object.
pub(crate) fn vbucket_object(vb: &VBucket) -> Result<Value, Error> {
    let (seqnos, counts) = (vb.seqnos()?, vb.counts()?);
    Ok(json!({
        "vb": vb.id().get(),
        "vb_uuid": seqnos.vb_uuid.get(),
        "high_seqno": seqnos.high.get(),
        "persisted_seqno": seqnos.persisted.get(),
        "synced_seqno": seqnos.synced.get(),
        "purge_seqno": seqnos.purge.get(),
        "items": counts.counts.items,
        "tombstones": counts.counts.tombstones,
        "bytes": counts.counts.bytes,
        "counts_as_of": counts.as_of.get(),
        "failover_log": failover_log(vb)?,
        "now": SystemClock::new().wall_seconds(),
    }))
}

/// Returns the failover log of a vBucket, newest branch first.
pub(crate) fn failover_log(vb: &VBucket) -> Result<Value, Error> {
    let log = vb.failover_log()?;
    let entry = |entry: &vbstore::FailoverEntry| json!({"vb_uuid": entry.uuid.get(), "seqno": entry.seqno.get()});
    Ok(log.entries().iter().map(entry).collect())
}
