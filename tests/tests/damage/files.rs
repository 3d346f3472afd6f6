//! Damages each file of a store in turn: flipped bits, cuts, and missing files.

use super::specimen::{Specimen, Verdict, cut, flip};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::path::Path;
use vbstore::{Config, Engine, Error};
use vbstore_engine::raw::{FamilyOptions, StorageConfig};

/// Flips tried in each file, at offsets drawn from a fixed seed.
const FLIPS: usize = 12;

#[test]
fn the_specimen_is_worth_damaging() {
    let specimen = Specimen::make(0, false);
    assert!(matches!(specimen.damaged(|_| ()), Verdict::Whole));
    let logs = specimen.logs();
    let live = logs.iter().filter(|log| {
        specimen
            .path()
            .join("db")
            .join(log)
            .metadata()
            .unwrap()
            .len()
            > 0
    });
    assert!(live.count() >= 3, "{logs:?}");
    let levels = raw_levels(&specimen.path().join("db"));
    assert!(
        levels.contains(&0) && levels.iter().any(|level| *level > 0),
        "{levels:?}"
    );
}

/// Returns the levels that hold a file, read through RocksDB itself.
fn raw_levels(db: &Path) -> Vec<i32> {
    let options = FamilyOptions::new(StorageConfig {
        vbuckets: 4,
        block_cache_bytes: 1 << 20,
        write_buffer_bytes: 1 << 20,
        open_files_max: 100,
    });
    let db = rocksdb::DB::open_cf_descriptors_read_only(
        &options.database(),
        db,
        options.families(),
        false,
    )
    .unwrap();
    db.live_files()
        .unwrap()
        .iter()
        .map(|file| file.level)
        .collect()
}

/// Damages each of these files in turn and asserts that `allowed` accepts the outcome.
fn each(
    specimen: &Specimen,
    files: &[String],
    what: &str,
    damage: impl Fn(&Path),
    allowed: impl Fn(&Verdict) -> bool,
) {
    assert!(!files.is_empty());
    for file in files {
        let verdict = specimen.damaged(|path| damage(&path.join(file)));
        assert!(allowed(&verdict), "{what} of {file}: {verdict:?}");
    }
}

fn in_db(names: Vec<String>) -> Vec<String> {
    names.into_iter().map(|name| format!("db/{name}")).collect()
}

fn remove(path: &Path) {
    std::fs::remove_file(path).unwrap();
}

fn is_corruption(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Refused(Error::Corruption { .. }))
}

fn is_refused(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Refused(_))
}

#[test]
fn log_files() {
    let specimen = Specimen::make(0, false);
    let logs = in_db(specimen.logs());
    // Every log file holds something that was synced.
    each(&specimen, &logs, "removal", remove, is_refused);
    each(
        &specimen,
        &logs,
        "emptying",
        |path| cut(path, 0),
        is_refused,
    );
    let mut random = SmallRng::seed_from_u64(1);
    for flip_number in 0..FLIPS {
        let byte = random.random();
        let what = format!("flip {flip_number} at {byte}");
        each(
            &specimen,
            &logs,
            &what,
            |path| flip(path, byte),
            |verdict| {
                // A flip in space that was allocated to a log file but is unused changes nothing.
                is_refused(verdict) || matches!(verdict, Verdict::Whole)
            },
        );
    }
}

#[test]
fn data_files() {
    for clean in [false, true] {
        let specimen = Specimen::make(0, clean);
        let ssts = in_db(specimen.ssts());
        each(&specimen, &ssts, "removal", remove, is_corruption);
        each(
            &specimen,
            &ssts,
            "emptying",
            |path| cut(path, 0),
            is_corruption,
        );
        let half = |path: &Path| cut(path, path.metadata().unwrap().len() / 2);
        each(&specimen, &ssts, "halving", half, is_corruption);
        let footer = |path: &Path| flip(path, path.metadata().unwrap().len() - 3);
        each(
            &specimen,
            &ssts,
            "flip in the footer",
            footer,
            is_corruption,
        );
        let mut random = SmallRng::seed_from_u64(2);
        for flip_number in 0..FLIPS {
            let byte = random.random();
            let what = format!("flip {flip_number} at {byte}");
            // A flip in a block that nothing reads may go unnoticed; then nothing is missing.
            each(&specimen, &ssts, &what, |path| flip(path, byte), |_| true);
        }
        // The first block of each file holds records: reading them must fail.
        each(
            &specimen,
            &ssts,
            "flip in the first block",
            |path| flip(path, 20),
            |verdict| matches!(verdict, Verdict::ReadError) || is_corruption(verdict),
        );
    }
}

