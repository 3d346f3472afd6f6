//! The grammar of the command line, and its help.

mod common;
mod hold;
mod key;
mod read;
mod upkeep;

pub(crate) use common::{DurabilityArg, ReadOnlyArgs};
pub(crate) use hold::{ServeArgs, ServingArgs, SessionArgs, WatchArgs};
pub(crate) use key::{DelArgs, GetArgs, KeysArgs, SetArgs};
pub(crate) use read::{DumpArgs, DumpOrder, StatsArgs, TailArgs, VerifyArgs};
pub(crate) use upkeep::{CompactArgs, CompletionsArgs, ManArgs, NewBranchArgs};

use clap::{Args as ClapArgs, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

const EXIT_CODES: &str = "Exit codes:
  0  done
  1  found a problem, was interrupted, or the key has no value
  2  an argument is wrong
  3  the store cannot be opened, or another process has it open
  4  input or output failed, or the disk is full
  5  the store is corrupt or has lost data

Examples:
  vbstore set --dir s greeting hello
  vbstore get --dir s greeting
  vbstore help get";

/// The environment variable that names the store's directory where `--dir` is not given.
const DIR: &str = "VBSTORE_DIR";

/// Works on a vbstore: an embedded, persistent key-value store whose changes can be followed.
///
/// Each command opens the store in --dir, or in the directory that the environment variable
/// `VBSTORE_DIR` names, does its work and closes it. One process at a time can have a store open,
/// or any number of processes with --read-only.
///
/// The keys of a store are spread over vBuckets, which are numbered from 0. Each change has a
/// sequence number, its seqno, which rises within a vBucket. The cas of a document is a number that
/// differs after every write to it: give it with --cas to change the document only if no other
/// write came in between.
///
/// SIGINT, SIGTERM and SIGHUP end a command early and close the store cleanly; a second signal ends
/// the program at once.
#[derive(Debug, Parser)]
#[command(name = "vbstore", version, after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// Print JSON instead of text, on standard error too.
    #[arg(long = "json")]
    json_before: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Read records into a store.
    ///
    /// Each record becomes one document. Its key is a field of the record, its value is the text of
    /// the record. A record that cannot be imported is rejected and counted, and the import
    /// continues; the exit code is 1 then, unless --skip-bad is given.
    ///
    /// JSON: the input may hold one object per line, one array of objects, or objects one after the
    /// other that span any number of lines. The first object decides which. In the first case the
    /// value is the whole line, otherwise the exact text of the object. A key is a string or a
    /// number. A number is used as it is written: `1`, `1.0` and `1e3` are three keys, and `1` is
    /// the same key as the string "1". A record whose key is true, false, null, an object or an
    /// array is rejected. If a field occurs twice, the last one counts.
    ///
    /// CSV and TSV: CSV fields may be quoted, TSV fields may not. Rows may end with line feeds,
    /// carriage returns, or both. A row needs only the column of the key. With --as json, columns
    /// that a row lacks are left out of the object, and a row with more fields than the header is
    /// rejected. A row that spans several lines needs exactly as many fields as the header. If it
    /// has not, if text follows a closing quote, or if the closing quote is missing, its first line
    /// is rejected and the other lines are read again as rows of their own.
    ///
    /// The input is UTF-8. A byte order mark at its beginning is skipped. Input compressed with
    /// gzip or zstd is recognised and decompressed.
    ///
    /// The progress is kept in IMPORT-STATE.json in the store's directory, or in the file that
    /// --state names. After a kill, the same command with --resume continues after the last
    /// acknowledged record. Later records that are stored already are recognised and skipped: at
    /// most the records that were in progress at the kill (--window) are imported twice. If the
    /// import was finished, --resume imports what has been appended to the file. If the file was
    /// replaced, or is another one, --resume imports all of it. A last line without a line end is
    /// imported, and is read again if the file has grown. A pipe cannot be read from the middle:
    /// provide the same stream from its beginning, and the imported part is compared and skipped.
    Import(ImportArgs),
    /// Print the value of a key.
    ///
    /// The value is printed byte for byte, with nothing added. Only on a terminal, a line feed
    /// follows a value that does not end with one. With --json, prints an object like those of
    /// `dump`. If the key has no value, the exit code is 1 and standard output stays empty.
    Get(GetArgs),
    /// Set the value of a key.
    ///
    /// Prints the vBucket that the key belongs to, and the seqno and cas of the change.
    Set(SetArgs),
    /// Delete the document of a key.
    ///
    /// Prints the vBucket that the key belongs to, and the seqno and cas of the deletion. The exit
    /// code is 1 if the key has no value.
    Del(DelArgs),
    /// List the keys of all vBuckets in key order.
    ///
    /// Prints one key on each line. A key that is not UTF-8, that contains control characters, or
    /// that begins with a quote or a brace is printed as JSON: a string, or `{"base64": "..."}`. So
    /// no line can be mistaken for another key, and none can control the terminal. With --json each
    /// line is an object with the key and the metadata of its document, without the value.
    ///
    /// Deleted and expired documents are left out. While the store is written to, the list is not a
    /// snapshot of one moment: each vBucket is read in pages.
    #[command(visible_alias = "ls")]
    Keys(KeysArgs),
    /// Print counts, seqnos, disk space and health.
    ///
    /// With --json, all metrics are printed too.
    Stats(StatsArgs),
    /// Print the latest change of each key as JSON lines.
    ///
    /// A change is replaced by the next change of the same key. Each line is an object with `vb`,
    /// `seqno`, `kind` (mutation, deletion, expiration), `key`, `value`, `cas`, `expiry`,
    /// `prev_seqno` and, where they are not 0, `flags` and `datatype`. A key or value that is not
    /// UTF-8 is `{"base64": "..."}`. With --by key, only keys with a value are printed, and
    /// `prev_seqno` is null: the key index does not hold it.
    ///
    /// `import --format dump` reads these lines.
    Dump(DumpArgs),
    /// Print the changes of a store as JSON lines, and wait for new ones.
    ///
    /// Each line is an object with a `kind`:
    ///
    /// `mutation`, `deletion`, `expiration`: a change, with the fields of `dump`.
    ///
    /// `snapshot_marker` (`start`, `end`, `source`): when all changes up to `end` have been read,
    /// together they are the state of the vBucket at that seqno.
    ///
    /// `seqno_advanced` (`seqno`): everything up to this seqno is covered; no further change
    /// matched.
    ///
    /// `end` (`reason`): no more events of this vBucket follow.
    ///
    /// With --resume the positions are kept in a file. They are saved only after the events before
    /// them were printed: a tail that was killed continues without a gap, but may repeat the last
    /// lines. Positions of vBuckets that are not followed this time stay in the file. They are
    /// valid only for the same --prefix and --keys-only: with others, the exit code is 2. If the
    /// store no longer has changes that were printed, an `end` with the reason `rollback` names the
    /// seqno to roll back to, and the exit code is 1: start again with a new file, or with --from.
    ///
    /// A store that is being written to is open in the writing process only. To follow it
    /// meanwhile, use `session` or `import --tail`.
    Tail(TailArgs),
    /// Keep a store open and take JSON commands on standard input, one on each line.
    ///
    /// Each answer is one line: `{"ok":true,...}` or `{"ok":false,"error":{...}}`. It repeats the
    /// `id` of the command, if that has one. `{"op":"help"}` lists the commands and their fields; a
    /// command with an unknown field is refused. The end of the input closes the store.
    Session(SessionArgs),
    /// Keep a store open and serve its metrics to Prometheus until a signal comes.
    ///
    /// Pages: /metrics, /healthz (status 503 with the reason while writes are refused), and with
    /// --per-vbucket /metrics/vbuckets.
    Serve(ServeArgs),
    /// Show the main metrics of a running `serve` or `stress --metrics`, refreshed regularly.
    ///
    /// On a terminal each refresh replaces the previous one; the last line names the groups that do
    /// not fit. The exit code is 4 if the first request finds no metrics. If the server goes away
    /// later, the last values stay on the screen until it is back.
    Watch(WatchArgs),
    /// Begin a new branch of history in every vBucket.
    ///
    /// Needed after a store was restored to an earlier state in a way that it cannot detect, such
    /// as from a disk image: consumers that had read further are then asked to roll back. A copied
    /// store begins a new branch by itself when it is opened.
    NewBranch(NewBranchArgs),
    /// Compact a store, to release the space of deleted and overwritten documents.
    ///
    /// RocksDB does this by itself, but not at once. Prints the disk space before and after. Needs
    /// as much free space as the largest vBucket takes. A signal ends the command after the current
    /// vBucket; those done by then stay compacted.
    Compact(CompactArgs),
    /// Check the store on disk, and print each problem.
    ///
    /// The exit code is 0 if there is no problem, and 1 if there is one. Changes nothing.
    Verify(VerifyArgs),
    /// Write, read, delete and check under load; then reopen the store and compare it with the
    /// acknowledged writes. Needs a new or an empty store.
    #[command(after_help = "Examples:
  vbstore stress --dir new --seconds 30
  vbstore stress --dir new --streams 8 --frozen 1 --reconnect-every 500 --json report.json")]
    Stress(StressArgs),
    /// Print a shell script that completes commands and options.
    Completions(CompletionsArgs),
    /// Print the manual page, or write the pages of all commands to a directory.
    Man(ManArgs),
}

