//! Arguments of the commands that hold a store open, or look at one that is held: `session`,
//! `serve` and `watch`.

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
    /// The store's directory; the store is made if there is none.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// vBuckets of a store that is made: a power of two from 1 to 1024 [default: 64].
    #[arg(long, value_name = "COUNT")]
    pub(crate) vbuckets: Option<u16>,
    /// Open the store read-only; commands that would change it are refused.
    #[arg(long, conflicts_with = "vbuckets")]
    pub(crate) read_only: bool,
}

/// Where metrics are served.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct ServingArgs {
    /// Serve the metrics for Prometheus here, at /metrics: localhost:9184.
    ///
    /// A host name or an IP address, and a port; port 0 lets the system choose, and the address is
    /// printed on standard error. Each address that a host name stands for must be of the loopback
    /// interface, unless --allow-remote is given; the first IPv4 address is taken before others.
    #[arg(long = "metrics", value_name = "HOST:PORT", value_parser = host_and_port)]
    pub(crate) address: Option<String>,
    /// Allow an address that other machines can reach. There is no TLS and no password.
    #[arg(long, requires = "address")]
    pub(crate) allow_remote: bool,
    /// Also serve metrics of each single vBucket, at /metrics/vbuckets.
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
    /// The store's directory; the store is made if there is none.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// vBuckets of a store that is made: a power of two from 1 to 1024 [default: 64].
    #[arg(long, value_name = "COUNT")]
    pub(crate) vbuckets: Option<u16>,
    /// Open the store read-only: nothing is written to its directory.
    ///
    /// Any number of programs may hold a store read-only at the same time. Works on a full disk and
    /// on a read-only file system; a store on a full disk is opened so in any case.
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
    /// Seconds from one look to the next, from 0.05 to 3600.
    #[arg(long, default_value_t = 1.0, value_parser = seconds, value_name = "SECONDS")]
    pub(crate) interval: f64,
    /// End after this many looks; exit code 4 if the last one got no answer.
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
