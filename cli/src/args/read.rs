//! Arguments of the commands that read a whole store: `stats`, `dump`, `tail` and `verify`.

use super::common::ReadOnlyArgs;
use clap::{ArgGroup, Args as ClapArgs, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  vbstore stats --dir s
  vbstore stats --dir s --vb 7
  vbstore stats --dir s --json | jq .items")]
pub(crate) struct StatsArgs {
    #[arg(long)]
    pub(super) json: bool,
    /// The store's directory.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) reading: ReadOnlyArgs,
    /// Only this vBucket, with its seqnos and its failover log.
    #[arg(long)]
    pub(crate) vb: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DumpOrder {
    /// In seqno order, deletions included.
    Seqno,
    /// In key order; only keys with a value.
    Key,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  vbstore dump --dir s > all.jsonl
  vbstore dump --dir s --prefix user:: --by key | jq -r .key
  vbstore import --dir copy --format dump all.jsonl")]
pub(crate) struct DumpArgs {
    #[arg(long)]
    pub(super) json: bool,
    /// The store's directory.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) reading: ReadOnlyArgs,
    /// Only this vBucket.
    #[arg(long)]
    pub(crate) vb: Option<u16>,
    /// The order within each vBucket.
    #[arg(long, value_enum, default_value = "seqno")]
    pub(crate) by: DumpOrder,
    /// Only changes with this seqno or a higher one.
    #[arg(long, default_value_t = 1, value_name = "SEQNO")]
    pub(crate) from: u64,
    /// Only keys that begin with this.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) prefix: OsString,
}

#[derive(Debug, ClapArgs)]
#[command(group(ArgGroup::new("which").required(true).args(["vb", "all"])))]
#[command(after_help = "Examples:
  vbstore tail --dir s --all --until-high
  vbstore tail --dir s --vb 7 --from 100
  vbstore tail --dir s --all --resume position.json >> changes.jsonl")]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub(crate) struct TailArgs {
    #[arg(long)]
    pub(super) json: bool,
    /// The store's directory.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) reading: ReadOnlyArgs,
    /// Follow one vBucket.
    #[arg(long)]
    pub(crate) vb: Option<u16>,
    /// Follow all vBuckets.
    #[arg(long)]
    pub(crate) all: bool,
    /// Only changes with this seqno or a higher one.
    #[arg(long, conflicts_with = "resume", value_name = "SEQNO")]
    pub(crate) from: Option<u64>,
    /// Continue from the positions in this file, and save them there.
    ///
    /// A vBucket without a position in it is followed from its beginning. So are all if the file
    /// does not exist yet.
    #[arg(long, value_name = "FILE")]
    pub(crate) resume: Option<PathBuf>,
    /// End when everything that is in the store now has been printed.
    #[arg(long)]
    pub(crate) until_high: bool,
    /// Leave values out; `value_len` holds their length in bytes.
    #[arg(long)]
    pub(crate) keys_only: bool,
    /// Only keys that begin with this.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) prefix: OsString,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:
  vbstore verify --dir s && echo sound")]
pub(crate) struct VerifyArgs {
    #[arg(long)]
    pub(super) json: bool,
    /// The store's directory.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) reading: ReadOnlyArgs,
}