impl Args {
    /// Reads the command line.
    ///
    /// # Errors
    /// The command line is wrong, or asks for help or the version: the error holds the text to
    /// print.
    pub(crate) fn parse() -> Result<Self, clap::Error> {
        let matches = command().try_get_matches()?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command()))
    }

    /// Returns whether to print JSON. `--json` may stand before or after the command. `stress
    /// --json FILE` writes the report to a file and leaves standard output as text.
    pub(crate) fn is_json(&self) -> bool {
        self.json_before
            || match &self.command {
                Command::Import(args) => args.json,
                Command::Get(args) => args.json,
                Command::Set(args) => args.json,
                Command::Del(args) => args.json,
                Command::Keys(args) => args.json,
                Command::Stats(args) => args.json,
                Command::Dump(args) => args.json,
                Command::Tail(args) => args.json,
                Command::Session(args) => args.json,
                Command::Serve(args) => args.json,
                Command::Watch(args) => args.json,
                Command::NewBranch(args) => args.json,
                Command::Compact(args) => args.json,
                Command::Verify(args) => args.json,
                Command::Stress(args) => args.json == Some(None),
                Command::Completions(_) | Command::Man(_) => false,
            }
    }
}

/// Returns the command line's grammar: that of [`Args`], with the options that all commands share.
pub(crate) fn command() -> clap::Command {
    // An empty variable counts as unset: clap would take it as the directory "".
    let has_dir = std::env::var_os(DIR).is_none_or(|dir| !dir.is_empty());
    Args::command().mut_subcommands(|command| {
        let names: Vec<String> = command
            .get_arguments()
            .map(|arg| arg.get_id().to_string())
            .collect();
        let has = |name: &str| names.iter().any(|known| known == name);
        let mut command = command;
        if has("dir") && has_dir && command.get_name() != "man" {
            command = command.mut_arg("dir", |arg| arg.env(DIR).hide_env_values(true));
        }
        if has("json") && command.get_name() != "stress" {
            let help = "Print JSON instead of text, on standard error too";
            command = command.mut_arg("json", |arg| arg.help(help));
        }
        command
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// JSON objects: one per line, in an array, or one after the other.
    Json,
    /// Fields separated by tabs; the first line names them.
    Tsv,
    /// Fields separated by commas, quoted where needed; the first record names them.
    Csv,
    /// The lines that `dump` prints; cas and expiry are kept.
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
pub(crate) struct ImportArgs {
    /// Answer with JSON, and errors as JSON on standard error.
    #[arg(long)]
    json: bool,
    /// The directory of the store. Created if it does not exist.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// The number of vBuckets of a new store: a power of two up to 1024.
    #[arg(long)]
    pub(crate) vbuckets: Option<u16>,
    /// The field that holds the key. With --no-header, the number of its column, counted from 1.
    /// For JSON also a JSON pointer to a nested field, such as /user/id; a field whose name begins
    /// with `/` is written /~1name.
    #[arg(long, default_value = "key")]
    pub(crate) key: String,
    /// The durability at which a record counts as imported.
    #[arg(long, value_enum, default_value = "synced")]
    pub(crate) durability: DurabilityArg,
    /// The format of the input.
    #[arg(long, value_enum, default_value = "json")]
    pub(crate) format: Format,
    /// The character that separates the fields of CSV or TSV; `\t` for a tab.
    #[arg(long, value_name = "C", value_parser = delimiter)]
    pub(crate) delimiter: Option<u8>,
    /// Treat the first line of CSV or TSV as a record. --key is then the number of a column.
    #[arg(long)]
    pub(crate) no_header: bool,
    /// The value that is stored for a row of CSV or TSV.
    #[arg(long = "as", value_enum, default_value = "line", value_name = "FORM")]
    pub(crate) value_form: ValueForm,
    /// Stop at the first rejected record.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Exit with code 0 even if records were rejected.
    #[arg(long, conflicts_with = "strict")]
    pub(crate) skip_bad: bool,
    /// Continue an interrupted import after its last acknowledged record, or import what has been
    /// appended to the input.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Keep the progress in this file instead of in the store's directory.
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// The number of records that may be in progress at the same time.
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) window: u32,
    /// Follow all vBuckets during the import, and write the events of each to a file in this
    /// directory, in the format of `tail`.
    #[arg(long, value_name = "OUTDIR")]
    pub(crate) tail: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) follow: FollowArgs,
    /// The input: a file, a pipe, or - for standard input.
    pub(crate) file: PathBuf,
}

impl ImportArgs {
    pub(crate) fn is_as_json(&self) -> bool {
        self.value_form == ValueForm::Json
    }
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"\\t" => Ok(b'\t'),
        [b'"' | b'\r' | b'\n'] => Err("must not be a quote or a line end".to_owned()),
        [byte] if byte.is_ascii() => Ok(*byte),
        _ => Err("must be one ASCII character, or \\t".to_owned()),
    }
}

