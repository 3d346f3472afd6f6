//! What the command line says.

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
  2  the command line is wrong
  3  the store cannot be opened, or another process holds it
  4  input or output failed, or the disk is full
  5  the store is corrupt or has lost data

Examples:
  vbstore set --dir s greeting hello
  vbstore get --dir s greeting
  vbstore help get";

/// The directory of the store, unless `--dir` says another.
const DIR: &str = "VBSTORE_DIR";

/// Works on a vbstore: an embedded, persistent key-value store whose changes can be followed.
///
/// Each command opens the store in --dir, or in the directory that the environment variable
/// `VBSTORE_DIR` names, does its work and closes it. A store is open in one process at a time, or
/// in any number of processes with --read-only.
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
    Import(ImportArgs),
    /// Print the value of a key.
    ///
    /// The value is printed as it is, with nothing added: what is stored is what a file or a pipe
    /// gets. On a terminal a line feed follows a value that does not end with one. With --json, an
    /// object as `dump` prints it. Without a value, nothing is printed and the exit code is 1.
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
    /// List keys, in their order over all vBuckets.
    ///
    /// One key a line. A key that is not UTF-8, that contains control characters, or that begins
    /// with a quote or a brace is printed as JSON: a string, or `{"base64": "..."}`. So no line can
    /// be mistaken for another key, and none disturbs a terminal. With --json each line is an
    /// object with the key and what is known of its document, without the value.
    ///
    /// Deleted and expired documents are left out. While others write, the list is no snapshot:
    /// each vBucket is read in pages.
    #[command(visible_alias = "ls")]
    Keys(KeysArgs),
    /// Print counts, seqnos, disk space and health.
    ///
    /// With --json all metrics are there too.
    Stats(StatsArgs),
    /// Print every change as JSON lines.
    ///
    /// Each line is an object with `vb`, `seqno`, `kind` (mutation, deletion, expiration), `key`,
    /// `value`, `cas`, `expiry`, `prev_seqno` and, where they are not 0, `flags` and `datatype`. A
    /// key or value that is not UTF-8 is `{"base64": "..."}`. With --by key, only keys with a value
    /// are printed, and `prev_seqno` is null: the index does not hold it.
    ///
    /// `import --format dump` reads the lines back.
    Dump(DumpArgs),
    /// Follow the changes of a store as JSON lines.
    ///
    /// Each line is an object with a `kind`: `mutation`, `deletion`, `expiration` with the fields
    /// of `dump`; `snapshot_marker` (`start`, `end`, `source`): once all changes up to `end` are
    /// read, what was read is the vBucket at that seqno; `seqno_advanced`; `end` with its `reason`.
    ///
    /// With --resume the position is kept in a file, written after what it speaks of was printed,
    /// so that a tail that is killed goes on with no gap (it may repeat what it printed last). The
    /// file keeps the positions of vBuckets that are not followed this time. It belongs to one
    /// --prefix and to --keys-only or not: with others the tail refuses to begin (exit code 2). If
    /// the store no longer holds what was printed, an `end` with the reason `rollback` says to
    /// which seqno to go back, and the exit code is 1: begin again with a new file, or with --from.
    ///
    /// A store that is written to is open in one process: to follow one that is being written, use
    /// `session` or `import --tail`.
    Tail(TailArgs),
    /// Hold a store open and take JSON commands on standard input, one a line.
    ///
    /// Each answer is one line: `{"ok":true,...}` or `{"ok":false,"error":{...}}`; an `id` is sent
    /// back. `{"op":"help"}` lists the commands and their fields; a field that a command does not
    /// take is refused. The end of the input closes the store.
    Session(SessionArgs),
    /// Hold a store open and serve its metrics to Prometheus, until a signal comes.
    ///
    /// Pages: /metrics, /healthz (status 503 with the reason while writes are refused), and with
    /// --per-vbucket /metrics/vbuckets.
    Serve(ServeArgs),
    /// Show the main metrics of a running `serve` or `stress --metrics`, again and again.
    ///
    /// On a terminal each look is drawn in place of the one before it; the last line names what
    /// does not fit. The exit code is 4 if the first look finds no metrics. If the server goes away
    /// later, the last values stay in view until it is back.
    Watch(WatchArgs),
    /// Begin a new branch of history in every vBucket.
    ///
    /// For a store that was set back to an earlier state in a way that cannot be noticed, such as
    /// by putting back the image of a disk: consumers that were further are then told to go back. A
    /// store that was copied does this by itself when it is opened.
    NewBranch(NewBranchArgs),
    /// Compact a store, to release the space of what was deleted and overwritten.
    ///
    /// RocksDB does this by itself, but not at once. Prints the disk space before and after. Needs
    /// free space for the largest vBucket once more. A signal ends it after the vBucket under way;
    /// what was compacted until then stays so.
    Compact(CompactArgs),
    /// Check everything that can be checked on disk, and name what is wrong.
    ///
    /// The exit code is 0 for a sound store, and 1 if a problem was found. Changes nothing.
    Verify(VerifyArgs),
    /// Write, read, delete and check under load; then open again and compare with what should be
    /// there. Needs a new or an empty store.
    #[command(after_help = "Examples:
  vbstore stress --dir new --seconds 30
  vbstore stress --dir new --streams 8 --frozen 1 --reconnect-every 500 --json report.json")]
    Stress(StressArgs),
    /// Print a script that completes commands and options in a shell.
    Completions(CompletionsArgs),
    /// Print the manual page, or write the pages of all commands to a directory.
    Man(ManArgs),
}

