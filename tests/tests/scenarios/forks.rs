//! A forked process must not use the store that its parent has open.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vbstore::{Change, Durability, Engine, Error, PageForm, SeqnoRange, SliceBudget, Ticket};
use vbstore_tests::{TestStore, put, rows, vb};

/// Runs `work` in a fork of this process, which then executes another program. `work` returns the
/// number of the check that failed.
fn in_a_fork(work: impl Fn() -> Result<(), i32> + Send + Sync + 'static) {
    let mut command = Command::new("true");
    let work = move || work().map_err(io::Error::from_raw_os_error);
    // SAFETY: the child only runs what is tested here, on its one thread.
    unsafe { command.pre_exec(work) };
    match command.status() {
        Ok(status) => assert!(status.success(), "the child ended with {status}"),
        Err(error) => panic!("check {:?} failed in the child", error.raw_os_error()),
    }
}

#[test]
fn every_call_in_a_fork_is_refused() {
    let store = TestStore::threaded();
    let engine = store.open();
    vb(&engine, 0).set("k", "parent").unwrap();
    let ticket = vb(&engine, 0)
        .write_nowait(Change::set("k", "parent"), Durability::Synced)
        .unwrap();
    ticket.wait().unwrap();
    let (in_child, handle) = (engine.clone(), vb(&engine, 0));
    in_a_fork(move || {
        let budget = SliceBudget::default();
        let all = SeqnoRange::above(vbstore::Seqno::ZERO);
        let second = Duration::from_secs(1);
        let refused = [
            is_forked(handle.get("k")),
            is_forked(handle.get_meta("k")),
            is_forked(handle.get_many(&["k"])),
            is_forked(handle.prefix("k", PageForm::Meta)),
            is_forked(handle.scan_slice(all, budget)),
            is_forked(handle.set("k", "child")),
            is_forked(handle.write(Change::set("k", "child"), Durability::Memory)),
            is_forked(handle.delete_nowait("k")),
            is_forked(handle.seqnos()),
            is_forked(handle.counts()),
            is_forked(handle.failover_log()),
            is_forked(handle.wait_synced(vbstore::Seqno::new(1), second)),
            is_forked(ticket_outcome(&ticket)),
            is_forked(in_child.flush()),
            is_forked(in_child.compact(handle.id())),
            is_forked(in_child.delete_vbucket(handle.id())),
            is_forked(in_child.disk_usage()),
            is_forked(in_child.disk_free_percent()),
            is_forked(in_child.metrics_snapshot()),
            is_forked(in_child.verify(handle.id())),
            is_forked(in_child.set_tuning(in_child.tuning())),
            is_forked(in_child.close()),
        ];
        match (1..).zip(refused).find(|(_, is_refused)| !is_refused) {
            Some((number, _)) => Err(number),
            None => Ok(()),
        }
    });
    // The parent is not affected.
    vb(&engine, 0).set("after", "1").unwrap();
    assert_eq!(vb(&engine, 0).get("k").unwrap().unwrap().value, "parent");
    store.finish(engine);
}

fn is_forked<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Forked { opened_by }) if opened_by != std::process::id())
}

fn ticket_outcome(ticket: &Ticket) -> Result<(), Error> {
    ticket.poll().unwrap_or(Err(Error::Closed)).map(drop)
}

#[test]
fn dropping_the_last_handle_in_a_fork_leaves_the_store_to_the_parent() {
    let store = TestStore::threaded();
    let engine: Arc<Mutex<Option<Engine>>> = Arc::new(Mutex::new(Some(store.open())));
    let with = |work: &dyn Fn(&Engine)| work(engine.lock().unwrap().as_ref().unwrap());
    with(&|engine| {
        put(&vb(engine, 0), "memory", "1");
    });
    let in_child = Arc::clone(&engine);
    in_a_fork(move || {
        let last = in_child.lock().unwrap().take();
        drop(last);
        Ok(())
    });
    with(&|engine| {
        // The store is still locked by the parent.
        let locked = Engine::open(store.path());
        assert!(matches!(locked, Err(Error::Locked { .. })), "{locked:?}");
        let elsewhere = Command::new("flock")
            .args(["--nonblock", "--conflict-exit-code", "9"])
            .arg(store.path().join("VBSTORE.lock"))
            .arg("true")
            .status();
        if let Ok(status) = elsewhere {
            assert_eq!(status.code(), Some(9), "the child has released the lock");
        }
        vb(engine, 0).set("after", "1").unwrap();
        assert_eq!(rows(&vb(engine, 0)).len(), 2);
    });
    let engine = engine.lock().unwrap().take().unwrap();
    store.finish(engine);
}
