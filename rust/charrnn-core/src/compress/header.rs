//! The head of a compressed file: what it is, for which model, how long, and the checksum of the original.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::CompressError;

/// The last byte is the version of the format.
const MAGIC: [u8; 4] = *b"cRN\x01";
/// Bytes of digests and checksums that are kept.
const DIGEST_LEN: usize = 8;
const CHECKSUM_LEN: usize = 16;
const MAX_PRECISION: usize = 16;
/// A lane costs a state and a cold start, some ten bytes: not below this many bytes of text.
const LANE_BYTES: u64 = 256 << 10;
const MAX_LANES: u64 = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    digest: [u8; DIGEST_LEN],
    precision: String,
    pub(super) num_bytes: u64,
    checksum: [u8; CHECKSUM_LEN],
}

impl Header {
    /// Of the original at `path`, which is read to its end.
    pub(super) fn of(path: &Path, digest: &str, precision: &str) -> io::Result<Self> {
        let (num_bytes, checksum) = checksum(path)?;
        Ok(Header { digest: first_bytes(digest), precision: precision.to_owned(), num_bytes, checksum })
    }

    /// Whether the file at `path` is the original.
    pub(super) fn is_of(&self, path: &Path) -> io::Result<bool> {
        Ok(checksum(path)? == (self.num_bytes, self.checksum))
    }

    pub(super) fn num_lanes(&self) -> usize {
        (self.num_bytes / LANE_BYTES).clamp(1, MAX_LANES) as usize
    }

    /// Where a lane begins, or the lane before it ends.
    pub(super) fn lane_start(&self, lane: usize) -> u64 {
        (u128::from(self.num_bytes) * lane as u128 / self.num_lanes() as u128) as u64
    }

    pub(super) fn write(&self, output: &mut dyn Write) -> io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.digest);
        bytes.push(self.precision.len() as u8);
        bytes.extend(self.precision.as_bytes());
        write_number(&mut bytes, self.num_bytes);
        bytes.extend(self.checksum);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        output.write_all(&bytes)
    }

    pub(super) fn read(input: &mut dyn Read, path: &Path) -> Result<Self, CompressError> {
        let foreign = |reason| CompressError::Foreign { path: path.to_owned(), reason };
        let mut input = Remembering { inner: input, bytes: Vec::new() };
        let ended = |_| foreign("it ends within its header");
        let magic: [u8; 4] = input.array().map_err(ended)?;
        if magic[..3] != MAGIC[..3] {
            return Err(foreign("it does not begin like one"));
        }
        if magic != MAGIC {
            return Err(foreign("its format is of another version of charrnn"));
        }
        let digest = input.array().map_err(ended)?;
        let [len] = input.array().map_err(ended)?;
        let mut precision = vec![0; usize::from(len).min(MAX_PRECISION)];
        input.read_exact(&mut precision).map_err(ended)?;
        let num_bytes = read_number(&mut input).map_err(ended)?;
        let checksum = input.array().map_err(ended)?;
        let crc = crc32fast::hash(&input.bytes);
        if u32::from_le_bytes(input.array().map_err(ended)?) != crc {
            return Err(foreign("its header is damaged"));
        }
        Ok(Header {
            digest,
            precision: String::from_utf8_lossy(&precision).into_owned(),
            num_bytes,
            checksum,
        })
    }

    /// Whether it was made with this model.
    pub(super) fn check(&self, digest: &str, precision: &str, path: &Path) -> Result<(), CompressError> {
        if (self.digest, self.precision.as_str()) == (first_bytes(digest), precision) {
            return Ok(());
        }
        Err(CompressError::OtherModel {
            path: path.to_owned(),
            expected: hexadecimal(&self.digest),
            precision: self.precision.clone(),
            found: format!("{}, {precision}", hexadecimal(&first_bytes(digest))),
        })
    }
}

/// The precision that the file at `path` was compressed with.
pub fn precision_of(path: &Path) -> Result<String, CompressError> {
    let reading = |source| CompressError::Io { path: path.to_owned(), verb: "read", source };
    Header::read(&mut File::open(path).map_err(reading)?, path).map(|header| header.precision)
}

/// The length of a file and the beginning of its sha256.
fn checksum(path: &Path) -> io::Result<(u64, [u8; CHECKSUM_LEN])> {
    let (mut file, mut sha) = (File::open(path)?, Sha256::new());
    let num_bytes = io::copy(&mut file, &mut sha)?;
    let mut checksum = [0; CHECKSUM_LEN];
    checksum.copy_from_slice(&sha.finalize()[..CHECKSUM_LEN]);
    Ok((num_bytes, checksum))
}

fn first_bytes(digest: &str) -> [u8; DIGEST_LEN] {
    std::array::from_fn(|i| {
        digest.get(2 * i..2 * i + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()).unwrap_or(0)
    })
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Appends a number in 7 bits a byte, the lowest first.
pub(super) fn write_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

pub(super) fn read_number(input: &mut dyn Read) -> io::Result<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        input.read_exact(&mut byte)?;
        number |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] < 0x80 {
            return Ok(number);
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// Keeps what was read, for its checksum.
struct Remembering<'a> {
    inner: &'a mut dyn Read,
    bytes: Vec<u8>,
}

impl Remembering<'_> {
    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut array = [0; N];
        self.read_exact(&mut array)?;
        Ok(array)
    }
}

impl Read for Remembering<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let num = self.inner.read(bytes)?;
        self.bytes.extend(&bytes[..num]);
        Ok(num)
    }
}
