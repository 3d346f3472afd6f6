//! The last handle may be dropped anywhere, also where an engine thread runs the program's code;
//! and a write may come from anywhere.

use bytes::Bytes;
use std::future::Future;
use std::pin::pin;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use vbstore::failpoint::{Action, Latch, place};
use vbstore::{Change, Durability, Engine, Error, HealthState, VBucket};
use vbstore_tests::{TestStore, branches_after_a_change, put, vb};

/// Far longer than anything here takes; only a failure waits this long.
const LONG: Duration = Duration::from_secs(60);

/// Opens the store as soon as the engine that is closing on another thread has released it.
fn open_when_closed(store: &TestStore) -> Engine {
    for _ in 0..1_000_000 {
        match store.builder().open() {
            Err(Error::Locked { .. }) => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
    panic!("the store stays locked");
}

/// Asserts that the store was closed cleanly and holds these keys.
fn assert_closed_cleanly(store: TestStore, keys: &[&str]) {
    let engine = open_when_closed(&store);
    for key in keys {
        assert!(vb(&engine, 0).get(key).unwrap().is_some(), "{key} is lost");
    }
    assert_eq!(
        branches_after_a_change(&vb(&engine, 0)),
        1,
        "not a clean stop"
    );
    store.finish(engine);
}

/// A waker that does something to the engine, and reports the result and its thread.
struct OnWake {
    engine: Mutex<Option<Engine>>,
    act: fn(Engine) -> Option<Error>,
    done: SyncSender<(Option<String>, Option<Error>)>,
}

impl Wake for OnWake {
    fn wake(self: Arc<Self>) {
        if let Some(engine) = self.engine.lock().unwrap().take() {
            let result = (self.act)(engine);
            let thread = std::thread::current().name().map(str::to_owned);
            self.done.send((thread, result)).unwrap();
        }
    }
}

/// Lets a flush call a waker that owns the last handle and runs `act` on it. Returns the store and
/// the result of `act`.
fn in_a_waker(act: fn(Engine) -> Option<Error>) -> (TestStore, Option<Error>) {
    let store = TestStore::threaded();
    let engine = store.open();
    let gate = Arc::new(Latch::default());
    store
        .failpoints
        .once(place::FLUSH_BUILD, Action::Wait(Arc::clone(&gate)));
    let (done, outcome) = sync_channel(1);
    let mut ticket = pin!(
        vb(&engine, 0)
            .write_nowait(Change::set("ticket", "1"), Durability::Logged)
            .unwrap()
    );
    let held = gate.wait_for_arrival();
    put(&vb(&engine, 0), "memory", "1");
    let waker = Arc::new(OnWake {
        engine: Mutex::new(Some(engine)),
        act,
        done,
    });
    let waker = Waker::from(waker);
    let polled = ticket.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(matches!(polled, Poll::Pending), "{polled:?}");
    drop(held);
    let (thread, result) = outcome.recv_timeout(LONG).unwrap();
    assert_eq!(thread.as_deref(), Some("vbstore-wakers"));
    (store, result)
}

#[test]
fn the_last_handle_dropped_by_a_waker_closes_the_store() {
    let (store, _) = in_a_waker(|engine| {
        drop(engine);
        None
    });
    assert_closed_cleanly(store, &["ticket", "memory"]);
}

#[test]
fn a_waker_may_write_and_wait() {
    let (store, result) = in_a_waker(|engine| {
        let written = vb(&engine, 0).set("by the waker", "1");
        written.and_then(|_| engine.flush()).err()
    });
    assert!(result.is_none(), "{result:?}");
    assert_closed_cleanly(store, &["ticket", "memory", "by the waker"]);
}

#[test]
fn a_close_called_by_a_waker_closes_the_store() {
    let (store, result) = in_a_waker(|engine| engine.close().err());
    assert!(result.is_none(), "{result:?}");
    assert_closed_cleanly(store, &["ticket", "memory"]);
}

#[test]
fn a_close_called_by_a_waker_that_the_close_itself_calls_is_busy() {
    // An engine without threads calls a waker on the thread that fires it.
    let store = TestStore::stepped();
    let engine = store.open();
    let change = Change::set("ticket", "1");
    let ticket = vb(&engine, 0).write_nowait(change, Durability::Synced);
    let mut ticket = pin!(ticket.unwrap());
    let (done, outcome) = sync_channel(1);
    let waker = Waker::from(Arc::new(OnWake {
        engine: Mutex::new(Some(engine.clone())),
        act: |engine| engine.close().err(),
        done,
    }));
    let polled = ticket.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(matches!(polled, Poll::Pending), "{polled:?}");
    engine.close().unwrap();
    let (_, result) = outcome.try_recv().unwrap();
    assert!(matches!(result, Some(Error::Busy { .. })), "{result:?}");
    drop(engine);
    assert_closed_cleanly(store, &["ticket"]);
}

/// The text of a flusher failure that [`Shutdown`] reacts to.
const SHUT_DOWN: &str = "planted: shut down";

/// What [`Shutdown`] reacts to, and how. One test at a time uses it.
static SHUTDOWN: Mutex<Option<OnError>> = Mutex::new(None);

struct OnError {
    /// The module that must have logged the event.
    module: &'static str,
    engine: Engine,
    act: fn(Engine) -> Option<Error>,
    done: SyncSender<(Option<String>, Option<Error>)>,
}

/// A `tracing` subscriber that shuts the program down after an error of the engine.
struct Shutdown;

impl tracing::Subscriber for Shutdown {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        let modules = ["vbstore_engine::tasks", "vbstore_engine::health"];
        modules
            .iter()
            .any(|module| metadata.target().starts_with(module))
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Says(bool);
        impl tracing::field::Visit for Says {
            fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 |= format!("{value:?}").contains(SHUT_DOWN);
            }
        }
        let mut says = Says(false);
        event.record(&mut says);
        if !says.0 {
            return;
        }
        let target = event.metadata().target();
        let armed = SHUTDOWN
            .lock()
            .unwrap()
            .take_if(|on_error| target.starts_with(on_error.module));
        if let Some(OnError {
            engine, act, done, ..
        }) = armed
        {
            let result = act(engine);
            let thread = std::thread::current().name().map(str::to_owned);
            done.send((thread, result)).unwrap();
        }
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_subscriber_on_an_own_thread_of_the_engine_may_ask_and_close() {
    // No other test of this binary sets a subscriber.
    tracing::subscriber::set_global_default(Shutdown).unwrap();
    let asks: fn(Engine) -> Option<Error> = |engine| {
        assert!(matches!(engine.health(), HealthState::Degraded { .. }));
        None
    };
    let closes: fn(Engine) -> Option<Error> = |engine| engine.close().err();
    let drops: fn(Engine) -> Option<Error> = |engine| {
        drop(engine);
        None
    };
    for (module, act, is_close) in [
        ("vbstore_engine::health", asks, false),
        ("vbstore_engine::tasks", closes, true),
        ("vbstore_engine::tasks", drops, false),
    ] {
        let store = TestStore::threaded();
        let engine = store.open();
        let (done, outcome) = sync_channel(1);
        let full = Error::DiskFull {
            detail: SHUT_DOWN.into(),
        };
        store
            .failpoints
            .once(place::FLUSH_BUILD, Action::Fail(full));
        // The flusher may fail before the handle is stored; then it waits here.
        let mut armed = SHUTDOWN.lock().unwrap();
        put(&vb(&engine, 0), "memory", "1");
        *armed = Some(OnError {
            module,
            engine,
            act,
            done,
        });
        drop(armed);
        let (thread, result) = outcome.recv_timeout(LONG).unwrap();
        assert_eq!(thread.as_deref(), Some("vbstore-flusher"));
        assert_eq!(
            matches!(result, Some(Error::Busy { .. })),
            is_close,
            "{result:?}"
        );
        assert_closed_cleanly(store, &["memory"]);
    }
}

/// A value that owns a handle.
struct Value {
    bytes: Vec<u8>,
    engine: Option<Engine>,
    dropped: SyncSender<Option<String>>,
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        drop(self.engine.take());
        let thread = std::thread::current().name().map(str::to_owned);
        self.dropped.send(thread).unwrap();
    }
}

#[test]
fn a_value_that_has_a_handle_keeps_no_store_open() {
    let store = TestStore::threaded();
    let engine = store.open();
    let (dropped, on_thread) = sync_channel(1);
    let value = Bytes::from_owner(Value {
        bytes: vec![7; 100_000],
        engine: Some(engine.clone()),
        dropped,
    });
    let handle = vb(&engine, 0);
    handle
        .write(Change::set("value", value), Durability::Memory)
        .unwrap();
    // The engine copied the value, so its owner was dropped by the writer, not by an engine thread.
    let thread = on_thread.try_recv().unwrap();
    assert_eq!(thread.as_deref(), std::thread::current().name());
    drop((engine, handle));
    assert_closed_cleanly(store, &["value"]);
}

/// A value that uses the engine when it is dropped, which must not happen under a lock.
struct Curious {
    vb: Mutex<Option<VBucket>>,
    seen: SyncSender<u64>,
}

impl AsRef<[u8]> for Curious {
    fn as_ref(&self) -> &[u8] {
        b"curious"
    }
}

impl Drop for Curious {
    fn drop(&mut self) {
        if let Some(vb) = self.vb.lock().unwrap().take() {
            // Takes the vBucket's lock, the flush lead, and the stripe of any key.
            vb.set("written by a destructor", "1").unwrap();
            self.seen.send(vb.seqnos().unwrap().high.get()).unwrap();
        }
    }
}

#[test]
fn a_value_may_use_the_engine_as_it_goes() {
    let store = TestStore::stepped();
    let engine = store.open();
    let handle = vb(&engine, 0);
    let (seen, high) = sync_channel(1);
    let owner = Curious {
        vb: Mutex::new(Some(handle.clone())),
        seen,
    };
    let change = Change::set("k", Bytes::from_owner(owner));
    handle.write(change, Durability::Memory).unwrap();
    // The value was dropped with the change, after the write had released its locks.
    assert_eq!(high.try_recv().unwrap(), 2);
    put(&handle, "k", "replaced in the open checkpoint");
    assert!(handle.get("written by a destructor").unwrap().is_some());
    store.finish(engine);
}

/// A thread-local that writes when its thread ends, and reports the outcome.
struct WritesAtTheEnd(VBucket, SyncSender<Result<(), Error>>);

impl Drop for WritesAtTheEnd {
    fn drop(&mut self) {
        self.1.send(wait_in_vain(&self.0)).unwrap();
    }
}

/// Starts a write that cannot complete, and waits for it for a moment.
fn wait_in_vain(vb: &VBucket) -> Result<(), Error> {
    let ticket = vb.set_nowait("k", "v")?;
    ticket.wait_timeout(Duration::from_millis(1)).map(drop)
}

#[test]
fn a_write_from_the_destructor_of_a_thread_local_waits_like_any_other() {
    thread_local! {
        static LAST: std::cell::RefCell<Option<WritesAtTheEnd>> =
            const { std::cell::RefCell::new(None) };
    }
    let store = TestStore::threaded();
    let engine = store.open();
    let gate = Arc::new(Latch::default());
    store
        .failpoints
        .once(place::FLUSH_WRITE, Action::Wait(Arc::clone(&gate)));
    let (done, outcome) = sync_channel(1);
    std::thread::scope(|scope| {
        scope.spawn(|| vb(&engine, 1).set("leader", "1").unwrap());
        let _held = gate.wait_for_arrival();
        scope.spawn(|| {
            // Created first, so destroyed last: after everything that the engine keeps for a
            // waiting thread.
            LAST.set(Some(WritesAtTheEnd(vb(&engine, 0), done)));
            let waited = wait_in_vain(&vb(&engine, 0));
            assert!(matches!(waited, Err(Error::NotYetDurable { .. })));
        });
        let waited = outcome.recv_timeout(LONG).unwrap();
        assert!(
            matches!(waited, Err(Error::NotYetDurable { .. })),
            "{waited:?}"
        );
    });
    store.finish(engine);
}
