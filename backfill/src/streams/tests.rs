use super::*;
use crate::consumer::TryRecv;
use crate::delivery::ReaderFinding;
use crate::stream::{EndReason, Event, OpenOutcome, StreamOptions, StreamRequest};
use vbstore_core::{Seqno, VbId, Visibility};
use vbstore_engine::{Change, Config, Durability};

const VB: VbId = VbId::new(0);

/// A store with one change in memory, and a stream that reads it from there.
struct Fixture {
    engine: Engine,
    streams: Streams,
    consumer: Consumer,
    /// Declared last, so that it is removed last.
    _dir: tempfile::TempDir,
}

impl Fixture {
    fn new(end: Seqno) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            vbuckets: Some(1),
            ..Config::default()
        };
        let builder = Engine::builder(dir.path().join("store")).config(config);
        let engine = builder.background(false).open().unwrap();
        write(&engine);
        let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
        let mut consumer = streams.consumer("c", &ConsumerConfig::default()).unwrap();
        let options = StreamOptions {
            visibility: Visibility::Memory,
            ..StreamOptions::default()
        };
        let request = StreamRequest::from_start(VB).options(options).until(end);
        assert_eq!(consumer.open(&request).unwrap(), OpenOutcome::Continue);
        Self {
            engine,
            streams,
            consumer,
            _dir: dir,
        }
    }

    /// Takes all available events, as short words.
    fn take(&mut self) -> Vec<String> {
        let mut taken = Vec::new();
        while let Ok(event) = self.consumer.try_recv() {
            taken.push(match event.event {
                Event::End(reason) => format!("end {}", reason.name()),
                Event::SnapshotMarker(_) => "marker".to_owned(),
                event => event.item().unwrap().meta.seqno.to_string(),
            });
        }
        taken
    }
}

fn write(engine: &Engine) {
    let change = Change::set("k", "v");
    let vb = engine.vbucket(VB).unwrap();
    vb.write(change, Durability::Memory).unwrap();
}

/// Something that happens to a stream while its reader reads it from memory.
type Meanwhile = (&'static str, fn(&mut Fixture));

const ENDS: [Meanwhile; 2] = [
    ("closed", |of| assert!(of.consumer.close(VB))),
    // The watchdog ends a stream in this way.
    ("stalled", |of| {
        let (stream, has_ended) = of.consumer.mailbox.stream_of(VB).unwrap();
        assert!(!has_ended);
        assert!(
            of.consumer
                .mailbox
                .end(stream, EndReason::Stalled)
                .is_none()
        );
    }),
];

#[test]
fn a_stream_ended_while_its_reader_reads_memory_has_one_end() {
    // The stream has a batch to read; a batch and its end; nothing; or an error, because the
    // vBucket was deleted.
    for what in ["batch", "end", "nothing", "gone"] {
        for (name, meanwhile) in ENDS {
            let end = if what == "end" { 1 } else { Seqno::MAX.get() };
            let mut of = Fixture::new(Seqno::new(end));
            if what == "nothing" {
                assert_eq!(of.take(), ["marker", "1"]);
                // Its watch fired, but there is nothing to read any more.
                let (stream, _) = of.consumer.mailbox.stream_of(VB).unwrap();
                of.consumer.mailbox.notify(stream);
            }
            let found = of.consumer.mailbox.find();
            assert!(matches!(found, ReaderFinding::Tail(_)), "{found:?}");
            meanwhile(&mut of);
            if what == "gone" {
                of.engine.delete_vbucket(VB).unwrap();
            }

            assert!(!of.consumer.follow_up(found).unwrap(), "{what}, {name}");

            assert_eq!(of.take(), [format!("end {name}")], "{what}");
            assert_eq!(of.consumer.try_recv().unwrap_err(), TryRecv::Ended);
            assert_eq!(of.consumer.buffered_bytes(), 0);
            assert_eq!(of.streams.counters().closed.of(name).get(), 1);
        }
    }
}

#[test]
fn a_vbucket_that_is_deleted_while_its_reader_reads_memory_ends_the_stream_once() {
    let mut of = Fixture::new(Seqno::MAX);
    let found = of.consumer.mailbox.find();
    assert!(matches!(found, ReaderFinding::Tail(_)), "{found:?}");
    of.engine.delete_vbucket(VB).unwrap();
    assert!(!of.consumer.follow_up(found).unwrap());
    assert_eq!(of.take(), ["end vbucket_gone"]);
    assert_eq!(of.consumer.try_recv().unwrap_err(), TryRecv::Ended);
}

#[test]
fn a_pause_skips_a_stream_whose_reader_reads_memory() {
    let mut of = Fixture::new(Seqno::MAX);
    let found = of.consumer.mailbox.find();
    assert!(matches!(found, ReaderFinding::Tail(_)), "{found:?}");
    let dropped = of
        .consumer
        .mailbox
        .pause(of.consumer.mailbox.activity().acted());
    assert_eq!(dropped.streams, 0);
    assert!(of.consumer.follow_up(found).unwrap());
    assert_eq!(of.take(), ["marker", "1"]);
}