/// Consumers that follow the changes and check them while the store is written to.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct FollowArgs {
    /// Consumers that follow the changes and keep a copy, which must equal the store at the end.
    ///
    /// `stress` also compares the copy each time a snapshot is complete.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1_024))]
    pub(crate) streams: u16,
    /// How many of the consumers stop reading halfway through, until everything is written.
    #[arg(long, default_value_t = 0)]
    pub(crate) frozen: u16,
    /// How many of the consumers wait 20 ms before each event, until everything is written.
    #[arg(long, default_value_t = 0)]
    pub(crate) slow: u16,
    /// Disconnect each consumer after this many events on average.
    ///
    /// It then does one of three things, in turn: continue from its positions at once, continue
    /// after up to this many more changes were written, or drop its copy and start from nothing.
    #[arg(long, value_name = "EVENTS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) reconnect_every: Option<u64>,
    /// How many of the consumers are disconnected: the last ones [default: all].
    #[arg(long, requires = "reconnect_every")]
    pub(crate) reconnecting: Option<u16>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct StressArgs {
    /// The store's directory; it must be new or empty.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// How many seconds to write.
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
    /// Seed of the random operations and values.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Threads that write, and check what they read.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=512))]
    pub(crate) writers: u16,
    /// Threads that read and check slices meanwhile.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=64))]
    pub(crate) slicers: u16,
    /// Threads that read slices for the consumers; each has at most one db snapshot open.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers: u16,
    /// Niceness of the --workers threads; the library's default if not given.
    ///
    /// The higher it is, the less these threads slow down writers, and the longer a db snapshot is
    /// held when all processors are busy.
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=19))]
    pub(crate) workers_nice: Option<u8>,
    #[command(flatten)]
    pub(crate) follow: FollowArgs,
    #[command(flatten)]
    pub(crate) serving: ServingArgs,
    /// Memory for recent changes, in MiB; the less there is, the more consumers read from disk.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    pub(crate) memory_mib: u64,
    /// vBuckets of the store: a power of two from 1 to 1024.
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
