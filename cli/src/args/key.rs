//! Arguments of the commands on keys: `get`, `set`, `del` and `keys`.

use super::common::{DurabilityArg, ReadOnlyArgs};
use clap::Args as ClapArgs;
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  vbstore get --dir s user::17
  vbstore get --dir s photo::3 > photo.jpg
  vbstore get --dir s --json user::17 | jq .cas")]
pub(crate) struct GetArgs {
    #[arg(long)]
    pub(super) json: bool,
    /// The store's directory.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) reading: ReadOnlyArgs,
    /// The key is given, and the value printed, in base64.
    #[arg(long)]
    pub(crate) base64: bool,
    /// The key.
    pub(crate) key: OsString,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  vbstore set --dir s user::17 '{\"name\": \"Ada\"}'
  vbstore set --dir s photo::3 - < photo.jpg
  vbstore set --dir s --base64 /w8= aGVsbG8=")]
pub(crate) struct SetArgs {
    #[arg(long)]
    pub(super) json: bool,
    /// The store's directory; the store is created if there is none.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// How durable the value is when the command returns.
    #[arg(long, value_enum, default_value = "synced")]
    pub(crate) durability: DurabilityArg,
    /// When the document expires, in seconds since 1970 (Unix time); 0 for never.
    #[arg(long, default_value_t = 0, value_name = "SECOND")]
    pub(crate) expiry: u32,
    /// Fail (exit code 1) unless the document has this cas, as `get --json` prints it.
    #[arg(long)]
    pub(crate) cas: Option<u64>,
    /// The key and the value are given in base64.
    #[arg(long)]
    pub(crate) base64: bool,
    /// The key.
    pub(crate) key: OsString,
    /// The value; - reads it from standard input, byte for byte.
    ///
    /// A value from standard input is never decoded, not even with --base64.
    pub(crate) value: OsString,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  vbstore del --dir s user::17
  vbstore del --dir s --cas 1795657526368773 user::17")]
pub(crate) struct DelArgs {
    #[arg(long)]
    pub(super) json: bool,
    /// The store's directory.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// How durable the deletion is when the command returns.
    #[arg(long, value_enum, default_value = "synced")]
    pub(crate) durability: DurabilityArg,
    /// Fail (exit code 1) unless the document has this cas, as `get --json` prints it.
    #[arg(long)]
    pub(crate) cas: Option<u64>,
    /// The key is given in base64.
    #[arg(long)]
    pub(crate) base64: bool,
    /// The key.
    pub(crate) key: OsString,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  vbstore keys --dir s --prefix user:: --limit 20
  vbstore ls --dir s --from user::17 --limit 20
  vbstore keys --dir s --json | jq -r .value_len")]
pub(crate) struct KeysArgs {
    #[arg(long)]
    pub(super) json: bool,
    /// The store's directory.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) reading: ReadOnlyArgs,
    /// Only keys that begin with this.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) prefix: OsString,
    /// Begin at this key, or at the first one after it.
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "KEY"
    )]
    pub(crate) from: OsString,
    /// Print at most this many keys.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    /// Only keys of this vBucket.
    #[arg(long)]
    pub(crate) vb: Option<u16>,
    /// --prefix and --from are given, and the keys printed, in base64.
    #[arg(long)]
    pub(crate) base64: bool,
}
