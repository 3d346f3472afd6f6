//! How far an import has come, kept beside the store.

use crate::input::is_regular;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Bytes of the input that tell it from another one.
const FINGERPRINT_BYTES: u64 = 64 << 10;

/// What the input was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InputIdentity {
    path: String,
    format: String,
    key: String,
    /// CRC-32 of its first 64 KiB, or of all of it if it is shorter; 0 for a pipe.
    fingerprint: u32,
}

impl InputIdentity {
    /// Looks at an input. A pipe cannot be looked at twice: what is read from it is gone.
    pub(crate) fn of(path: &Path, format: &str, key: &str) -> io::Result<Self> {
        let (mut fingerprint, mut name) = (0, "-".to_owned());
        if is_regular(path)? {
            let mut start = Vec::new();
            File::open(path)?
                .take(FINGERPRINT_BYTES)
                .read_to_end(&mut start)?;
            fingerprint = crc32fast::hash(&start);
        }
        if path != Path::new("-") {
            name = fs::canonicalize(path)?.to_string_lossy().into_owned();
        }
        Ok(Self {
            path: name,
            format: format.to_owned(),
            key: key.to_owned(),
            fingerprint,
        })
    }
}

/// How far the import of an input has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImportProgress {
    pub(crate) input: InputIdentity,
    /// The store it went into: another store at the same place has none of it.
    pub(crate) store: String,
    /// The last line of which it and all before it are acknowledged.
    pub(crate) line: u64,
    /// Where the line after it begins, in bytes.
    pub(crate) offset: u64,
    pub(crate) is_finished: bool,
}

/// The file that holds it.
#[derive(Debug)]
pub(crate) struct ProgressFile(PathBuf);

impl ProgressFile {
    pub(crate) fn beside(store: &Path) -> Self {
        let mut name = store.as_os_str().to_owned();
        name.push(".import-state.json");
        Self(PathBuf::from(name))
    }

    pub(crate) fn load(&self) -> io::Result<Option<ImportProgress>> {
        match fs::read(&self.0) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts it in place of what was there. With `sync` it survives a power cut; without, a kill.
    pub(crate) fn save(&self, progress: &ImportProgress, sync: bool) -> io::Result<()> {
        let mut new = self.0.clone();
        new.set_extension("json.new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(progress)?)?;
        if sync {
            file.sync_all()?;
        }
        fs::rename(&new, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded_and_another_input_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&a, "one").unwrap();
        fs::write(&b, "two").unwrap();
        let input = InputIdentity::of(&a, "json", "key").unwrap();
        assert_ne!(input, InputIdentity::of(&b, "json", "key").unwrap());
        assert_ne!(input, InputIdentity::of(&a, "json", "other").unwrap());

        let file = ProgressFile::beside(&dir.path().join("store"));
        assert_eq!(file.load().unwrap(), None);
        let progress = ImportProgress {
            input,
            store: "s".to_owned(),
            line: 7,
            offset: 99,
            is_finished: false,
        };
        for sync in [false, true] {
            file.save(&progress, sync).unwrap();
            assert_eq!(file.load().unwrap(), Some(progress.clone()));
        }
    }
}
