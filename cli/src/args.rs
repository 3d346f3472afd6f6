//! What the command line says.

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use vbstore::Durability;

const EXIT_CODES: &str = "Exit codes: 0 done; 1 found a problem, was interrupted, or the key has no \
value; 2 usage; 3 cannot open the store, or it is locked; 4 input or output; 5 corruption or data \
loss.";

/// Works on a vbstore: an embedded, persistent key-value store with changes to follow.
#[derive(Debug, Parser)]
#[command(name = "vbstore", version, after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// Answer with one JSON object on standard output, and errors as JSON on standard error.
    #[arg(long = "json")]
    json_before: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Read records into a store.
    ///
    /// Each record becomes one document: its key is a field of the record, its value the bytes of
    /// the record as they stand in the input. A record that cannot be imported is rejected and
    /// counted; the others are imported, and the exit code is 1 unless --skip-bad is given.
    ///
    /// JSON records may be one a line; the elements of an array; or values one after the other,
    /// each over any number of lines. Which it is, is seen at the first of them. The value is the
    /// whole line in the first case, and the exact text of the element or value in the others. A
    /// key is a string or a number; a number is taken as it is written (`1`, `1.0` and `1e3` are
    /// three keys, and `1` is the key that the string "1" is). A record whose key is true, false,
    /// null, an object or an array is rejected. Of two fields of one name the last counts.
    ///
    /// CSV fields may be quoted, TSV fields may not. Rows may end with line feeds, carriage
    /// returns, or both together. A row needs only the key's column; with --as json it may have
    /// fewer fields than the header, which are then missing in the object, and is rejected if it
    /// has more. A row over several lines needs as many fields as the header has: with other ones,
    /// with text behind a closing quote, or without the closing quote, its first line is rejected
    /// and the others are read again, each as a row with as many fields as the header.
    ///
    /// The input is UTF-8; a byte order mark at its beginning is passed over. What is compressed
    /// with gzip or zstd is recognised and decompressed.
    ///
    /// How far the import has come is kept in the store's directory, in IMPORT-STATE.json, or in
    /// the file that --state names. After a kill, the same command with --resume goes on after the
    /// last acknowledged record: what is stored already is recognised and skipped, so that none is
    /// imported twice but those that were under way when it was killed (at most --window). If the
    /// import was finished, --resume imports what the file has grown by; of another file, or of one
    /// that was replaced, it imports everything. A last line without a line end is imported, and
    /// read again if the file has grown. A pipe cannot be read again from the middle: give the same
    /// stream once more from its beginning, and what was imported is passed over and compared.
    Import(Import),
    /// Print the value of a key.
    Get(Get),
    /// Give a key a value.
    Set(Set),
    /// Delete the document of a key.
    Del(Point),
    /// Print counts, seqnos, space and health.
    Stats(Stats),
    /// Print every change as JSON lines.
    ///
    /// Each line is an object with `vb`, `seqno`, `kind` (mutation, deletion, expiration), `key`,
    /// `value`, `cas`, `expiry`, `prev_seqno` and, where they are not 0, `flags` and `datatype`. A
    /// key or value that is not UTF-8 is `{"base64": "..."}`. By key, only keys with a value are
    /// there, and `prev_seqno` is null: the index does not hold it.
    Dump(Dump),
    /// Follow the changes of a store as JSON lines.
    ///
    /// Each line is an object with a `kind`: `mutation`, `deletion`, `expiration` with the fields of
    /// `dump`; `snapshot_marker` (`start`, `end`, `source`): once all changes up to `end` are read,
    /// what was read is the vBucket at that seqno; `seqno_advanced`; `end` with its `reason`.
    ///
    /// With --resume the position is kept in a file, written after what it speaks of was printed, so
    /// that a tail that is killed goes on with no gap (it may repeat what it printed last). The file
    /// keeps the positions of vBuckets that are not followed this time. It belongs to one --prefix and
    /// to --keys-only or not: with others the tail refuses to begin (exit code 2). If the store no
    /// longer holds what was printed, an `end` with the reason `rollback` says to which seqno to go
    /// back, and the exit code is 1: begin again with a new file, or with --from. A store
    /// that is written to is open in one process: to follow one that is being written, use `session` or
    /// `import --tail`.
    Tail(Tail),
    /// Hold a store open and take JSON commands on standard input, one a line.
    ///
    /// Each answer is one line: `{"ok":true,...}` or `{"ok":false,"error":{...}}`; an `id` is sent
    /// back. `{"op":"help"}` lists the commands. The end of the input closes the store.
    Session(Session),
    /// Hold a store open and serve its figures to Prometheus, until it is stopped.
    Serve(Serve),
    /// Show the main figures of a running `serve` or `stress --metrics`, again and again.
    Watch(Watch),
    /// Begin a new branch of history in every vBucket.
    ///
    /// For a store that was set back to an earlier state in a way that cannot be noticed, such as by
    /// putting back the image of a disk: consumers that were further are then told to go back. A store
    /// that was copied does this by itself when it is opened.
    NewBranch(NewBranch),
    /// Check everything that can be checked on disk, and name what is wrong.
    Verify(Verify),
    /// Write, read, delete and check under load; then open again and compare with what should be
    /// there. Needs a new or an empty store.
    Stress(Stress),
}

