//! The file that holds the positions of a tail.

use crate::output::{CommandError, USAGE};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use vbstore::{Positions, StoreUuid};

#[derive(Debug, Serialize, Deserialize)]
struct TailState {
    store: String,
    positions: Positions,
}

#[derive(Debug)]
pub(super) struct TailStateFile {
    path: PathBuf,
    store: String,
}

impl TailStateFile {
    pub(super) fn new(path: &Path, store: StoreUuid) -> Self {
        Self {
            path: path.to_owned(),
            store: store.to_string(),
        }
    }

    /// Returns the positions in the file; `None` if it does not exist.
    pub(super) fn load(&self) -> Result<Option<Positions>, CommandError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CommandError::file("read", &self.path, &error)),
        };
        let refused = |what: String| {
            let text = format!("{}: {what}", self.path.display());
            CommandError::new(USAGE, "resume", text)
        };
        let state: TailState = serde_json::from_slice(&bytes)
            .map_err(|error| refused(format!("it is not a file of positions: {error}")))?;
        if state.store != self.store {
            return Err(refused("its positions are of another store".to_owned()));
        }
        Ok(Some(state.positions))
    }

    /// Replaces the file. After a kill there is either the old file or the new one, never a part.
    pub(super) fn save(&self, positions: &Positions) -> Result<(), CommandError> {
        let state = TailState {
            store: self.store.clone(),
            positions: positions.clone(),
        };
        let mut new = self.path.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        let failed = |error: io::Error| CommandError::file("write", &self.path, &error);
        let bytes = serde_json::to_vec(&state)?;
        let mut file = File::create(&new).map_err(failed)?;
        file.write_all(&bytes).map_err(failed)?;
        fs::rename(&new, &self.path).map_err(failed)
    }
}
