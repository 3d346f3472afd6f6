//! Syncs RocksDB's log without opening the database to write.

use super::digest::is_log;
use super::names::display_path;
use crate::error::{Error, Result};
use rustix::fs::StatVfsMountFlags;
use std::fs::{self, File};
use std::path::Path;

/// Syncs the log files in RocksDB's directory, and the names of the files there.
///
/// After a process was killed, the end of its log may be in the operating system's memory only. The
/// sync works on a full disk, because the space was allocated when the log was written.
///
/// # Errors
/// [`Error::Io`] if a log file cannot be opened, or its sync fails.
pub(crate) fn sync_logs(db: &Path) -> Result<()> {
    let context = || format!("list {}", display_path(db));
    for entry in fs::read_dir(db).map_err(|e| Error::io(context(), e))? {
        let entry = entry.map_err(|e| Error::io(context(), e))?;
        if is_log(&entry.file_name().to_string_lossy()) {
            sync(&entry.path())?;
        }
    }
    sync(db)
}

/// Syncs a file or a directory. A read-only file system, such as that of an image, has nothing to
/// sync and may not support the call. Its error is ignored then.
fn sync(path: &Path) -> Result<()> {
    let context = || format!("sync {}", display_path(path));
    let file = File::open(path).map_err(|e| Error::io(context(), e))?;
    let Err(error) = file.sync_all() else {
        return Ok(());
    };
    let is_unsupported = matches!(
        error.kind(),
        std::io::ErrorKind::InvalidInput | std::io::ErrorKind::ReadOnlyFilesystem
    );
    let is_read_only = rustix::fs::fstatvfs(&file)
        .is_ok_and(|space| space.f_flag.contains(StatVfsMountFlags::RDONLY));
    if is_unsupported && is_read_only {
        return Ok(());
    }
    Err(Error::io(context(), error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn each_log_file_is_synced_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("000001.log"), "x").unwrap();
        // A device that has no sync takes the place of a file whose sync fails.
        symlink("/dev/null", dir.path().join("000002.sst")).unwrap();
        symlink("/dev/null", dir.path().join("notes.log")).unwrap();
        sync_logs(dir.path()).unwrap();
        symlink("/dev/null", dir.path().join("000003.log")).unwrap();
        let failed = sync_logs(dir.path()).unwrap_err();
        assert!(failed.to_string().contains("000003.log"), "{failed}");
        assert!(matches!(failed, Error::Io { .. }), "{failed:?}");
    }
}
