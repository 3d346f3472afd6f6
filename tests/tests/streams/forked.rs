//! Streams in a forked process: their threads do not exist there, and locks that those threads held
//! stay locked.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vbstore::{
    Consumer, ConsumerConfig, Engine, Error, StreamRequest, Streams, StreamsConfig, VbId,
};
use vbstore_tests::following::{VB, keys, on_disk, open, seqnos};
use vbstore_tests::{TestStore, vb};

/// How long a child may take. One that waits for a thread that does not exist waits for ever.
const LIMIT: Duration = Duration::from_secs(30);

/// Runs `work` in a fork of this process, which then executes another program.
fn in_a_fork(work: impl Fn() -> Result<(), i32> + Send + Sync + 'static) {
    let (ended, end) = sync_channel(1);
    let run = move || {
        let mut command = Command::new("true");
        let work = move || {
            // Ends the child with the test if it hangs.
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            work().map_err(io::Error::from_raw_os_error)
        };
        // SAFETY: the child only runs what is tested here, on its one thread.
        unsafe { command.pre_exec(work) };
        ended.send(command.status())
    };
    let runner = std::thread::Builder::new().name("fork".to_owned());
    let runner = runner.spawn(run).unwrap();
    let status = end.recv_timeout(LIMIT);
    match status.expect("the child does not end") {
        Ok(status) => assert!(status.success(), "the child ended with {status}"),
        Err(error) => panic!("check {:?} failed in the child", error.raw_os_error()),
    }
    runner.join().unwrap().unwrap();
}

/// A handle that the child may drop, and the parent uses.
type Shared<T> = Arc<Mutex<Option<T>>>;

fn shared<T>(value: T) -> Shared<T> {
    Arc::new(Mutex::new(Some(value)))
}

fn followed(store: &TestStore) -> (Engine, Streams, Consumer) {
    let engine = on_disk(store, keys(200));
    let streams = Streams::start(&engine, &StreamsConfig::default()).unwrap();
    // One stream from disk that waits for buffer space, and one that waits in memory.
    let config = ConsumerConfig {
        buffer_bytes_max: 4_000,
        ..ConsumerConfig::default()
    };
    let mut consumer = streams.consumer("c", &config).unwrap();
    open(&mut consumer, &StreamRequest::from_start(VB));
    open(&mut consumer, &StreamRequest::from_start(VbId::new(2)));
    let first = consumer.recv().unwrap();
    assert_eq!(first.vb, VB);
    (engine, streams, consumer)
}

#[test]
fn dropping_streams_and_consumers_in_a_fork_touches_nothing_of_the_parents() {
    let store = TestStore::threaded();
    let (engine, streams, consumer) = followed(&store);
    let all = shared((consumer, streams, engine));
    let in_child = Arc::clone(&all);
    in_a_fork(move || {
        let last = in_child.lock().map_err(|_| 1)?.take();
        drop(last);
        Ok(())
    });
    let (mut consumer, streams, engine) = all.lock().unwrap().take().unwrap();
    vb(&engine, 2).set("new", "v").unwrap();
    let mut events = Vec::new();
    while events.len() < 200 + 2 {
        events.extend(consumer.recv());
    }
    assert_eq!(seqnos(&events).len(), 201);
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn a_consumer_alone_may_be_dropped_in_a_fork() {
    let store = TestStore::threaded();
    let (engine, streams, consumer) = followed(&store);
    let consumer = shared(consumer);
    let in_child = Arc::clone(&consumer);
    in_a_fork(move || {
        drop(in_child.lock().map_err(|_| 1)?.take());
        Ok(())
    });
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn streams_are_refused_in_a_fork() {
    let store = TestStore::threaded();
    let (engine, streams, consumer) = followed(&store);
    let both = shared((consumer, streams));
    let in_child = Arc::clone(&both);
    in_a_fork(move || {
        let mut both = in_child.lock().map_err(|_| 1)?;
        let (consumer, streams) = both.as_mut().ok_or(2)?;
        let opened = consumer.open(&StreamRequest::from_start(VbId::new(3)));
        if !matches!(opened, Err(Error::Forked { .. })) {
            return Err(3);
        }
        let added = streams.consumer("child", &ConsumerConfig::default());
        if !matches!(added, Err(Error::Forked { .. })) {
            return Err(4);
        }
        Ok(())
    });
    drop(both);
    store.finish(engine);
}
