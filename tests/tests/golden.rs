//! Opens stores written by every version that introduced a format, and checks their contents.

use vbstore::{Config, Engine, VbId};
use vbstore_tests::{assert_verified, branches_after_a_change, copy_dir, golden, rows, vb};

/// Name of the store, and its branches of history after this opening and a change.
const STORES: [(&str, usize); 2] = [("format-1-clean", 1), ("format-1-killed", 2)];

#[test]
fn stores_of_every_format_open_with_their_contents() {
    for (name, branches) in STORES {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        copy_dir(&golden::directory().join(name), &path);

        let config = Config {
            block_cache_bytes: 4 << 20,
            ..Config::default()
        };
        let engine = Engine::builder(&path)
            .config(config)
            .create(false)
            .open()
            .unwrap();

        assert_eq!(engine.vbuckets(), 2, "{name}");
        let found = rows(&vb(&engine, 0));
        let binary = String::from_utf8_lossy(b"\x00\xff binary").into_owned();
        let expected = [
            (2, "mutation", "plain", "second", 1),
            (3, "mutation", "meta", binary.as_str(), 0),
            (5, "deletion", "gone", "", 4),
            (6, "expiration", "expired", "", 0),
            (7, "mutation", "batch-1", "one", 0),
            (8, "mutation", "batch-2", "", 0),
        ];
        let found: Vec<_> = found
            .iter()
            .map(|r| (r.0, r.1, &*r.2, &*r.3, r.4))
            .collect();
        assert_eq!(found, expected, "{name}");
        let meta = vb(&engine, 0).get_meta("meta").unwrap().unwrap();
        assert_eq!(
            (meta.cas.get(), meta.flags, meta.datatype),
            (102, 0xdead_beef, 7),
            "{name}"
        );
        assert_eq!(meta.expiry, 4_000_000_000, "{name}");
        let gone = vb(&engine, 0).get_meta("gone").unwrap().unwrap();
        assert_eq!(
            (gone.cas.get(), gone.expiry),
            (104, 1_700_000_000),
            "{name}"
        );
        let counts = vb(&engine, 0).counts().unwrap().counts;
        assert_eq!(
            (counts.items, counts.tombstones, counts.bytes),
            (4, 2, 41),
            "{name}"
        );
        let other = vb(&engine, 1).get("other").unwrap().unwrap();
        assert_eq!(other.value, "v".repeat(5_000), "{name}");
        assert_verified(&engine);
        assert_eq!(branches_after_a_change(&vb(&engine, 0)), branches, "{name}");
        assert_eq!(vb(&engine, 0).seqnos().unwrap().synced.get(), 9, "{name}");
        assert!(engine.verify(VbId::new(0)).unwrap().is_ok());
        engine.close().unwrap();
    }
}
