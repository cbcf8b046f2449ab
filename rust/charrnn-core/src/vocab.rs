//! Text to token ids and back, for characters (Unicode code points) and bytes.
//!
//! Knows nothing of models. A symbol is a code point or a byte; a token id is its index.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// Most symbols a vocabulary may hold.
pub const MAX_VOCAB: usize = 65_536;
/// Code points below this are looked up in a table, the rest in a map: most text is in the table.
const TABLE_LEN: usize = 0x3000;
const ABSENT: u32 = u32::MAX;

/// What one symbol stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// A Unicode code point.
    Char,
    /// A byte.
    Byte,
}

/// Why a list of symbols is not a vocabulary.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VocabError {
    /// No symbols.
    #[error("vocabulary is empty; it needs at least one symbol")]
    Empty,
    /// Too many symbols.
    #[error("vocabulary has {0} symbols, the limit is {MAX_VOCAB}; use --unit byte for such a text")]
    TooLarge(usize),
    /// Not a code point (or byte).
    #[error("vocabulary symbol {index} is {symbol:#x}, which is not a {}", unit_noun(*unit))]
    NotASymbol {
        /// Its index.
        index: usize,
        /// Its value.
        symbol: u32,
        /// The vocabulary's unit.
        unit: Unit,
    },
    /// The same symbol twice.
    #[error("vocabulary symbol {} stands at index {first} and again at {second}", describe(*symbol, *unit))]
    Duplicate {
        /// The symbol.
        symbol: u32,
        /// Index of the first.
        first: usize,
        /// Index of the second.
        second: usize,
        /// The vocabulary's unit.
        unit: Unit,
    },
}

/// A text holds a symbol that the vocabulary does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} at position {position} is not in the model's vocabulary", describe(*symbol, *unit))]
pub struct UnknownSymbol {
    /// The code point or byte.
    pub symbol: u32,
    /// How many symbols stand before it.
    pub position: usize,
    /// The vocabulary's unit.
    pub unit: Unit,
}

fn unit_noun(unit: Unit) -> &'static str {
    match unit {
        Unit::Char => "Unicode character",
        Unit::Byte => "byte",
    }
}

/// Names one symbol so that it can be read on any terminal: `character 'é' (U+00E9)`, `byte 0xff`.
pub fn describe(symbol: u32, unit: Unit) -> String {
    match (unit, char::from_u32(symbol)) {
        (Unit::Char, Some(c)) => format!("character '{}' (U+{symbol:04X})", c.escape_debug()),
        (Unit::Char, None) => format!("character U+{symbol:04X}"),
        (Unit::Byte, _) => format!("byte {symbol:#04x}"),
    }
}

/// The symbols a model knows, in order of their token ids.
#[derive(Clone, Debug)]
pub struct Vocab {
    unit: Unit,
    symbols: Vec<u32>,
    table: Vec<u32>,
    rest: HashMap<u32, u32>,
}

impl PartialEq for Vocab {
    fn eq(&self, other: &Self) -> bool {
        self.unit == other.unit && self.symbols == other.symbols
    }
}

impl Vocab {
    /// Checks the symbols and indexes them.
    pub fn new(unit: Unit, symbols: Vec<u32>) -> Result<Self, VocabError> {
        match symbols.len() {
            0 => return Err(VocabError::Empty),
            n if n > MAX_VOCAB => return Err(VocabError::TooLarge(n)),
            _ => {}
        }
        let mut vocab =
            Vocab { unit, symbols: Vec::new(), table: vec![ABSENT; TABLE_LEN], rest: HashMap::new() };
        for (index, &symbol) in symbols.iter().enumerate() {
            vocab.check(index, symbol)?;
            match vocab.table.get_mut(symbol as usize) {
                Some(entry) => *entry = index as u32,
                None => drop(vocab.rest.insert(symbol, index as u32)),
            }
        }
        vocab.symbols = symbols;
        Ok(vocab)
    }

    fn check(&self, index: usize, symbol: u32) -> Result<(), VocabError> {
        let unit = self.unit;
        let is_symbol = match unit {
            Unit::Char => char::from_u32(symbol).is_some(),
            Unit::Byte => symbol < 256,
        };
        if !is_symbol {
            return Err(VocabError::NotASymbol { index, symbol, unit });
        }
        match self.token_id(symbol) {
            Some(first) => Err(VocabError::Duplicate { symbol, first: first as usize, second: index, unit }),
            None => Ok(()),
        }
    }

    /// Number of symbols, `V`.
    pub fn size(&self) -> usize {
        self.symbols.len()
    }

    /// What a symbol stands for.
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// The symbols in order of their token ids.
    pub fn symbols(&self) -> &[u32] {
        &self.symbols
    }

    /// The symbol of a token id, which must be below `size()`.
    pub fn symbol(&self, token_id: u32) -> u32 {
        self.symbols[token_id as usize]
    }

    /// The token id of a symbol.
    pub fn token_id(&self, symbol: u32) -> Option<u32> {
        match self.table.get(symbol as usize) {
            Some(&ABSENT) => None,
            Some(&token_id) => Some(token_id),
            None => self.rest.get(&symbol).copied(),
        }
    }

