//! JSON: one object a run, its `schema` says which version.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

/// A report could not be written.
#[derive(Debug, Error)]
#[error("cannot write {path}: {cause}", path = path.display())]
pub struct WriteError {
    /// Where to.
    pub path: PathBuf,
    /// What the system says.
    pub cause: io::Error,
}

/// Where JSON goes. Opened before the load, so that a path that cannot be written is found before and not after it.
#[derive(Debug)]
pub enum JsonOutput {
    /// Standard output.
    Stdout,
    /// A file, replaced when it is written.
    File {
        /// Its path.
        path: PathBuf,
        /// Open for writing; not truncated before there is something to write.
        file: File,
    },
}

impl JsonOutput {
    /// Opens `path`, or standard output for `-`.
    ///
    /// # Errors
    /// Where the file cannot be opened for writing.
    pub fn open(path: &Path) -> Result<Self, WriteError> {
        if path.as_os_str() == "-" {
            return Ok(Self::Stdout);
        }
        let opened = File::options().write(true).create(true).truncate(false).open(path);
        match opened {
            Ok(file) => Ok(Self::File { path: path.to_owned(), file }),
            Err(cause) => Err(WriteError { path: path.to_owned(), cause }),
        }
    }

    /// Whether it goes to standard output, which then belongs to it alone.
    #[must_use]
    pub fn is_stdout(&self) -> bool {
        matches!(self, Self::Stdout)
    }

    /// Writes one object and a line break.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write(self, value: &impl Serialize) -> Result<(), WriteError> {
        let (path, written) = match self {
            Self::Stdout => (PathBuf::from("standard output"), write_to(io::stdout().lock(), value)),
            Self::File { path, file } => {
                let written = empty(&file).and_then(|()| write_to(&file, value));
                (path, written)
            }
        };
        written.map_err(|cause| WriteError { path, cause })
    }
}

/// Empties a file. A pipe or a device, which a path may name as well, has nothing to empty and refuses it.
fn empty(file: &File) -> io::Result<()> {
    if file.metadata()?.is_file() { file.set_len(0) } else { Ok(()) }
}

fn write_to(mut output: impl Write, value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    output.write_all(text.as_bytes())?;
    output.write_all(b"\n")?;
    output.flush()
}
