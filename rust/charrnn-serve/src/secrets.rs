//! Files that only this user may read: keys and tokens.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// A file of more is no key and no list of tokens.
const MAX_BYTES: u64 = 1 << 20;

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system does not give it.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Its secret may be known already.
    #[error("{path} may be read or written by others (mode {mode:04o}), and holds a secret; chmod 600 it")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is something else.
    #[error("{path} {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl FileError {
    pub(crate) fn content(path: &Path, reason: impl ToString) -> Self {
        FileError::Content { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// Enough of a hash to tell secrets apart and too little to find one.
pub(crate) fn fingerprint(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All of a file that anyone may know.
pub(crate) fn read_public(path: &Path) -> Result<Vec<u8>, FileError> {
    open(path).and_then(|file| read(file, path))
}

/// All of a file with a secret. OpenSSH's rule: a file of this user's is refused if group or others have any access;
/// another owner, such as root who lets a group read, knows what they do.
pub(crate) fn read_secret(path: &Path) -> Result<Vec<u8>, FileError> {
    let file = open(path)?;
    check_mode(&file, path)?;
    read(file, path)
}

fn failed(path: &Path) -> impl Fn(io::Error) -> FileError + '_ {
    move |source| FileError::Read { path: path.to_owned(), source }
}

fn open(path: &Path) -> Result<File, FileError> {
    File::open(path).map_err(failed(path))
}

fn read(file: File, path: &Path) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    let num_read = file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed(path))?;
    match num_read as u64 > MAX_BYTES {
        true => Err(FileError::content(path, format!("is longer than {MAX_BYTES} bytes"))),
        false => Ok(bytes),
    }
}

#[cfg(unix)]
fn check_mode(file: &File, path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::MetadataExt;
    let metadata = file.metadata().map_err(failed(path))?;
    let mode = metadata.mode() & 0o777;
    match metadata.uid() == rustix::process::geteuid().as_raw() && mode & 0o077 != 0 {
        true => Err(FileError::Exposed { path: path.to_owned(), mode }),
        false => Ok(()),
    }
}

#[cfg(not(unix))]
fn check_mode(_file: &File, _path: &Path) -> Result<(), FileError> {
    Ok(())
}