    /// Token ids of a text: one a code point, or one a byte of its UTF-8.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, UnknownSymbol> {
        match self.unit {
            Unit::Char => self.encode_symbols(text.chars().map(u32::from)),
            Unit::Byte => self.encode_symbols(text.bytes().map(u32::from)),
        }
    }

    /// Token ids of raw bytes, for byte vocabularies.
    pub fn encode_bytes(&self, bytes: &[u8]) -> Result<Vec<u32>, UnknownSymbol> {
        self.encode_symbols(bytes.iter().map(|&byte| u32::from(byte)))
    }

    fn encode_symbols(&self, symbols: impl Iterator<Item = u32>) -> Result<Vec<u32>, UnknownSymbol> {
        let unknown = |symbol, position| UnknownSymbol { symbol, position, unit: self.unit };
        symbols
            .enumerate()
            .map(|(position, symbol)| self.token_id(symbol).ok_or(unknown(symbol, position)))
            .collect()
    }

    /// The text of token ids, each below `size()`. Bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, token_ids: &[u32]) -> String {
        let mut text = String::with_capacity(token_ids.len());
        let mut decoder = Decoder::new(self.unit);
        for &token_id in token_ids {
            decoder.push(self.symbol(token_id), &mut text);
        }
        decoder.finish(&mut text);
        text
    }
}

/// Symbols to text as they come: an unfinished code point of a byte vocabulary is held back.
#[derive(Clone, Debug)]
pub struct Decoder {
    unit: Unit,
    /// The bytes of a code point whose end has not come yet: at most 3.
    partial: Vec<u8>,
}

impl Decoder {
    /// Starts between two characters.
    pub fn new(unit: Unit) -> Self {
        Decoder { unit, partial: Vec::new() }
    }

    /// Goes on after the bytes that another `partial` told.
    pub fn resume(unit: Unit, partial: Vec<u8>) -> Self {
        Decoder { unit, partial }
    }

    /// The bytes of a character that is not complete.
    pub fn partial(&self) -> &[u8] {
        &self.partial
    }

    /// Appends to `out` the characters that `symbol` completes.
    pub fn push(&mut self, symbol: u32, out: &mut String) {
        match self.unit {
            Unit::Char => out.push(char::from_u32(symbol).unwrap_or(char::REPLACEMENT_CHARACTER)),
            Unit::Byte => {
                self.partial.push(symbol as u8);
                self.drain(out);
            }
        }
    }

    /// Moves whole characters, and one U+FFFD for each invalid sequence, from `partial` to `out`.
    fn drain(&mut self, out: &mut String) {
        while !self.partial.is_empty() {
            match std::str::from_utf8(&self.partial) {
                Ok(text) => {
                    out.push_str(text);
                    self.partial.clear();
                }
                // No error length: the bytes so far may yet become a character.
                Err(error) => match error.error_len() {
                    None => return,
                    Some(len) => {
                        out.push(char::REPLACEMENT_CHARACTER);
                        self.partial.drain(..len);
                    }
                },
            }
        }
    }

    /// The end: an unfinished code point becomes U+FFFD.
    pub fn finish(&mut self, out: &mut String) {
        if !self.partial.is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
            self.partial.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vocab_of(text: &str) -> Vocab {
        let mut symbols: Vec<u32> = text.chars().map(u32::from).collect();
        symbols.sort_unstable();
        symbols.dedup();
        Vocab::new(Unit::Char, symbols).expect("symbols are sorted and distinct")
    }

    fn all_bytes() -> Vocab {
        Vocab::new(Unit::Byte, (0..256).collect()).expect("all bytes")
    }

    #[test]
    fn an_unknown_character_is_named_with_its_position() {
        let error = vocab_of("abc").encode("abé").expect_err("é is unknown");
        assert_eq!(
            error.to_string(),
            "character 'é' (U+00E9) at position 2 is not in the model's vocabulary"
        );
    }

    #[test]
    fn bad_symbol_lists_are_refused() {
        assert_eq!(Vocab::new(Unit::Char, vec![]), Err(VocabError::Empty));
        let surrogate = Vocab::new(Unit::Char, vec![97, 0xD800]);
        assert_eq!(surrogate, Err(VocabError::NotASymbol { index: 1, symbol: 0xD800, unit: Unit::Char }));
        let wide_byte = Vocab::new(Unit::Byte, vec![256]);
        assert_eq!(wide_byte, Err(VocabError::NotASymbol { index: 0, symbol: 256, unit: Unit::Byte }));
        for symbol in [97, 0x1F600] {
            let twice = Vocab::new(Unit::Char, vec![symbol, 98, symbol]);
            assert_eq!(twice, Err(VocabError::Duplicate { symbol, first: 0, second: 2, unit: Unit::Char }));
        }
        let many = Vocab::new(Unit::Char, (0x10000..0x20001).collect());
        assert_eq!(many, Err(VocabError::TooLarge(65_537)));
    }

    #[test]
    fn a_partial_code_point_is_held_back() {
        let mut decoder = Decoder::new(Unit::Byte);
        let mut out = String::new();
        let mut seen = Vec::new();
        for byte in "é€".bytes() {
            decoder.push(u32::from(byte), &mut out);
            seen.push(out.chars().count());
        }
        assert_eq!((seen, out.as_str()), (vec![0, 1, 1, 1, 2], "é€"));
    }

    proptest! {
        #[test]
        fn decode_undoes_encode(text in "\\PC{1,40}") {
            let vocab = vocab_of(&text);
            prop_assert_eq!(vocab.decode(&vocab.encode(&text).expect("own text")), text.clone());
            let bytes = all_bytes();
            prop_assert_eq!(bytes.decode(&bytes.encode(&text).expect("all bytes")), text);
        }

        #[test]
        fn any_bytes_decode_as_the_standard_library_does(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let vocab = all_bytes();
            let decoded = vocab.decode(&vocab.encode_bytes(&bytes).expect("all bytes"));
            prop_assert_eq!(decoded, String::from_utf8_lossy(&bytes));
        }
    }
}
