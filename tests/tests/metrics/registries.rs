//! Where metrics are registered, and when they are removed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use vbstore::metrics::{TEXT_FORMAT, names};
use vbstore::{ConsumerConfig, Error, Registry, Streams, StreamsConfig};
use vbstore_tests::metrics::scrape;
use vbstore_tests::{TestStore, vb};

/// Largest number of series of one store, streams included, on its main registry.
const SERIES_BUDGET: usize = 500;

#[test]
fn several_engines_share_a_registry_until_they_are_closed() {
    let registry = Registry::new();
    let (orders, users) = (TestStore::stepped(), TestStore::stepped());
    let open = |store: &TestStore, name: &str| {
        let builder = store.builder().name(name).registry(&registry);
        builder.open()
    };
    let first = open(&orders, "orders").unwrap();
    let second = open(&users, "users").unwrap();
    let streams = Streams::stepped(&first, &StreamsConfig::default()).unwrap();
    vb(&second, 0).set("k", "v").unwrap();
    let samples = scrape(&registry);
    let items = |store: &str| samples[&format!(r#"vbstore_items{{store="{store}"}}"#)];
    assert_eq!((items("orders"), items("users")), (0.0, 1.0));
    assert!(samples.contains_key(r#"vbstore_consumers{store="orders"}"#));
    assert!(!samples.contains_key(r#"vbstore_consumers{store="users"}"#));
    let series = samples.keys().filter(|series| series.contains("orders"));
    let series = series.count();
    assert!(series <= SERIES_BUDGET, "{series} series of one store");

    // A name in use is refused before the directory is touched.
    let third = TestStore::stepped();
    let refused = open(&third, "orders").unwrap_err();
    assert!(
        matches!(refused, Error::Invalid { field: "name", .. }),
        "{refused}"
    );
    assert!(!third.path().exists());

    drop(streams);
    first.close().unwrap();
    let samples = scrape(&registry);
    assert!(
        samples
            .keys()
            .all(|series| series.contains(r#"store="users""#))
    );
    let again = open(&orders, "orders").unwrap();
    assert!(scrape(&registry).contains_key(r#"vbstore_items{store="orders"}"#));
    drop((first, again, second));
    assert!(scrape(&registry).is_empty());
    assert!(TEXT_FORMAT.starts_with("text/plain; version=0.0.4"));
}

#[test]
fn a_registry_keeps_no_engine_open() {
    let registry = Registry::new();
    let store = TestStore::threaded();
    let engine = store.builder().registry(&registry).open().unwrap();
    let by_vbucket = Registry::new();
    let registration = engine.register_vbuckets(&by_vbucket).unwrap();
    drop(engine);
    assert!(scrape(&registry).is_empty());
    assert!(scrape(&by_vbucket).is_empty());
    // The lock of the directory is free.
    drop(store.open());
    drop(registration);
}

#[test]
fn without_a_registry_an_engine_has_its_own() {
    let store = TestStore::stepped();
    let engine = store.open();
    let telemetry = engine.telemetry();
    assert_eq!(telemetry.store(), "store");
    let samples = scrape(telemetry.registry());
    assert_eq!(samples[r#"vbstore_vbuckets{store="store"}"#], 4.0);
    store.finish(engine);
}

#[test]
fn metrics_of_single_vbuckets_are_opt_in_and_separate() {
    let store = TestStore::stepped();
    let engine = store.open();
    vb(&engine, 2).set("k", "v").unwrap();
    let own = engine.telemetry().registry();
    let before = scrape(own).len();
    let registry = Registry::new();
    let registration = engine.register_vbuckets(&registry).unwrap();
    let samples = scrape(&registry);
    let series = names::BY_VBUCKET.len() * 4 + 2;
    assert_eq!(samples.len(), series, "{samples:#?}");
    assert_eq!(
        samples[r#"vbstore_vb_high_seqno{store="store",vb="2"}"#],
        1.0
    );
    assert_eq!(samples[r#"vbstore_vb_items{store="store",vb="2"}"#], 1.0);
    assert_eq!(scrape(own).len(), before);
    let twice = engine.register_vbuckets(&registry).unwrap_err();
    assert!(matches!(twice, Error::Invalid { field: "name", .. }));
    drop(registration);
    assert!(scrape(&registry).is_empty());
    store.finish(engine);
}

#[test]
fn engines_come_and_go_during_scrapes() {
    let registry = Registry::new();
    let store = TestStore::stepped();
    let (done, is_done) = crossbeam::channel::bounded::<()>(1);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let scraper = std::thread::Builder::new().name("scraper".to_owned());
        let scraper = scraper.spawn_scoped(scope, || {
            let mut seen = 0;
            while !is_over.load(Ordering::Acquire) {
                seen += usize::from(!scrape(&registry).is_empty());
            }
            seen
        });
        let opener = std::thread::Builder::new().name("opener".to_owned());
        let opener = opener.spawn_scoped(scope, || {
            for round in 0..25 {
                let engine = store.builder().registry(&registry).open().unwrap();
                let streams = Streams::start(&engine, &StreamsConfig::default()).unwrap();
                let consumer = streams.consumer("c", &ConsumerConfig::default()).unwrap();
                // The last handle, whichever it is, closes the engine.
                if round % 2 == 0 {
                    drop(engine);
                    drop(streams);
                    drop(consumer);
                } else {
                    drop((consumer, streams, engine));
                }
            }
            done.send(()).unwrap();
        });
        // A deadlock would show as a timeout here.
        let ended = is_done.recv_timeout(Duration::from_secs(120));
        is_over.store(true, Ordering::Release);
        if ended.is_err() {
            std::process::abort();
        }
        opener.unwrap().join().unwrap();
        assert!(
            scraper.unwrap().join().unwrap() > 0,
            "nothing was ever seen"
        );
    });
    assert!(scrape(&registry).is_empty());
}

#[test]
fn a_closed_engine_releases_all_its_names_though_its_streams_are_kept() {
    let registry = Registry::new();
    let store = TestStore::stepped();
    let open = || store.builder().registry(&registry).open().unwrap();
    let engine = open();
    let by_vbucket = Registry::new();
    let registration = engine.register_vbuckets(&by_vbucket).unwrap();
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let consumer = streams.consumer("c", &ConsumerConfig::default()).unwrap();
    assert!(scrape(&registry).contains_key(r#"vbstore_consumers{store="store"}"#));

    engine.close().unwrap();

    assert!(scrape(&registry).is_empty());
    assert!(scrape(&by_vbucket).is_empty());
    let refused = Streams::stepped(&engine, &StreamsConfig::default());
    assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    let again = open();
    let anew = Streams::stepped(&again, &StreamsConfig::default()).unwrap();
    // Dropping what is left of the old engine must not remove the metrics of the new one.
    drop((consumer, streams, registration, engine));
    assert!(scrape(&registry).contains_key(r#"vbstore_consumers{store="store"}"#));
    drop(anew);
    store.finish(again);
}