impl Args {
    /// Whether the answer is to be JSON. `--json` may stand before the command and after it; that of
    /// `stress` may name a file, and then says nothing about standard output.
    pub(crate) fn is_json(&self) -> bool {
        self.json_before
            || match &self.command {
                Command::Import(args) => args.json,
                Command::Get(args) => args.point.json,
                Command::Del(args) => args.json,
                Command::Set(args) => args.json,
                Command::Stats(args) => args.json,
                Command::Dump(args) => args.json,
                Command::Tail(args) => args.json,
                Command::Session(args) => args.json,
                Command::Serve(args) => args.json,
                Command::Watch(args) => args.json,
                Command::NewBranch(args) => args.json,
                Command::Verify(args) => args.json,
                Command::Stress(args) => args.json == Some(None),
            }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DurabilityArg {
    Memory,
    Logged,
    Synced,
}

impl From<DurabilityArg> for Durability {
    fn from(arg: DurabilityArg) -> Self {
        match arg {
            DurabilityArg::Memory => Self::Memory,
            DurabilityArg::Logged => Self::Logged,
            DurabilityArg::Synced => Self::Synced,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// JSON objects: one a line, in an array, or one after the other.
    Json,
    /// Fields between tabs; the first line names them.
    Tsv,
    /// Fields between commas, quoted where needed; the first record names them.
    Csv,
    /// What `dump` prints, with cas and expiry kept.
    Dump,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ValueForm {
    /// The bytes of the record.
    Line,
    /// A JSON object with the fields of the row as strings, under the names of the header, or under
    /// the numbers of the columns without one.
    Json,
}

#[derive(Debug, ClapArgs)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub(crate) struct Import {
    /// Answer with JSON, and errors as JSON on standard error.
    #[arg(long)]
    json: bool,
    /// The store; made if there is none.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// vBuckets of a store that is made: a power of two up to 1024.
    #[arg(long)]
    pub(crate) vbuckets: Option<u16>,
    /// The field that holds the key: its name; with --no-header the number of its column, from 1;
    /// for JSON also a JSON pointer, which begins with `/`, to a nested one: /user/id. (A field
    /// whose own name begins with `/` is written /~1name.)
    #[arg(long, default_value = "key")]
    pub(crate) key: String,
    /// How durable a record is before it counts as imported.
    #[arg(long, value_enum, default_value = "synced")]
    pub(crate) durability: DurabilityArg,
    /// What the input looks like.
    #[arg(long, value_enum, default_value = "json")]
    pub(crate) format: Format,
    /// The character between the fields of CSV or TSV; `\t` for a tab.
    #[arg(long, value_name = "C", value_parser = delimiter)]
    pub(crate) delimiter: Option<u8>,
    /// The first line of CSV or TSV is a record, and --key the number of a column.
    #[arg(long)]
    pub(crate) no_header: bool,
    /// What is stored of a row of CSV or TSV.
    #[arg(long = "as", value_enum, default_value = "line", value_name = "FORM")]
    pub(crate) value_form: ValueForm,
    /// Stop at the first record that is rejected.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Exit with 0 although records were rejected.
    #[arg(long, conflicts_with = "strict")]
    pub(crate) skip_bad: bool,
    /// Go on after the last acknowledged record of an import that was cut short, or with what the
    /// input has grown by.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Where to keep how far the import has come, instead of in the store's directory.
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// Records under way at once.
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) window: u32,
    /// Follow all vBuckets while importing, and write what is followed to a file for each in this
    /// directory, as `tail` prints it.
    #[arg(long, value_name = "OUTDIR")]
    pub(crate) tail: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) follow: Follow,
    /// The input, a file or a pipe; - for standard input.
    pub(crate) file: PathBuf,
}

impl Import {
    pub(crate) fn is_as_json(&self) -> bool {
        self.value_form == ValueForm::Json
    }
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"\\t" => Ok(b'\t'),
        [b'"' | b'\r' | b'\n'] => {
            Err("a quote or a line end cannot stand between fields".to_owned())
        }
        [byte] if byte.is_ascii() => Ok(*byte),
        _ => Err("one ASCII character, or \\t".to_owned()),
    }
}

/// How a store is opened by a command that only reads.
#[derive(Clone, Copy, Debug, ClapArgs)]
pub(crate) struct Reading {
    /// Open the store without writing anything to its directory, and beside others that do the same:
    /// on a full disk, or on a read-only file system. On a full disk it is opened so in any case.
    #[arg(long)]
    pub(crate) read_only: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Get {
    #[command(flatten)]
    pub(crate) reading: Reading,
    #[command(flatten)]
    pub(crate) point: Point,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Point {
    /// Answer with JSON, and errors as JSON on standard error.
    #[arg(long)]
    json: bool,
    /// The store.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// The key.
    pub(crate) key: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Set {
    /// Answer with JSON, and errors as JSON on standard error.
    #[arg(long)]
    json: bool,
    /// The store; made if there is none.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// How durable the value is before this returns.
    #[arg(long, value_enum, default_value = "synced")]
    pub(crate) durability: DurabilityArg,
    /// The second since 1970 at which it expires; 0 for never.
    #[arg(long, default_value_t = 0)]
    pub(crate) expiry: u32,
    /// Refuse unless the key has this cas.
    #[arg(long)]
    pub(crate) cas: Option<u64>,
    /// The key.
    pub(crate) key: String,
    /// The value.
    pub(crate) value: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Stats {
    /// Answer with JSON, and errors as JSON on standard error.
    #[arg(long)]
    json: bool,
    /// The store.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) reading: Reading,
    /// One vBucket only, with its seqnos and branches.
    #[arg(long)]
    pub(crate) vb: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    Seqno,
    Key,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Dump {
    /// Answer with JSON, and errors as JSON on standard error.
    #[arg(long)]
    json: bool,
    /// The store.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) reading: Reading,
    /// One vBucket only.
    #[arg(long)]
    pub(crate) vb: Option<u16>,
    /// In which order.
    #[arg(long, value_enum, default_value = "seqno")]
    pub(crate) by: Order,
    /// The first seqno of interest.
    #[arg(long, default_value_t = 1)]
    pub(crate) from: u64,
}

#[derive(Debug, ClapArgs)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub(crate) struct Tail {
    /// Answer with JSON, and errors as JSON on standard error.
    #[arg(long)]
    json: bool,
    /// The store.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) reading: Reading,
    /// One vBucket.
    #[arg(long, required_unless_present = "all", conflicts_with = "all")]
    pub(crate) vb: Option<u16>,
    /// All vBuckets.
    #[arg(long)]
    pub(crate) all: bool,
    /// The first seqno of interest.
    #[arg(long, conflicts_with = "resume")]
    pub(crate) from: Option<u64>,
    /// Go on from the position in this file, and keep it there; begin at the beginning if there is
    /// no such file, or no position of a vBucket in it.
    #[arg(long, value_name = "FILE")]
    pub(crate) resume: Option<PathBuf>,
    /// End when everything that is there now was printed.
    #[arg(long)]
    pub(crate) until_high: bool,
    /// Leave values out; `value_len` says how long they are.
    #[arg(long)]
    pub(crate) keys_only: bool,
    /// Only keys that begin with this.
    #[arg(long, default_value = "")]
    pub(crate) prefix: String,
}

/// Consumers that follow and check while others write.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct Follow {
    /// Consumers that follow, and compare their copy at each complete marker.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1_024))]
    pub(crate) streams: u16,
    /// Of these, how many take nothing from half of the time on.
    #[arg(long, default_value_t = 0)]
    pub(crate) frozen: u16,
    /// Of these, how many take an event now and then.
    #[arg(long, default_value_t = 0)]
    pub(crate) slow: u16,
    /// Cut consumers after so many events on average: one of three goes on from its positions at once,
    /// one when up to as many changes were made, and one has forgotten everything and begins again.
    #[arg(long, value_name = "EVENTS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) reconnect_every: Option<u64>,
    /// How many are cut; all if not said.
    #[arg(long, requires = "reconnect_every")]
    pub(crate) reconnecting: Option<u16>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Session {
    /// Answer with JSON, and errors as JSON on standard error.
    #[arg(long)]
    json: bool,
    /// The store; made if there is none.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// vBuckets of a store that is made: a power of two up to 1024.
    #[arg(long)]
    pub(crate) vbuckets: Option<u16>,
    /// Open the store without writing anything to its directory; commands that would are refused.
    #[arg(long, conflicts_with = "vbuckets")]
    pub(crate) read_only: bool,
}

/// Where figures are served.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Serving {
    /// Serve the figures at this address, for Prometheus: /metrics. Port 0 lets the system choose.
    #[arg(long = "metrics", value_name = "ADDR:PORT")]
    pub(crate) address: Option<SocketAddr>,
    /// Allow an address that other machines can reach. There is no TLS and no password.
    #[arg(long, requires = "address")]
    pub(crate) allow_remote: bool,
    /// Also serve figures of every single vBucket, at /metrics/vbuckets.
    #[arg(long, requires = "address")]
    pub(crate) per_vbucket: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Serve {
    /// Answer with JSON, and errors as JSON on standard error.
    #[arg(long)]
    json: bool,
    /// The store; made if there is none.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// vBuckets of a store that is made: a power of two up to 1024.
    #[arg(long)]
    pub(crate) vbuckets: Option<u16>,
    /// Open the store without writing anything to its directory, and beside others that do the same:
    /// on a full disk, or on a read-only file system. On a full disk it is opened so in any case.
    #[arg(long, conflicts_with = "vbuckets")]
    pub(crate) read_only: bool,
    #[command(flatten)]
    pub(crate) serving: Serving,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Watch {
    /// One JSON object for each look.
    #[arg(long)]
    json: bool,
    /// Seconds from one look to the next.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    pub(crate) interval: f64,
    /// End after so many looks.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Where the figures are: an address, or the whole URL.
    #[arg(default_value = "127.0.0.1:9184")]
    pub(crate) url: String,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "no number".to_owned())?;
    if (0.05..=3_600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("between 0.05 and 3600".to_owned())
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct NewBranch {
    /// Answer with JSON, and errors as JSON on standard error.
    #[arg(long)]
    json: bool,
    /// The store.
    #[arg(long)]
    pub(crate) dir: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Verify {
    /// Answer with JSON, and errors as JSON on standard error.
    #[arg(long)]
    json: bool,
    /// The store.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) reading: Reading,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Stress {
    /// The store; made if there is none.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// How long to go on.
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
    /// Decides what is written and in which mix.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Threads that write and read back.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=512))]
    pub(crate) writers: u16,
    /// Threads that read slices all the while.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=64))]
    pub(crate) slicers: u16,
    /// Threads that read slices for the consumers: at most so many db snapshots are open for them.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers: u16,
    /// Their niceness: the higher it is, the less they disturb writers and the longer a db snapshot is
    /// held where processors are short. The library's default if not said.
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=19))]
    pub(crate) workers_nice: Option<u8>,
    #[command(flatten)]
    pub(crate) follow: Follow,
    #[command(flatten)]
    pub(crate) serving: Serving,
    /// Memory for recent changes, in MiB: the less there is, the more consumers read the disk.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    pub(crate) memory_mib: u64,
    /// vBuckets of a store that is made: a power of two up to 1024.
    #[arg(long, default_value_t = 64)]
    pub(crate) vbuckets: u16,
    /// Keys of each writer.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) keys: u32,
    /// Longest value, in bytes.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(0..=20_000_000))]
    pub(crate) value_max: u32,
    /// Print the report as JSON, or write it to this file.
    #[arg(long, num_args = 0..=1, value_name = "FILE")]
    #[expect(clippy::option_option, reason = "absent, given, given with a file")]
    pub(crate) json: Option<Option<PathBuf>>,
}
