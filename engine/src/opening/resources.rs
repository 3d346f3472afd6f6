//! The file descriptors and the memory that RocksDB may use.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::storage::StorageConfig;

/// The file descriptors that an engine needs in addition to those of data files: for its own files,
/// RocksDB's log and MANIFEST, and the program around it.
const DESCRIPTORS_BASE: u64 = 128;
/// The number of data files kept open if the configuration does not set one.
const OPEN_FILES_DEFAULT: u64 = 4_096;
/// The minimum of the default for write buffer memory, in bytes: in total, and per column family.
const WRITE_BUFFER_MIN: u64 = 256 << 20;
const WRITE_BUFFER_FAMILY: u64 = 512 << 10;

/// The file descriptors and the memory that RocksDB may use.
pub(super) struct Resources {
    pub(super) storage: StorageConfig,
    pub(super) write_buffer_bytes: u64,
}

impl Resources {
    /// Derives the resources from the configuration and the limits of the process. `to_do` is
    /// "open" or "create", for the error text.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the process may not open enough files.
    pub(super) fn find(config: &Config, vbuckets: u16, to_do: &str) -> Result<Self> {
        let families = u64::from(vbuckets) * 2;
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let limit = limit.unwrap_or(u64::MAX);
        // One descriptor for each family: while a store is created each family keeps its directory
        // open.
        let needed = DESCRIPTORS_BASE + families;
        if limit < needed {
            let detail = format!(
                "the process may open {limit} file descriptors, but needs {needed} to {to_do} \
                 {vbuckets} vBuckets (see ulimit -n)"
            );
            return Err(Error::invalid("open_files_max", detail));
        }
        let open_files = config
            .open_files_max
            .map_or_else(|| OPEN_FILES_DEFAULT.min(limit / 2), u64::from);
        let write_buffer_bytes = config
            .write_buffer_bytes
            .unwrap_or_else(|| WRITE_BUFFER_MIN.max(families * WRITE_BUFFER_FAMILY));
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Ok(Self {
            storage: StorageConfig {
                vbuckets,
                block_cache_bytes: size(config.block_cache_bytes),
                write_buffer_bytes: size(write_buffer_bytes),
                open_files_max: i32::try_from(open_files).unwrap_or(i32::MAX),
            },
            write_buffer_bytes,
        })
    }
}
