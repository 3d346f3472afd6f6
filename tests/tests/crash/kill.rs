//! Kills the child with SIGKILL at random moments.

use super::child::{History, Running, check};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Number of kills in one run; `VBSTORE_KILLS` sets another.
const KILLS: u32 = 40;

#[test]
fn nothing_acknowledged_is_missing_after_any_kill() {
    let kills = std::env::var("VBSTORE_KILLS").map_or(KILLS, |n| n.parse().unwrap());
    let seed =
        std::env::var("VBSTORE_SEED").map_or_else(|_| rand::random(), |n| n.parse().unwrap());
    println!("VBSTORE_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let journal = tempfile::tempdir_in(other_file_system()).unwrap();
    let store = dir.path().join("store");
    let mut history = History::default();

    for kill in 0..kills {
        let mut child = Running::start(&store, journal.path(), "synced", random.random());
        child.wait_for_lines(random.random_range(0..60));
        child.kill();

        let damage = check(&store, journal.path(), &mut history);

        assert!(
            damage.lost.is_empty(),
            "kill {kill}, seed {seed}: {damage:#?}"
        );
    }
}

/// Returns a directory in memory, if there is such a file system: its files survive a kill.
pub fn other_file_system() -> std::path::PathBuf {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    }
}
