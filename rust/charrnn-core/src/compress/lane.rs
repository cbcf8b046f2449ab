//! One part of a file, coded symbol by symbol with the distributions it is handed.
//!
//! A symbol that the model does not know, or finds less likely than it can say, is escaped: the escape has a share of every
//! distribution, and after it the symbol is one of all there are.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use super::symbols::{first_symbol, num_symbols, push_bytes};
use crate::coding::{Decoder, Encoder, Share};
use crate::sampler::Distribution;
use crate::vocab::{Unit, Vocab};

/// The escape takes this share of every distribution, 2^-20: 1.4 millionths of a bit a symbol.
const ESCAPE_SHIFT: u32 = 20;
/// Room for a file's bytes a lane.
const BUFFER_BYTES: usize = 16 << 10;

/// What a lane coded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Coded {
    pub(super) symbol: u32,
    pub(super) is_escaped: bool,
}

/// One side of the coding of a part of a file.
pub(super) trait Lane: Send {
    /// Codes the next symbol.
    fn code(&mut self, distribution: &Distribution<'_>, vocab: &Vocab) -> io::Result<Coded>;
    /// Bytes of the original that are left.
    fn num_left(&self) -> u64;
    /// Checksum of the bytes of this round so far.
    fn checksum(&self) -> u32;
}

/// The escape's share of a distribution that it enlarges.
fn escape_share(distribution: &Distribution<'_>) -> Share {
    let (start, size) = (distribution.total(), (distribution.total() >> ESCAPE_SHIFT).max(1));
    Share { start, size, total: start + size }
}

/// From a file to bits.
pub(super) struct Reader {
    file: BufReader<File>,
    num_left: u64,
    /// Bytes read ahead: a character may stand across two buffers.
    ahead: Vec<u8>,
    encoder: Encoder,
    crc: crc32fast::Hasher,
}

impl Reader {
    pub(super) fn open(path: &Path, part: Range<u64>) -> io::Result<Self> {
        let mut file = BufReader::with_capacity(BUFFER_BYTES, File::open(path)?);
        file.seek(SeekFrom::Start(part.start))?;
        let num_left = part.end - part.start;
        Ok(Reader {
            file,
            num_left,
            ahead: Vec::new(),
            encoder: Encoder::default(),
            crc: crc32fast::Hasher::new(),
        })
    }

    /// Ends a round: its bits and its checksum.
    pub(super) fn finish(&mut self) -> (Vec<u8>, u32) {
        (self.encoder.finish(), std::mem::take(&mut self.crc).finalize())
    }

    fn next_symbol(&mut self, unit: Unit) -> io::Result<u32> {
        while self.ahead.len() < self.num_left.min(4) as usize {
            let buffer = self.file.fill_buf()?;
            let num = (4 - self.ahead.len()).min(buffer.len());
            if num == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.ahead.extend_from_slice(&buffer[..num]);
            self.file.consume(num);
        }
        let visible = self.ahead.len().min(self.num_left as usize);
        let (symbol, num) = first_symbol(&self.ahead[..visible], unit);
        self.crc.update(&self.ahead[..num]);
        self.ahead.drain(..num);
        self.num_left -= num as u64;
        Ok(symbol)
    }
}

impl Lane for Reader {
    fn code(&mut self, distribution: &Distribution<'_>, vocab: &Vocab) -> io::Result<Coded> {
        let symbol = self.next_symbol(vocab.unit())?;
        let escape = escape_share(distribution);
        let share = vocab.token_id(symbol).and_then(|token| distribution.share(token));
        match share {
            Some(share) => self.encoder.encode(Share { total: escape.total, ..share }),
            None => {
                self.encoder.encode(escape);
                let total = u64::from(num_symbols(vocab.unit()));
                self.encoder.encode(Share { start: u64::from(symbol), size: 1, total });
            }
        }
        Ok(Coded { symbol, is_escaped: share.is_none() })
    }

    fn num_left(&self) -> u64 {
        self.num_left
    }

    fn checksum(&self) -> u32 {
        self.crc.clone().finalize()
    }
}

/// From bits to a file.
pub(super) struct Writer {
    file: BufWriter<File>,
    num_left: u64,
    decoder: Decoder,
    crc: crc32fast::Hasher,
    bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn open(path: &Path, part: Range<u64>) -> io::Result<Self> {
        let mut file = BufWriter::with_capacity(BUFFER_BYTES, File::options().write(true).open(path)?);
        file.seek(SeekFrom::Start(part.start))?;
        let (num_left, decoder) = (part.end - part.start, Decoder::new(Vec::new()));
        Ok(Writer { file, num_left, decoder, crc: crc32fast::Hasher::new(), bytes: Vec::new() })
    }

    /// Begins a round.
    pub(super) fn start(&mut self, bits: Vec<u8>) {
        self.decoder = Decoder::new(bits);
        self.crc = crc32fast::Hasher::new();
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Lane for Writer {
    fn code(&mut self, distribution: &Distribution<'_>, vocab: &Vocab) -> io::Result<Coded> {
        let escape = escape_share(distribution);
        let decoder = &mut self.decoder;
        let target = decoder.target(escape.total);
        let is_escaped = target >= escape.start;
        let symbol = if is_escaped {
            decoder.consume(escape);
            let total = u64::from(num_symbols(vocab.unit()));
            let symbol = decoder.target(total);
            decoder.consume(Share { start: symbol, size: 1, total });
            symbol as u32
        } else {
            let token = distribution.symbol_at(target);
            let share = distribution.share(token).ok_or(io::ErrorKind::InvalidData)?;
            decoder.consume(Share { total: escape.total, ..share });
            vocab.symbol(token)
        };
        self.bytes.clear();
        push_bytes(symbol, vocab.unit(), &mut self.bytes);
        // Only damage makes a character longer than what is left of the part.
        self.bytes.truncate(self.num_left.min(4) as usize);
        self.num_left -= self.bytes.len() as u64;
        self.crc.update(&self.bytes);
        self.file.write_all(&self.bytes)?;
        Ok(Coded { symbol, is_escaped })
    }

    fn num_left(&self) -> u64 {
        self.num_left
    }

    fn checksum(&self) -> u32 {
        self.crc.clone().finalize()
    }
}
