//! Arguments of the commands that keep a store open, `session` and `serve`, and of `watch`, which
//! looks at such a store.

use clap::Args as ClapArgs;
use clap::builder::NonEmptyStringValueParser;
use std::path::PathBuf;

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  echo '{\"op\":\"help\"}' | vbstore session --dir s
  echo '{\"op\":\"set\",\"key\":\"k\",\"value\":\"v\",\"durability\":\"memory\"}' |
      vbstore session --dir s")]
pub(crate) struct SessionArgs {
    #[arg(long)]
    pub(super) json: bool,
    /// The store's directory; the store is created if there is none.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// vBuckets of a new store: a power of two from 1 to 1024 [default: 64].
    #[arg(long, value_name = "COUNT")]
    pub(crate) vbuckets: Option<u16>,
    /// Open the store read-only; commands that change it are refused.
    #[arg(long, conflicts_with = "vbuckets")]
    pub(crate) read_only: bool,
}

/// Where metrics are served.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct ServingArgs {
    /// Serve the metrics for Prometheus at this address, such as localhost:9184.
    ///
    /// A host name or an IP address, and a port. Port 0 lets the system choose one; the URL is
    /// printed on standard error. All addresses of a host name must be loopback addresses, unless
    /// --allow-remote is given; its IPv4 addresses are tried before others.
    #[arg(long = "metrics", value_name = "HOST:PORT", value_parser = host_and_port)]
    pub(crate) address: Option<String>,
    /// Allow an address that other machines can reach. There is no TLS and no password.
    #[arg(long, requires = "address")]
    pub(crate) allow_remote: bool,
    /// Also serve metrics of each vBucket, at /metrics/vbuckets.
    #[arg(long, requires = "address")]
    pub(crate) per_vbucket: bool,
}

fn host_and_port(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err("give a host and a port, such as localhost:9184".to_owned());
    }
    Ok(text.to_owned())
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  vbstore serve --dir s --metrics localhost:9184
  curl http://localhost:9184/metrics")]
pub(crate) struct ServeArgs {
    #[arg(long)]
    pub(super) json: bool,
    /// The store's directory; the store is created if there is none.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// vBuckets of a new store: a power of two from 1 to 1024 [default: 64].
    #[arg(long, value_name = "COUNT")]
    pub(crate) vbuckets: Option<u16>,
    /// Open the store read-only: nothing is written to its directory.
    ///
    /// Any number of programs can have a store open read-only at the same time. Works on a full
    /// disk and on a read-only file system. On a full disk, stores are opened read-only even
    /// without this option.
    #[arg(long, conflicts_with = "vbuckets")]
    pub(crate) read_only: bool,
    #[command(flatten)]
    pub(crate) serving: ServingArgs,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  vbstore watch localhost:9184
  vbstore watch --json --count 10 localhost:9184 | jq .writes_per_second")]
pub(crate) struct WatchArgs {
    #[arg(long)]
    pub(super) json: bool,
    /// Seconds between two refreshes, from 0.05 to 3600.
    #[arg(long, default_value_t = 1.0, value_parser = seconds, value_name = "SECONDS")]
    pub(crate) interval: f64,
    /// End after this many refreshes; exit code 4 if the last one got no answer.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Where the metrics are served: host and port, or the whole URL.
    #[arg(default_value = "127.0.0.1:9184", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) url: String,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok();
    seconds
        .filter(|seconds| (0.05..=3_600.0).contains(seconds))
        .ok_or_else(|| "give a number of seconds from 0.05 to 3600".to_owned())
}
