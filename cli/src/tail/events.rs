//! Stream events as JSON.

use crate::record;
use serde_json::{Value, json};
use vbstore::{EndReason, Event, VbId};

/// Returns an event as one JSON object. Changes have the fields of `dump`.
pub(crate) fn object(vb: VbId, event: &Event, is_keys_only: bool) -> Value {
    match event {
        Event::SnapshotMarker(marker) => json!({
            "kind": event.name(),
            "vb": vb.get(),
            "start": marker.start.get(),
            "end": marker.end.get(),
            "source": marker.source.name(),
        }),
        Event::SeqnoAdvanced(seqno) => json!({
            "kind": event.name(), "vb": vb.get(), "seqno": seqno.get(),
        }),
        Event::End(reason) => end(vb, reason),
        Event::Mutation(item) | Event::Deletion(item) | Event::Expiration(item) => {
            let mut object = record::object(vb, item.meta, &item.key, &item.value, None);
            if let Some(object) = object.as_object_mut().filter(|_| is_keys_only) {
                object.remove("value");
                object.insert("value_len".to_owned(), item.meta.value_len.into());
            }
            object
        }
    }
}

fn end(vb: VbId, reason: &EndReason) -> Value {
    let mut object = json!({"kind": "end", "vb": vb.get(), "reason": reason.name()});
    if let Some(object) = object.as_object_mut() {
        match reason {
            EndReason::Rollback { to, reason } => {
                object.insert("to".to_owned(), to.get().into());
                object.insert("rollback_reason".to_owned(), reason.name().into());
            }
            EndReason::Error(error) => {
                object.insert("error".to_owned(), error.to_string().into());
            }
            _ => {}
        }
    }
    object
}
