//! From drawn symbols to pieces of text: withholds what may become a stop string, decodes the rest, counts it.
//!
//! Knows nothing of sinks or clocks: when a piece is handed over is the stream's business.

use std::collections::VecDeque;

use crate::event::{Chunk, Symbols};
use crate::request::Told;
use crate::snapshot::SavedText;
use crate::stop::{self, StopSet};
use crate::vocab::{Decoder, Unit, Vocab};

use super::drawn::Measured;

/// The text of one stream between the sampler and its next chunk.
#[derive(Debug)]
pub(crate) struct TextBuffer {
    decoder: Decoder,
    stop_state: u32,
    /// Symbols that are the beginning of a stop string, if it goes on like that.
    held: VecDeque<u32>,
    text: String,
    num_chars: u32,
    /// Characters of the chunks taken so far.
    num_taken: u64,
    /// Characters of an echoed prompt, or of the text before it went on.
    num_before: u64,
    told: Told,
    /// Those of no chunk so far, also what is withheld; empty if nothing is told of them.
    symbols: Symbols,
}

impl TextBuffer {
    pub(crate) fn new(unit: Unit, told: Told) -> Self {
        TextBuffer {
            decoder: Decoder::new(unit),
            stop_state: stop::START,
            held: VecDeque::new(),
            text: String::new(),
            num_chars: 0,
            num_taken: 0,
            num_before: 0,
            told,
            symbols: Symbols::default(),
        }
    }

    /// The text of a stream that goes on.
    pub(crate) fn resume(vocab: &Vocab, told: Told, saved: &SavedText, stop: &StopSet) -> Self {
        let mut text = TextBuffer {
            decoder: Decoder::resume(vocab.unit(), saved.partial.clone()),
            stop_state: saved.stop_state(stop),
            held: saved.held.iter().copied().collect(),
            num_taken: saved.num_chars,
            num_before: saved.num_chars,
            ..TextBuffer::new(vocab.unit(), told)
        };
        let partial = saved.partial.iter().filter_map(|&byte| vocab.token_id(u32::from(byte)));
        for token in partial.chain(saved.held.iter().copied()) {
            text.note(token, &Measured::unknown(token, told));
        }
        text
    }

    /// What is not text yet.
    pub(crate) fn save(&self) -> SavedText {
        SavedText {
            held: self.held.iter().copied().collect(),
            partial: self.decoder.partial().to_vec(),
            num_chars: self.num_taken + u64::from(self.num_chars),
        }
    }

    /// Notes what is told of the symbol that comes next.
    pub(crate) fn note(&mut self, token: u32, measured: &Measured) {
        measured.record(token, self.told, &mut self.symbols);
    }

    /// Appends a symbol of the prompt, in which stop strings mean nothing.
    pub(crate) fn echo(&mut self, token: u32, vocab: &Vocab) {
        self.decode(token, vocab);
    }

    /// The prompt is complete: what follows begins with a character of its own.
    pub(crate) fn finish_echo(&mut self) {
        self.finish_decoding();
        self.num_before = self.num_taken + u64::from(self.num_chars);
    }

    /// Appends a drawn symbol. Says which stop string it completes, if one and if it may; then only `finish` may follow.
    pub(crate) fn push(
        &mut self,
        token: u32,
        stop: &StopSet,
        may_stop: bool,
        vocab: &Vocab,
    ) -> Option<usize> {
        if stop.is_empty() {
            self.decode(token, vocab);
            return None;
        }
        let step = stop.advance(self.stop_state, token);
        self.stop_state = step.state;
        self.held.push_back(token);
        let matched = step.matched.filter(|_| may_stop);
        if matched.is_none() {
            self.release_all_but(stop.held(step.state), vocab);
        }
        matched
    }

    /// The text is complete: the last `num_cut` symbols are no part of it, all others withheld are.
    pub(crate) fn finish(&mut self, num_cut: usize, vocab: &Vocab) {
        self.release_all_but(num_cut, vocab);
        self.finish_decoding();
    }

    fn release_all_but(&mut self, num_kept: usize, vocab: &Vocab) {
        while self.held.len() > num_kept {
            if let Some(token) = self.held.pop_front() {
                self.decode(token, vocab);
            }
        }
    }

    fn decode(&mut self, token: u32, vocab: &Vocab) {
        let start = self.text.len();
        self.decoder.push(vocab.symbol(token), &mut self.text);
        self.count_from(start);
    }

    fn finish_decoding(&mut self) {
        let start = self.text.len();
        self.decoder.finish(&mut self.text);
        self.count_from(start);
    }

    fn count_from(&mut self, start: usize) {
        self.num_chars += self.text[start..].chars().count() as u32;
    }

    /// Characters ready for the next chunk.
    pub(crate) fn num_chars(&self) -> u32 {
        self.num_chars
    }

    /// Characters of the chunks taken so far.
    pub(crate) fn num_taken(&self) -> u64 {
        self.num_taken
    }

    /// Characters before the first that is drawn here, once they are complete.
    pub(crate) fn num_before(&self) -> u64 {
        self.num_before
    }

    /// Takes what is ready as a chunk, if anything is, and makes room for `next_chars` ASCII characters.
    pub(crate) fn take(&mut self, next_chars: u32) -> Option<Chunk> {
        if self.num_chars == 0 {
            return None;
        }
        let text = std::mem::replace(&mut self.text, String::with_capacity(next_chars as usize));
        let num_chars = std::mem::take(&mut self.num_chars);
        let offset = self.num_taken;
        self.num_taken += u64::from(num_chars);
        Some(Chunk { text, num_chars, offset, symbols: self.take_symbols() })
    }

    /// Those of the characters that are ready.
    fn take_symbols(&mut self) -> Option<Box<Symbols>> {
        if self.told == Told::Nothing {
            return None;
        }
        let num = self.symbols.ids.len() - self.held.len() - self.decoder.partial().len();
        Some(Box::new(self.symbols.take(num)))
    }
}
