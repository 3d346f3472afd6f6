//! Compares the engine with the model in random steps: values, metadata, counts, seqnos, boundaries
//! and failover log.
//!
//! proptest shrinks a failing history and keeps its seed; `PROPTEST_CASES` sets the number of
//! cases.

use proptest::prelude::*;
use proptest::test_runner::Config as ProptestConfig;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use std::time::Duration;
use vbstore::failpoint::{Action, place};
use vbstore::{
    Cas, Change, Durability, Engine, Error, KeyRange, PageForm, Seqno, SeqnoRange, SliceBudget,
    VBucket, VbId,
};
use vbstore_tests::model::{Failure, Model, Outcome, START, Step, VBUCKETS, VbModel, Write};
use vbstore_tests::{TestStore, assert_at_rest, assert_verified, vb};

struct Reference;

fn any_key() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "long-key-d"]).prop_map(str::to_owned)
}

fn any_write() -> impl Strategy<Value = Write> {
    let value = "[a-z]{0,12}";
    let expiry = prop_oneof![3 => Just(0), 1 => START..START + 60];
    prop_oneof![
        4 => (value, expiry.clone()).prop_map(|(value, expiry)| Write::Set { value, expiry }),
        1 => value.prop_map(|value| Write::Add { value }),
        1 => value.prop_map(|value| Write::Replace { value }),
        2 => Just(Write::Delete),
        1 => expiry.prop_map(|expiry| Write::Touch { expiry }),
        1 => (value, any::<bool>()).prop_map(|(value, right)| Write::Cas { value, right }),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let any_vb = 0..VBUCKETS;
    let batch = prop::collection::btree_map(any_key(), any_write(), 1..4);
    prop_oneof![
        20 => (any_vb.clone(), any_key(), any_write())
            .prop_map(|(vb, key, write)| Step::Write { vb, key, write }),
        4 => (any_vb.clone(), batch)
            .prop_map(|(vb, writes)| Step::Batch { vb, writes: writes.into_iter().collect() }),
        5 => Just(Step::Flush),
        2 => Just(Step::FailedFlush(Failure::BeforeBuild)),
        2 => Just(Step::FailedFlush(Failure::BeforeWrite)),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
        1 => any_vb.prop_map(Step::DeleteVbucket),
        1 => (1_u32..30).prop_map(|seconds| Step::Advance { seconds }),
    ]
}

impl ReferenceStateMachine for Reference {
    type State = Model;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Model> {
        Just(Model::default()).boxed()
    }

    fn transitions(_: &Model) -> BoxedStrategy<Step> {
        any_step().boxed()
    }

    fn apply(mut model: Model, step: &Step) -> Model {
        model.apply(step);
        model
    }
}

struct UnderTest {
    store: TestStore,
    engine: Engine,
}

fn change(vb: &VBucket, key: &str, write: &Write) -> Change {
    match write {
        Write::Set { value, expiry } => Change::set(key, value.clone()).expiry(*expiry),
        Write::Add { value } => Change::add(key, value.clone()),
        Write::Replace { value } => Change::replace(key, value.clone()),
        Write::Delete => Change::delete(key),
        Write::Touch { expiry } => Change::touch(key, *expiry),
        Write::Cas { value, right } => {
            let cas = vb
                .get_meta(key)
                .unwrap()
                .map_or(Cas::new(1), |meta| meta.cas);
            let expected = if *right { cas } else { Cas::new(cas.get() + 1) };
            Change::set(key, value.clone()).cas(expected)
        }
    }
}

fn outcome<T>(result: &Result<T, Error>) -> Outcome {
    match result {
        Ok(_) => Outcome::Ok,
        Err(Error::NotFound) => Outcome::NotFound,
        Err(Error::Exists { .. }) => Outcome::Exists,
        Err(Error::CasMismatch { .. }) => Outcome::CasMismatch,
        Err(Error::DiskFull { .. }) => Outcome::DiskFull,
        Err(other) => panic!("{other}"),
    }
}

impl UnderTest {
    fn step(self, step: &Step) -> (Self, Outcome) {
        let Self { store, engine } = self;
        match step {
            Step::Write {
                vb: number,
                key,
                write,
            } => {
                let vb = vb(&engine, *number);
                let result = vb.write(change(&vb, key, write), Durability::Memory);
                let outcome = outcome(&result);
                (Self { store, engine }, outcome)
            }
            Step::Batch { vb: number, writes } => {
                let vb = vb(&engine, *number);
                let changes: Vec<Change> = writes
                    .iter()
                    .map(|(key, write)| change(&vb, key, write))
                    .collect();
                let outcome = outcome(&vb.batch(&changes, Durability::Memory));
                (Self { store, engine }, outcome)
            }
            Step::Flush => {
                let outcome = outcome(&engine.flush());
                (Self { store, engine }, outcome)
            }
            Step::FailedFlush(failure) => {
                let place = match failure {
                    Failure::BeforeBuild => place::FLUSH_BUILD,
                    Failure::BeforeWrite => place::FLUSH_WRITE,
                };
                let full = Error::DiskFull {
                    detail: "planted".into(),
                };
                store.failpoints.once(place, Action::Fail(full));
                let outcome = outcome(&engine.flush());
                // With nothing to flush it was not reached, and must not fail a later flush.
                store.failpoints.clear(place);
                (Self { store, engine }, outcome)
            }
            Step::Reopen => {
                let outcome = outcome(&engine.close());
                drop(engine);
                let engine = store.open();
                (Self { store, engine }, outcome)
            }
            Step::Crash => {
                store.crash(engine);
                let engine = store.open();
                (Self { store, engine }, Outcome::Ok)
            }
            Step::DeleteVbucket(number) => {
                let outcome = outcome(&engine.delete_vbucket(VbId::new(*number)));
                (Self { store, engine }, outcome)
            }
            Step::Advance { seconds } => {
                let clock = store.clock.as_ref().unwrap();
                clock.advance(Duration::from_secs(u64::from(*seconds)));
                (Self { store, engine }, Outcome::Ok)
            }
        }
    }
}

fn compare(vb: &VBucket, model: &VbModel, now: u32) {
    let seqnos = vb.seqnos().unwrap();
    assert_eq!(
        (seqnos.high.get(), seqnos.persisted.get()),
        (model.high, model.persisted)
    );
    assert!(seqnos.synced <= seqnos.persisted);
    let counts = vb.counts().unwrap();
    let found = (
        counts.counts.items,
        counts.counts.tombstones,
        counts.counts.bytes,
    );
    assert_eq!(
        (found, counts.as_of.get()),
        (model.counts(), model.persisted)
    );
    let branches: Vec<u64> = vb
        .failover_log()
        .unwrap()
        .entries()
        .iter()
        .map(|entry| entry.seqno.get())
        .collect();
    // The failover log keeps the newest 25 entries.
    assert_eq!(branches[..], model.branches[..model.branches.len().min(25)]);

    let keys = ["a", "b", "c", "long-key-d"];
    let many = vb.get_many(&keys).unwrap();
    for (key, from_many) in keys.into_iter().zip(many) {
        let document = vb.get(key).unwrap();
        assert_eq!(document, from_many);
        let expected = model.value(key, now);
        assert_eq!(document.is_some(), expected.is_some(), "{key}");
        if let (Some(document), Some(expected)) = (document, expected) {
            assert_eq!(document.value, expected.value);
            let meta = document.meta;
            assert_eq!(
                (meta.seqno.get(), meta.expiry),
                (expected.seqno, expected.expiry)
            );
        }
        let meta = vb.get_meta(key).unwrap();
        let newest = model.newest(key);
        assert_eq!(
            meta.map(|meta| (meta.seqno.get(), meta.kind.is_live(), meta.expiry)),
            newest.map(|entry| (entry.seqno, !entry.is_deletion, entry.expiry)),
        );
    }
    let page = vb.range(&KeyRange::all(), PageForm::Documents).unwrap();
    let expected: Vec<_> = keys
        .iter()
        .filter_map(|k| Some((*k, model.value(k, now)?)))
        .collect();
    assert_eq!(page.entries.len(), expected.len());
    for (entry, (key, value)) in page.entries.iter().zip(expected) {
        assert_eq!(
            (&entry.key[..], entry.meta.seqno.get()),
            (key.as_bytes(), value.seqno)
        );
        assert_eq!(entry.value.as_deref(), Some(value.value.as_bytes()));
    }

    let everything = SeqnoRange::above(Seqno::ZERO);
    let slice = vb.scan_slice(everything, SliceBudget::default()).unwrap();
    let mut expected: Vec<_> = model.disk.iter().collect();
    expected.sort_by_key(|(_, on_disk)| on_disk.entry.seqno);
    assert_eq!(slice.len(), expected.len());
    for (item, (key, on_disk)) in slice.items().zip(expected) {
        assert_eq!(
            (item.meta.seqno.get(), item.key),
            (on_disk.entry.seqno, key.as_bytes())
        );
        assert_eq!(item.prev_seqno.get(), on_disk.prev_seqno);
        assert_eq!(item.is_last_of_checkpoint, on_disk.is_boundary);
        assert_eq!(item.value, on_disk.entry.value.as_bytes());
    }
}

impl StateMachineTest for UnderTest {
    type SystemUnderTest = Self;
    type Reference = Reference;

    fn init_test(_: &Model) -> Self {
        let mut store = TestStore::stepped();
        store.config.vbuckets = Some(VBUCKETS);
        let engine = store.open();
        Self { store, engine }
    }

    fn apply(state: Self, model: &Model, step: Step) -> Self {
        let (state, outcome) = state.step(&step);
        assert_eq!(outcome, model.outcome, "{step:?}");
        state
    }

    fn check_invariants(state: &Self, model: &Model) {
        for (number, model_vb) in (0..VBUCKETS).zip(&model.vbs) {
            compare(&vb(&state.engine, number), model_vb, model.now);
        }
        assert_at_rest(&state.engine);
    }

    fn teardown(state: Self, _: Model) {
        assert_verified(&state.engine);
        state.engine.close().unwrap();
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_does_what_the_model_does(sequential 1..60 => UnderTest);
}
