//! Follows a vBucket: copies its contents, then applies its changes, with a position that survives
//! a restart.
//!
//! `cargo build --release --workspace --examples` builds it as `release/examples/follow` in the
//! target directory.

#![expect(clippy::print_stdout, reason = "an example prints what it does")]

use std::collections::BTreeMap;
use std::error::Error;
use vbstore::{
    Config, ConsumerConfig, Engine, Event, OpenOutcome, Position, StreamEvent, StreamRequest,
    Streams, StreamsConfig, VBucket,
};

/// A copy of a vBucket. A program that resumes stores the copy and the position in one transaction.
#[derive(Default)]
struct Copy {
    documents: BTreeMap<Vec<u8>, Vec<u8>>,
    position: Position,
}

impl Copy {
    /// Follows until the copy equals the vBucket as it is now.
    fn catch_up(&mut self, streams: &Streams, vb: &VBucket) -> Result<(), Box<dyn Error>> {
        let high = vb.seqnos()?.synced;
        let mut consumer = streams.consumer("copy", &ConsumerConfig::default())?;
        let request = StreamRequest::resume(vb.id(), self.position).until(high);
        if let OpenOutcome::Rollback { to, reason } = consumer.open(&request)? {
            // This copy keeps no earlier states, so it begins again from nothing.
            println!("must roll back to {to}: {}", reason.name());
            *self = Self::default();
            return self.catch_up(streams, vb);
        }
        while let Some(StreamEvent { event, .. }) = consumer.recv() {
            match &event {
                Event::SnapshotMarker(marker) => println!("complete at {}", marker.end),
                Event::Mutation(item) => {
                    self.documents
                        .insert(item.key.to_vec(), item.value.to_vec());
                }
                Event::Deletion(item) | Event::Expiration(item) => {
                    self.documents.remove(&*item.key);
                }
                Event::SeqnoAdvanced(_) => {}
                Event::End(reason) => println!("ended: {}", reason.name()),
            }
            self.position = consumer.position(vb.id()).unwrap_or_default();
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let config = Config {
        vbuckets: Some(1),
        ..Config::default()
    };
    let engine = Engine::builder(dir.path().join("store"))
        .config(config)
        .open()?;
    let streams = Streams::start(&engine, &StreamsConfig::default())?;
    let vb = engine.for_key("any");
    let mut copy = Copy::default();

    vb.set("user::1", "Ann")?;
    vb.set("user::2", "Ben")?;
    copy.catch_up(&streams, &vb)?;
    assert_eq!(copy.documents.len(), 2);

    vb.delete("user::1")?;
    vb.set("user::3", "Eve")?;
    copy.catch_up(&streams, &vb)?;
    let names: Vec<_> = copy
        .documents
        .values()
        .map(|v| String::from_utf8_lossy(v))
        .collect();
    println!("{names:?}");
    assert_eq!(names, ["Ben", "Eve"]);

    drop(streams);
    engine.close()?;
    Ok(())
}
