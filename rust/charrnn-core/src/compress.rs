//! Files in as many bits as the model needs for them: an arithmetic coder on the probabilities of every next symbol.
//!
//! A file is cut into lanes, contiguous parts that are coded side by side in one batch, each by a stream of its own. What
//! is written does not depend on the number of workers. Works in constant memory; the file is read twice, once for its
//! checksum. Knows nothing of how the model computes: its bits must be the same on both sides, or decoding says so.

mod header;
mod lane;
mod round;
mod symbols;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::vocab::Vocab;
use crate::{StepError, StepModel};

pub use header::precision_of;
use header::Header;
use round::{RoundError, Rounds};

/// Why a file could not be compressed or restored.
#[derive(Debug, thiserror::Error)]
pub enum CompressError {
    /// A file cannot be read or written.
    #[error("{path} cannot be {verb}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// read or written.
        verb: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The file changed while it was compressed.
    #[error("{0} changed while it was being compressed; compress it again")]
    Changed(PathBuf),
    /// Not a file of ours.
    #[error("{path} is not a file that charrnn compressed: {reason}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What gives it away.
        reason: &'static str,
    },
    /// Of ours, but for another model.
    #[error("{path} was compressed with another model (digest {expected}..., {precision}), this is {found}...; give the bundle it was made with")]
    OtherModel {
        /// The file.
        path: PathBuf,
        /// In the file.
        expected: String,
        /// In the file.
        precision: String,
        /// Of the bundle.
        found: String,
    },
    /// What came out is not what went in.
    #[error(
        "{path} is damaged, or this machine computes the model differently: {reason}; nothing was written"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        reason: String,
    },
    /// The model failed.
    #[error("{0}")]
    Model(#[from] StepError),
    /// The model's logits are no distribution.
    #[error("the model's logits are not numbers, so nothing can be coded with them")]
    Logits,
    /// The caller asked for it.
    #[error("stopped")]
    Stopped,
}

/// The model that codes, one copy a worker.
pub struct Coder {
    /// At least one.
    pub models: Vec<Box<dyn StepModel>>,
    /// The symbols.
    pub vocab: Arc<Vocab>,
    /// What each lane reads first.
    pub start_token: u32,
    /// What ends a document, for a model of documents.
    pub end_token: Option<u32>,
    /// The bundle's digest, in hexadecimal.
    pub digest: String,
    /// Which of its graphs.
    pub precision: String,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Bytes of the original.
    pub num_bytes: u64,
    /// Symbols in it: characters, or bytes.
    pub num_symbols: u64,
    /// Of them, those that the model could not code and that were escaped.
    pub num_escaped: u64,
    /// Bytes of the compressed file.
    pub num_compressed: u64,
    /// Of them, bytes that code symbols: all but the headers.
    pub num_coded: u64,
}

/// Told now and then how many bytes of the original are done; false stops the work.
pub type Watch<'a> = &'a mut dyn FnMut(u64) -> bool;

/// Compresses the file at `input` into a new file at `target`.
pub fn compress(
    coder: &mut Coder,
    input: &Path,
    target: &Path,
    watch: Watch<'_>,
) -> Result<Report, CompressError> {
    let reading = |source| CompressError::Io { path: input.to_owned(), verb: "read", source };
    let header = Header::of(input, &coder.digest, &coder.precision).map_err(reading)?;
    let writing = |source| CompressError::Io { path: target.to_owned(), verb: "written", source };
    let mut output = Counted { inner: BufWriter::new(File::create(target).map_err(writing)?), count: 0 };
    header.write(&mut output).map_err(writing)?;
    let mut rounds = Rounds::new(coder, &header);
    rounds.compress(input, &mut output, watch).map_err(|error| error.named(input, target))?;
    output.flush().map_err(writing)?;
    if !header.is_of(input).map_err(reading)? {
        return Err(CompressError::Changed(input.to_owned()));
    }
    Ok(rounds.report(output.count))
}

/// Measures the information in the file at `input`, in bits, without coding it; and counts its symbols.
pub fn measure(coder: &mut Coder, input: &Path, watch: Watch<'_>) -> Result<(f64, Report), CompressError> {
    let reading = |source| CompressError::Io { path: input.to_owned(), verb: "read", source };
    let header = Header::of(input, &coder.digest, &coder.precision).map_err(reading)?;
    let mut rounds = Rounds::new(coder, &header);
    let bits = rounds.measure(input, watch)?;
    Ok((bits, rounds.report(0)))
}

/// Restores what `compress` made of a file at `input`, into a new file at `output`.
pub fn decompress(
    coder: &mut Coder,
    input: &Path,
    output: &Path,
    watch: Watch<'_>,
) -> Result<Report, CompressError> {
    let reading = |source| CompressError::Io { path: input.to_owned(), verb: "read", source };
    let mut reader = Counted { inner: BufReader::new(File::open(input).map_err(reading)?), count: 0 };
    let header = Header::read(&mut reader, input)?;
    header.check(&coder.digest, &coder.precision, input)?;
    let writing = |source| CompressError::Io { path: output.to_owned(), verb: "written", source };
    File::create(output).and_then(|file| file.set_len(header.num_bytes)).map_err(writing)?;
    let mut rounds = Rounds::new(coder, &header);
    rounds.decompress(&mut reader, output, watch).map_err(|error| error.named(input, output))?;
    let damaged = |reason: &str| RoundError::Damage(reason.to_owned()).named(input, output);
    if reader.read(&mut [0]).map_err(reading)? != 0 {
        return Err(damaged("there are bytes after its end"));
    }
    if !header.is_of(output).map_err(writing)? {
        return Err(damaged("the checksum of the whole differs"));
    }
    Ok(rounds.report(reader.count))
}

/// Counts the bytes that go through.
struct Counted<T> {
    inner: T,
    count: u64,
}

impl<T: Read> Read for Counted<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let num = self.inner.read(bytes)?;
        self.count += num as u64;
        Ok(num)
    }
}

impl<T: Write> Write for Counted<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let num = self.inner.write(bytes)?;
        self.count += num as u64;
        Ok(num)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