impl Args {
    /// Reads the command line.
    ///
    /// # Errors
    /// It is wrong, or asks for help or the version: the error has the text.
    pub(crate) fn parse() -> Result<Self, clap::Error> {
        let matches = command().try_get_matches()?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command()))
    }

    /// Whether the answer is to be JSON. `--json` may stand before the command and after it; that
    /// of `stress` may name a file, and then says nothing about standard output.
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

/// Returns the command line's grammar: that of [`Args`], and what all commands have in common.
pub(crate) fn command() -> clap::Command {
    // An empty variable counts as none.
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
pub(crate) struct ImportArgs {
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
    pub(crate) follow: FollowArgs,
    /// The input, a file or a pipe; - for standard input.
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
        [b'"' | b'\r' | b'\n'] => {
            Err("a quote or a line end cannot stand between fields".to_owned())
        }
        [byte] if byte.is_ascii() => Ok(*byte),
        _ => Err("one ASCII character, or \\t".to_owned()),
    }
}

/// Consumers that follow and check while others write.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct FollowArgs {
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
pub(crate) struct StressArgs {
    /// The store's directory; it must be new or empty.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// How many seconds to write.
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
    /// Decides what is written and in which mix.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Threads that write and read back.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=512))]
    pub(crate) writers: u16,
    /// Threads that read slices meanwhile.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=64))]
    pub(crate) slicers: u16,
    /// Threads that read slices for the consumers; each has at most one db snapshot open.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers: u16,
    /// Niceness of these threads; the library's default if not given.
    ///
    /// The higher it is, the less they disturb writers, and the longer a db snapshot is held where
    /// processors are short.
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=19))]
    pub(crate) workers_nice: Option<u8>,
    #[command(flatten)]
    pub(crate) follow: FollowArgs,
    #[command(flatten)]
    pub(crate) serving: ServingArgs,
    /// Memory for recent changes, in MiB; with less of it, consumers read the disk more.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    pub(crate) memory_mib: u64,
    /// vBuckets of the store: a power of two from 1 to 1024.
    #[arg(long, default_value_t = 64)]
    pub(crate) vbuckets: u16,
    /// Number of keys of each writer.
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
