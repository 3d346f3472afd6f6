//! Debug output is short and does not contain the program's values.

use std::time::Duration;
use vbstore::{
    Change, ConsumerConfig, Durability, KeyRange, PageForm, Seqno, SeqnoRange, SliceBudget,
    StreamRequest, Streams, StreamsConfig, VbId,
};
use vbstore_tests::{TestStore, vb};

#[test]
fn debug_output_is_short_and_shows_no_value() {
    let store = TestStore::threaded();
    let engine = store.open();
    let secret = "secret".repeat(10_000);
    let change = Change::set("key", secret.clone());
    let mut shown = vec![format!("{change:?}")];
    let vbucket = vb(&engine, 1);
    vbucket.write(change, Durability::Synced).unwrap();
    for n in 0..100 {
        vb(&engine, 2).set(format!("k{n}"), secret.clone()).unwrap();
    }
    let ticket = vbucket.set_nowait("key", secret.clone()).unwrap();
    ticket.wait().unwrap();
    let document = vbucket.get("key").unwrap().unwrap();
    let range = KeyRange::all();
    let page = vbucket.range(&range, PageForm::Documents).unwrap();
    let slice = vbucket
        .scan_slice(SeqnoRange::above(Seqno::ZERO), SliceBudget::default())
        .unwrap();
    let streams = Streams::start(&engine, &StreamsConfig::default()).unwrap();
    let mut consumer = streams.consumer("c", &ConsumerConfig::default()).unwrap();
    for number in [1, 2] {
        let request = StreamRequest::from_start(VbId::new(number));
        let opened = consumer.open(&request).unwrap();
        shown.push(format!("{request:?} {opened:?}"));
    }
    let minute = Duration::from_secs(60);
    let batch = consumer.next_batch(minute).unwrap();
    let events: Vec<String> = batch.events().map(|event| format!("{event:?}")).collect();
    shown.extend(events);
    let event = consumer.recv_timeout(minute).unwrap();
    shown.extend([
        format!("{engine:?}"),
        format!("{vbucket:?}"),
        format!("{ticket:?}"),
        format!("{document:?}"),
        format!("{page:?}"),
        format!("{slice:?} {:?}", slice.items().next()),
        format!("{streams:?}"),
        format!("{consumer:?}"),
        format!("{batch:?}"),
        format!("{event:?}"),
    ]);
    for text in shown {
        assert!(!text.contains("secret"), "{}", text.len());
        assert!(text.len() < 1_000, "{text}");
    }
    drop((batch, consumer, streams, ticket, vbucket));
    store.finish(engine);
}
