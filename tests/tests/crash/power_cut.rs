//! Simulates a power cut: the file system is shut down without writing anything more, so everything
//! that was not synced is lost. Needs root, a loop device and mkfs.ext4; prints NOT RUN where they
//! are missing.

use super::child::{History, Running, check};
use super::kill::other_file_system;
use rustix::ioctl::{Setter, ioctl, opcode};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use vbstore::{Engine, Seqno, VBucket};
use vbstore_tests::vbs;

/// A small ext4 on a loop device, unmounted when dropped.
struct Disk {
    _dir: tempfile::TempDir,
    image: PathBuf,
    mount: PathBuf,
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    ))
}

impl Disk {
    fn new() -> Result<Self, String> {
        let dir = tempfile::tempdir().unwrap();
        let (image, mount) = (dir.path().join("image"), dir.path().join("mount"));
        File::create(&image).unwrap().set_len(400 << 20).unwrap();
        std::fs::create_dir(&mount).unwrap();
        run("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()])?;
        let disk = Self {
            _dir: dir,
            image,
            mount,
        };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<(), String> {
        let (image, mount) = (self.image.to_str().unwrap(), self.mount.to_str().unwrap());
        run("mount", &["-o", "loop", image, mount])
    }

    fn unmount(&self) -> Result<(), String> {
        run("umount", &[self.mount.to_str().unwrap()])
    }

    /// Cuts the power: from now on nothing reaches the device, not even the file system's journal.
    fn cut(&self) {
        const SHUTDOWN: u32 = opcode::read::<u32>(b'X', 125);
        const WITHOUT_FLUSHING_THE_JOURNAL: u32 = 2;
        let root = File::open(&self.mount).unwrap();
        // SAFETY: FS_IOC_SHUTDOWN reads one u32 through its argument, which lives until it returns.
        unsafe {
            ioctl(
                &root,
                Setter::<SHUTDOWN, u32>::new(WITHOUT_FLUSHING_THE_JOURNAL),
            )
            .unwrap();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.unmount());
    }
}

fn disk(test: &str) -> Option<Disk> {
    match Disk::new() {
        Ok(disk) => Some(disk),
        Err(why) => {
            println!("{test}: NOT RUN, this machine cannot simulate a power cut: {why}");
            None
        }
    }
}

/// Cuts the power under a writing child several times; returns the acknowledged writes that were
/// lost.
fn lost_in_cuts(disk: &Disk, durability: &str, cuts: u64) -> Vec<String> {
    let journal = tempfile::tempdir_in(other_file_system()).unwrap();
    let store: &Path = &disk.mount.join("store");
    let mut history = History::default();
    let mut lost = Vec::new();
    for cut in 0..cuts {
        let mut child = Running::start(store, journal.path(), durability, cut);
        child.wait_for_lines(20 + 10 * usize::try_from(cut).unwrap());
        disk.cut();
        // Killed first: its open files would keep the disk from being unmounted.
        child.kill();
        disk.unmount().unwrap();
        disk.mount().unwrap();

        lost.extend(check(store, journal.path(), &mut history).lost);

        if !lost.is_empty() {
            break;
        }
    }
    lost
}

#[test]
fn nothing_synced_is_missing_after_a_power_cut() {
    let Some(disk) = disk("nothing_synced_is_missing_after_a_power_cut") else {
        return;
    };
    assert_eq!(lost_in_cuts(&disk, "synced", 6), Vec::<String>::new());
}

/// The control: with the sync turned off, the same check must find a missing write. A check that
/// never fails proves nothing.
#[test]
fn with_the_sync_turned_off_a_power_cut_is_noticed() {
    let Some(disk) = disk("with_the_sync_turned_off_a_power_cut_is_noticed") else {
        return;
    };
    assert_ne!(lost_in_cuts(&disk, "logged", 6), Vec::<String>::new());
}

/// A read-only engine may deliver what it recovered from the log of a killed process: a later power
/// cut must not lose it.
#[test]
fn what_a_read_only_engine_delivered_survives_a_power_cut() {
    let Some(disk) = disk("what_a_read_only_engine_delivered_survives_a_power_cut") else {
        return;
    };
    let journal = tempfile::tempdir_in(other_file_system()).unwrap();
    let store: &Path = &disk.mount.join("store");
    let mut child = Running::start(store, journal.path(), "logged", 1);
    child.wait_for_lines(40);
    child.kill();
    let seqnos = |engine: &Engine| -> Vec<Seqno> {
        let of = |vb: &VBucket| vb.seqnos().unwrap().synced;
        vbs(engine).iter().map(of).collect()
    };
    let engine = Engine::builder(store).read_only().open().unwrap();
    let read = seqnos(&engine);
    assert!(read.iter().any(|seqno| *seqno > Seqno::ZERO));
    engine.close().unwrap();
    drop(engine);

    disk.cut();
    disk.unmount().unwrap();
    disk.mount().unwrap();

    let engine = Engine::open(store).unwrap();
    assert_eq!(seqnos(&engine), read);
    engine.close().unwrap();
}