#[test]
fn rocksdbs_own_records() {
    for clean in [false, true] {
        let specimen = Specimen::make(0, clean);
        let manifest = in_db(specimen.db_files(|name| name.starts_with("MANIFEST-")));
        let current = ["db/CURRENT".to_owned()];
        each(&specimen, &manifest, "removal", remove, is_corruption);
        each(
            &specimen,
            &manifest,
            "emptying",
            |path| cut(path, 0),
            is_corruption,
        );
        each(&specimen, &current, "removal", remove, is_corruption);
        each(
            &specimen,
            &current,
            "emptying",
            |path| cut(path, 0),
            is_corruption,
        );
        let garbage = |path: &Path| std::fs::write(path, "MANIFEST-999999\n").unwrap();
        each(&specimen, &current, "garbage", garbage, is_corruption);
        let outside = |path: &Path| std::fs::write(path, "../../etc/passwd\n").unwrap();
        each(&specimen, &current, "a path", outside, is_corruption);
        let mut random = SmallRng::seed_from_u64(3);
        for _ in 0..FLIPS {
            let byte = random.random();
            let harmless = |v: &Verdict| is_refused(v) || matches!(v, Verdict::Whole);
            each(
                &specimen,
                &manifest,
                &format!("flip at {byte}"),
                |path| flip(path, byte),
                harmless,
            );
            each(
                &specimen,
                &current,
                &format!("flip at {byte}"),
                |path| flip(path, byte),
                harmless,
            );
        }
        for bytes in 1..60 {
            let short = |path: &Path| cut(path, path.metadata().unwrap().len() - bytes);
            // Losing the last record may be harmless, if it said nothing that matters.
            let harmless = |v: &Verdict| is_refused(v) || matches!(v, Verdict::Whole);
            each(
                &specimen,
                &manifest,
                &format!("cut by {bytes}"),
                short,
                harmless,
            );
        }
    }
}

#[test]
fn our_own_records() {
    for clean in [false, true] {
        let specimen = Specimen::make(0, clean);
        let marker = ["VBSTORE".to_owned()];
        let witness = ["WITNESS".to_owned()];
        each(&specimen, &marker, "removal", remove, is_corruption);
        each(
            &specimen,
            &marker,
            "emptying",
            |path| cut(path, 0),
            is_corruption,
        );
        each(&specimen, &witness, "removal", remove, is_corruption);
        each(
            &specimen,
            &witness,
            "emptying",
            |path| cut(path, 0),
            is_corruption,
        );
        for byte in 0..specimen.path().join("VBSTORE").metadata().unwrap().len() {
            each(
                &specimen,
                &marker,
                "flip",
                |path| flip(path, byte),
                is_corruption,
            );
        }
        for byte in 0..128 {
            // If one slot is corrupt, the other is used.
            let one = |path: &Path| flip(path, byte);
            each(&specimen, &witness, "flip in one slot", one, |v| {
                matches!(v, Verdict::Whole)
            });
        }
        let both = |path: &Path| {
            flip(path, 30);
            flip(path, 94);
        };
        each(
            &specimen,
            &witness,
            "flips in both slots",
            both,
            is_corruption,
        );
    }
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let specimen = Specimen::make(0, true);
    let verdict = specimen.damaged(|path| {
        let body = "vbstore\nformat 2\nstore 00000000000000000000000000000000\n";
        let text = format!("{body}crc {:08x}\n", crc32fast::hash(body.as_bytes()));
        std::fs::write(path.join("VBSTORE"), text).unwrap();
    });
    let newer = matches!(
        verdict,
        Verdict::Refused(Error::FormatTooNew {
            found: 2,
            supported: 1
        })
    );
    assert!(newer, "{verdict:?}");
}

#[test]
fn a_loss_that_is_accepted_begins_a_new_branch_and_opens() {
    let specimen = Specimen::make(0, false);
    let path = specimen.path();
    let last = specimen.logs().pop().unwrap();
    let config = || Config {
        block_cache_bytes: 8 << 20,
        ..Config::default()
    };
    cut(&path.join("db").join(last), 0);
    let refused = Engine::builder(&path).config(config()).open().unwrap_err();
    assert!(
        matches!(refused, Error::DataLoss { .. } | Error::Corruption { .. }),
        "{refused}"
    );
    remove(&path.join("WITNESS"));

    let opened = Engine::builder(&path)
        .config(config())
        .accept_data_loss()
        .open();

    match opened {
        Ok(engine) => {
            let vb = vbstore_tests::vb(&engine, 1);
            assert!(vb.failover_log().unwrap().entries().len() >= 2);
            vbstore_tests::assert_verified(&engine);
            engine.close().unwrap();
        }
        // RocksDB itself found the log missing: only a copy of the store helps.
        Err(error) => assert!(matches!(error, Error::Corruption { .. }), "{error}"),
    }
}
