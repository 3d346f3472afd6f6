//! Stores the progress of an import in a file, so that `--resume` can continue it.

use super::place::Place;
use super::records::Layout;
use crate::input::is_regular;
use crate::output::{CommandError, IO};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The name of the file in the store's directory.
const NAME: &str = "IMPORT-STATE.json";

/// The number of first bytes of the input that an earlier version hashed to identify it.
const FINGERPRINT_BYTES: u64 = 64 << 10;

/// The input of an import, and the options it was read with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InputIdentity {
    /// The canonical path; `-` for a pipe, which has no lasting name.
    path: String,
    format: String,
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delimiter: Option<char>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    no_header: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    as_json: bool,
}

impl InputIdentity {
    pub(super) fn of(args: &crate::args::ImportArgs, format: &str) -> io::Result<Self> {
        let path = if is_regular(&args.file)? {
            fs::canonicalize(&args.file)?.to_string_lossy().into_owned()
        } else {
            "-".to_owned()
        };
        Ok(Self {
            path,
            format: format.to_owned(),
            key: args.key.clone(),
            delimiter: args.delimiter.map(char::from),
            no_header: args.no_header,
            as_json: args.is_as_json(),
        })
    }

    /// Returns whether the input is a pipe, which cannot be read a second time.
    pub(super) fn is_pipe(&self) -> bool {
        self.path == "-"
    }

    /// Returns a description of the input for messages.
    pub(super) fn describe(&self) -> String {
        let path = if self.is_pipe() { "a pipe" } else { &self.path };
        format!("{path} (--format {} --key {})", self.format, self.key)
    }
}

/// The progress of an import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImportProgress {
    pub(super) input: InputIdentity,
    /// The UUID of the target store. A different store at the same path has none of the records.
    pub(super) store: String,
    /// The number of line ends in the acknowledged part of the input.
    pub(super) line: u64,
    /// The offset at which reading continues, in bytes of the decompressed input.
    pub(super) offset: u64,
    /// The CRC-32 of all bytes before `offset`.
    #[serde(default)]
    pub(super) crc: Option<u32>,
    /// The layout of the JSON values in the input.
    #[serde(default)]
    pub(super) layout: Option<Layout>,
    /// The number of rejected records before `offset`.
    #[serde(default)]
    pub(super) rejected: u64,
    pub(super) is_finished: bool,
}

impl ImportProgress {
    /// Returns the progress of an import that begins.
    pub(super) fn none(input: InputIdentity, store: String) -> Self {
        Self {
            input,
            store,
            line: 0,
            offset: 0,
            crc: None,
            layout: None,
            rejected: 0,
            is_finished: false,
        }
    }

    /// Returns the last line that is imported at least in part. A JSON value that is not a line of
    /// its own may end within a line; that line counts.
    pub(super) fn last_line(&self) -> u64 {
        let is_within = matches!(self.layout, Some(Layout::Values | Layout::Array));
        self.line + u64::from(is_within && self.offset > 0)
    }

    pub(super) fn place(&self) -> Place {
        Place {
            line: self.line,
            offset: self.offset,
            crc: self.crc,
        }
    }

    pub(super) fn set_place(&mut self, place: &Place) {
        self.line = place.line;
        self.offset = place.offset;
        self.crc = place.crc;
    }
}

/// Additional fields in the files of an earlier version.
#[derive(Deserialize)]
struct Earlier {
    input: EarlierInput,
}

#[derive(Deserialize)]
struct EarlierInput {
    fingerprint: Option<u32>,
}

/// The file that holds an [`ImportProgress`].
#[derive(Debug)]
pub(super) struct ProgressFile {
    path: PathBuf,
    /// The paths at which an earlier version kept the file.
    earlier: Vec<PathBuf>,
}

impl ProgressFile {
    /// Returns the file at the path `wanted`, or the one in the store's directory.
    pub(super) fn of(store: &Path, wanted: Option<&Path>) -> Self {
        if let Some(path) = wanted {
            return Self {
                path: path.to_owned(),
                earlier: Vec::new(),
            };
        }
        // An earlier version appended the suffix to the path as given, which may end with a slash.
        // The canonical path is tried as well.
        let beside = |dir: &Path| {
            let mut name = dir.as_os_str().to_owned();
            name.push(".import-state.json");
            PathBuf::from(name)
        };
        let mut earlier = vec![beside(store)];
        earlier.extend(fs::canonicalize(store).ok().map(|store| beside(&store)));
        Self {
            path: store.join(NAME),
            earlier,
        }
    }

