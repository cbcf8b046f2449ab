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
}

/// The escape's share of a distribution that it enlarges.
fn escape_share(distribution: &Distribution<'_>) -> Share {
    let (start, size) = (distribution.total(), (distribution.total() >> ESCAPE_SHIFT).max(1));
    Share { start, size, total: start + size }
}

/// The symbols of a part of a file.
struct Source {
    file: BufReader<File>,
    num_left: u64,
    /// Bytes read ahead: a character may stand across two buffers.
    ahead: Vec<u8>,
    crc: crc32fast::Hasher,
}

impl Source {
    fn open(path: &Path, part: Range<u64>) -> io::Result<Self> {
        let mut file = BufReader::with_capacity(BUFFER_BYTES, File::open(path)?);
        file.seek(SeekFrom::Start(part.start))?;
        let num_left = part.end - part.start;
        Ok(Source { file, num_left, ahead: Vec::new(), crc: crc32fast::Hasher::new() })
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

/// What stands for a symbol: its share of a distribution with the escape, or the escape's and that of all symbols.
fn shares(symbol: u32, distribution: &Distribution<'_>, vocab: &Vocab) -> (Share, Option<Share>) {
    let escape = escape_share(distribution);
    match vocab.token_id(symbol).and_then(|token| distribution.share(token)) {
        Some(share) => (Share { total: escape.total, ..share }, None),
        None => {
            let total = u64::from(num_symbols(vocab.unit()));
            (escape, Some(Share { start: u64::from(symbol), size: 1, total }))
        }
    }
}

/// From a file to bits.
pub(super) struct Reader {
    source: Source,
    encoder: Encoder,
}

impl Reader {
    pub(super) fn open(path: &Path, part: Range<u64>) -> io::Result<Self> {
        Ok(Reader { source: Source::open(path, part)?, encoder: Encoder::default() })
    }

    /// Ends a round: its bits and its checksum.
    pub(super) fn finish(&mut self) -> (Vec<u8>, u32) {
        (self.encoder.finish(), std::mem::take(&mut self.source.crc).finalize())
    }
}

impl Lane for Reader {
    fn code(&mut self, distribution: &Distribution<'_>, vocab: &Vocab) -> io::Result<Coded> {
        let symbol = self.source.next_symbol(vocab.unit())?;
        let (share, rest) = shares(symbol, distribution, vocab);
        self.encoder.encode(share);
        rest.into_iter().for_each(|rest| self.encoder.encode(rest));
        Ok(Coded { symbol, is_escaped: rest.is_some() })
    }

    fn num_left(&self) -> u64 {
        self.source.num_left
    }
}

/// From a file to the information in it, without coding it.
pub(super) struct Meter {
    source: Source,
    pub(super) bits: f64,
}

impl Meter {
    pub(super) fn open(path: &Path, part: Range<u64>) -> io::Result<Self> {
        Ok(Meter { source: Source::open(path, part)?, bits: 0.0 })
    }
}

impl Lane for Meter {
    fn code(&mut self, distribution: &Distribution<'_>, vocab: &Vocab) -> io::Result<Coded> {
        let symbol = self.source.next_symbol(vocab.unit())?;
        let (share, rest) = shares(symbol, distribution, vocab);
        let bits = |share: Share| (share.total as f64 / share.size as f64).log2();
        self.bits += bits(share) + rest.map_or(0.0, bits);
        Ok(Coded { symbol, is_escaped: rest.is_some() })
    }

    fn num_left(&self) -> u64 {
        self.source.num_left
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
    }

    /// Ends a round: the checksum of its bytes.
    pub(super) fn finish(&mut self) -> io::Result<u32> {
        self.file.flush()?;
        Ok(std::mem::take(&mut self.crc).finalize())
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
}
