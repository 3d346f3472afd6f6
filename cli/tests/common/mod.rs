//! Runs the program, and sets up what its tests share.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::print_stdout,
    reason = "each test binary uses some of it"
)]

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use vbstore::{Clock, SystemClock};

pub fn vbstore() -> Command {
    Command::new(env!("CARGO_BIN_EXE_vbstore"))
}

pub fn run(args: &[&str], dir: &Path) -> Output {
    vbstore()
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

pub fn ok(args: &[&str], dir: &Path) -> String {
    let output = run(args, dir);
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {printed}");
    String::from_utf8(output.stdout).unwrap()
}

pub fn code(args: &[&str], dir: &Path) -> (i32, String) {
    let output = run(args, dir);
    (
        output.status.code().unwrap(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

pub fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A running program that serves its metrics.
pub struct Serving {
    pub child: Child,
    stderr: BufReader<ChildStderr>,
    pub url: String,
}

impl Serving {
    pub fn start(args: &[&str], dir: &Path) -> Self {
        Self::start_at("127.0.0.1:0", args, dir)
    }

    pub fn start_at(address: &str, args: &[&str], dir: &Path) -> Self {
        let mut child = vbstore()
            .args(args)
            .args(["--metrics", address])
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        // A warning may come first.
        while !line.contains("metrics at ") {
            line.clear();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it ended");
        }
        // With --json the line is an object, and the URL ends at its closing quote.
        let url = line.trim().split_once("metrics at ").unwrap().1;
        let url = url.trim_end_matches("\"}}").to_owned();
        Self { child, stderr, url }
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        let url = self.url.replace("/metrics", path);
        let config = ureq::get(url).config().http_status_as_error(false);
        let mut answer = config.build().call().unwrap();
        let status = answer.status().as_u16();
        (status, answer.body_mut().read_to_string().unwrap())
    }

    /// Sends SIGTERM; returns the exit code, standard output and standard error.
    pub fn stop(mut self) -> (i32, String, String) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        let mut stdout = self.child.stdout.take().unwrap();
        stdout.read_to_string(&mut out).unwrap();
        self.stderr.read_to_string(&mut err).unwrap();
        (self.child.wait().unwrap().code().unwrap(), out, err)
    }
}

pub fn not_run(test: &str, why: &str) {
    println!("{test}: NOT RUN, {why}");
}

/// A small file system in memory, which a test can fill.
pub struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts it, which needs root. Otherwise prints that the test is not run, and returns `None`.
    pub fn mount(test: &str, size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "none"])
            .arg(dir.path())
            .output();
        match mount {
            Ok(output) if output.status.success() => Some(Self { dir }),
            other => {
                not_run(test, &format!("no tmpfs can be mounted: {other:?}"));
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Fills the file system except for `free` bytes.
    pub fn fill(&self, free: u64) {
        let stat = rustix::fs::statvfs(self.path()).unwrap();
        let size = stat.f_bavail * stat.f_frsize - free;
        let file = File::create(self.ballast()).unwrap();
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size).unwrap();
    }

    pub fn make_room(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut umount = Command::new("umount");
        drop(umount.arg("-l").arg(self.dir.path()).output());
    }
}

/// A running `session`.
pub struct Session {
    pub child: Child,
    pub answers: BufReader<std::process::ChildStdout>,
}

impl Session {
    pub fn start(dir: &Path, store: &str) -> Self {
        Self::start_with(dir, store, &[])
    }

    pub fn start_with(dir: &Path, store: &str, args: &[&str]) -> Self {
        let mut child = vbstore()
            .args(["session", "--dir", store])
            .args(args)
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, answers }
    }

    pub fn ask(&mut self, command: &str) -> serde_json::Value {
        json(&self.ask_for_text(command))
    }

    pub fn ask_for_text(&mut self, command: &str) -> String {
        writeln!(self.child.stdin.as_mut().unwrap(), "{command}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line
    }

    pub fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

/// A child whose standard output is a pipe that is never read.
pub struct Blocked {
    pub child: Child,
    _reader: std::io::PipeReader,
}

impl Blocked {
    /// Returns once the pipe is full, so that the child's next write blocks.
    pub fn start(mut command: Command) -> Self {
        let (reader, writer) = std::io::pipe().unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(writer.try_clone().unwrap())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        within("the pipe is full", || {
            let mut fds = [PollFd::new(&writer, PollFlags::OUT)];
            poll(&mut fds, Some(&Timespec::default())).unwrap() == 0
        });
        Self {
            child,
            _reader: reader,
        }
    }

    /// Sends a signal; returns the exit code and standard error.
    pub fn end(mut self, signal: Signal) -> (Option<i32>, String) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        within("the program has ended", || {
            self.child.try_wait().unwrap().is_some()
        });
        let mut printed = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut printed).unwrap();
        (self.child.wait().unwrap().code(), printed)
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // After a failed assertion the child may still run.
        drop(self.child.kill());
    }
}

/// Opens a terminal of this size. What is written to the second file can be read from the first.
pub fn terminal(columns: u16, rows: u16) -> (File, File) {
    let control = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&control).unwrap();
    unlockpt(&control).unwrap();
    let name = ptsname(&control, Vec::new()).unwrap();
    let mut options = File::options();
    options.read(true).write(true);
    let terminal = options.open(name.to_str().unwrap()).unwrap();
    let size = Winsize {
        ws_col: columns,
        ws_row: rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&terminal, size).unwrap();
    (File::from(control), terminal)
}

/// Waits until a condition holds; panics after 20 s, which is ample on a busy machine.
pub fn within(what: &str, mut holds: impl FnMut() -> bool) {
    within_secs(20, what, &mut holds);
}

pub fn within_secs(seconds: u64, what: &str, holds: &mut dyn FnMut() -> bool) {
    let clock = SystemClock::new();
    while !holds() {
        assert!(clock.monotonic().as_secs() < seconds, "{what}: not in time");
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
}

pub fn write_lines(path: &Path, lines: impl Iterator<Item = String>) {
    let mut file = std::io::BufWriter::new(File::create(path).unwrap());
    for line in lines {
        writeln!(file, "{line}").unwrap();
    }
    file.flush().unwrap();
}

/// Imports with these arguments, the first of which is the store; returns the exit code and the
/// report.
pub fn import(args: &[&str], dir: &Path) -> (i32, serde_json::Value) {
    let args = [&["import", "--json", "--dir"][..], args].concat();
    let output = run(&args, dir);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(!report.is_empty(), "{args:?}: {said}");
    (output.status.code().unwrap(), json(&report))
}

/// Returns the documents of a store.
pub fn documents(store: &str, dir: &Path) -> std::collections::BTreeMap<String, String> {
    let dump = ok(&["dump", "--dir", store, "--by", "key"], dir);
    let records = dump.lines().map(json).map(|record| {
        let field = |name: &str| record.get(name).unwrap().as_str().unwrap().to_owned();
        (field("key"), field("value"))
    });
    records.collect()
}