    /// Reads the file. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// The file cannot be read, or does not hold the progress of an import.
    pub(super) fn load(&self) -> Result<Option<ImportProgress>, CommandError> {
        for path in std::iter::once(&self.path).chain(&self.earlier) {
            let bytes = match fs::read(path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(path, &error)),
            };
            return match serde_json::from_slice::<ImportProgress>(&bytes) {
                Ok(progress) => Ok(Some(in_this_version(progress, &bytes))),
                Err(error) => {
                    let what = if bytes.is_empty() {
                        "it is empty".to_owned()
                    } else {
                        error.to_string()
                    };
                    let text = format!(
                        "{}: the file does not hold the progress of an import: {what}; without --resume, \
                         the import starts at the beginning and replaces the file",
                        path.display()
                    );
                    Err(CommandError::new(IO, "state", text))
                }
            };
        }
        Ok(None)
    }

    /// Replaces the file atomically. With `sync`, the new contents survive a power failure; without
    /// it, they survive only a kill of the process.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn save(&self, progress: &ImportProgress, sync: bool) -> Result<(), CommandError> {
        let mut new = self.path.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        let put = || -> io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec(progress)?)?;
            if sync {
                file.sync_all()?;
            }
            fs::rename(&new, &self.path)
        };
        put().map_err(|error| {
            // A partial file is useless, and if the disk is full, its space is needed.
            drop(fs::remove_file(&new));
            failed(&self.path, &error)
        })
    }
}

fn failed(path: &Path, error: &io::Error) -> CommandError {
    CommandError::new(IO, "io", format!("{}: {error}", path.display()))
}

/// Converts the progress that an earlier version wrote. That version identified an input by its
/// first bytes only. If these have changed, the path is altered so that no input matches.
fn in_this_version(progress: ImportProgress, bytes: &[u8]) -> ImportProgress {
    let earlier = serde_json::from_slice::<Earlier>(bytes).ok();
    let Some(fingerprint) = earlier.and_then(|earlier| earlier.input.fingerprint) else {
        return progress;
    };
    let path = progress.input.path.clone();
    let mut start = Vec::new();
    let read =
        File::open(&path).and_then(|file| file.take(FINGERPRINT_BYTES).read_to_end(&mut start));
    if path == "-" || read.is_ok() && crc32fast::hash(&start) == fingerprint {
        return progress;
    }
    let input = InputIdentity {
        path: format!("{path} (before it changed)"),
        ..progress.input
    };
    ImportProgress { input, ..progress }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(path: &Path) -> ImportProgress {
        let input = InputIdentity {
            path: path.to_string_lossy().into_owned(),
            format: "csv".to_owned(),
            key: "id".to_owned(),
            delimiter: Some(';'),
            no_header: false,
            as_json: true,
        };
        ImportProgress {
            line: 7,
            offset: 99,
            crc: Some(5),
            layout: Some(Layout::Array),
            rejected: 2,
            ..ImportProgress::none(input, "s".to_owned())
        }
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let file = ProgressFile::of(dir.path(), None);
        assert_eq!(file.load().unwrap(), None);
        let progress = progress(Path::new("/a"));
        for sync in [false, true] {
            file.save(&progress, sync).unwrap();
            assert_eq!(file.load().unwrap(), Some(progress.clone()));
        }
        let other = ProgressFile::of(dir.path(), Some(&dir.path().join("other")));
        assert_eq!(other.load().unwrap(), None);
    }

    #[test]
    fn a_state_beside_the_store_is_found_until_there_is_one_inside() {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("in");
        fs::write(&input, "line\n").unwrap();
        let store = dir.path().join("s");
        fs::create_dir(&store).unwrap();
        let fingerprint = crc32fast::hash(b"line\n");
        let path = input.display();
        let text = format!(
            "{{\"input\":{{\"path\":\"{path}\",\"format\":\"json\",\"key\":\"key\",\"fingerprint\":{fingerprint}}},\
             \"store\":\"x\",\"line\":1,\"offset\":5,\"is_finished\":true}}"
        );
        fs::write(dir.path().join("s.import-state.json"), text).unwrap();
        for spelling in [
            store.clone(),
            store.join(""),
            store.join("../s"),
            store.join("."),
        ] {
            let found = ProgressFile::of(&spelling, None).load().unwrap().unwrap();
            assert_eq!((found.line, found.crc, found.layout), (1, None, None));
            assert_eq!(found.input.path, input.to_string_lossy());
        }
        fs::write(&input, "other\n").unwrap();
        let found = ProgressFile::of(&store, None).load().unwrap().unwrap();
        assert_ne!(found.input.path, input.to_string_lossy());

        let inside = progress(&input);
        ProgressFile::of(&store, None).save(&inside, false).unwrap();
        assert_eq!(ProgressFile::of(&store, None).load().unwrap(), Some(inside));
    }

    #[test]
    fn a_file_that_is_no_state_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = ProgressFile::of(dir.path(), None);
        for bytes in ["", "{", "[]", "{\"input\":1}"] {
            fs::write(dir.path().join(NAME), bytes).unwrap();
            let error = file.load().unwrap_err().to_string();
            assert!(error.contains(NAME), "{error}");
        }
        let nowhere = ProgressFile::of(dir.path(), Some(&dir.path().join("no/where")));
        let error = nowhere.save(&progress(Path::new("/a")), false).unwrap_err();
        assert!(error.to_string().contains("no/where"), "{error}");
    }
}
