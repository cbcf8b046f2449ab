//! A regular expression over a vocabulary's symbols: which symbols may come next, and when the text may end.
//!
//! Compiled once into an automaton whose alphabet is the vocabulary, so that a step of it is one look-up and what it
//! allows is one row of bits. Only states from which a text of an allowed length can still be completed are ever
//! entered: there are no dead ends. Knows nothing of sampling.

mod automaton;
mod compile;

use std::ops::RangeInclusive;

use automaton::Automaton;

use crate::error::RequestError;
use crate::vocab::Vocab;

/// The state before the first symbol.
pub const START: u32 = automaton::START;
/// Most room, in bits, for what is reachable at each length below the smallest.
const MAX_EARLY_BITS: usize = 1 << 24;

/// What texts look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern<'a> {
    /// The whole text matches. In a match, the text ends when a symbol is drawn that the expression forbids.
    Regex(&'a str),
    /// Bytes that are valid UTF-8; never ends a text.
    Utf8 {
        /// What may be drawn between two characters besides, to end the text.
        end: Option<u32>,
    },
}

/// A pattern and a range of lengths, ready to guide texts.
#[derive(Debug)]
pub struct Constraint {
    automaton: Automaton,
    /// Numbers of symbols a text may have.
    lengths: RangeInclusive<u32>,
    /// For each length below the smallest, a bit a state: whether an allowed length can be completed from it.
    early: Vec<Vec<u64>>,
    may_end: bool,
    fingerprint: u32,
    /// Of [`Pattern::Utf8`].
    end: Option<u32>,
}

impl Constraint {
    /// Compiles a pattern for texts of so many symbols, each one that `is_allowed` says may be drawn at all.
    ///
    /// # Errors
    /// The expression is no expression, needs too large an automaton, or no such text matches it.
    pub fn new(
        pattern: Pattern<'_>,
        vocab: &Vocab,
        is_allowed: impl Fn(u32) -> bool,
        lengths: RangeInclusive<u32>,
    ) -> Result<Self, RequestError> {
        let automaton = compile::compile(pattern, vocab, is_allowed)?;
        let early = early(&automaton, &lengths)?;
        let (may_end, end) = match pattern {
            Pattern::Regex(_) => (true, None),
            Pattern::Utf8 { end } => (false, end),
        };
        let fingerprint = automaton.fingerprint();
        let constraint = Constraint { automaton, lengths, early, may_end, fingerprint, end };
        let can_start = constraint.is_open(START, 0) && (may_end || !constraint.is_stuck(START, 0));
        match can_start {
            true => Ok(constraint),
            false => {
                let (min, max) = (*constraint.lengths.start(), *constraint.lengths.end());
                Err(RequestError::RegexUnmatchable { min, max })
            }
        }
    }

    /// Tells automata apart whose states mean different things.
    pub fn fingerprint(&self) -> u32 {
        self.fingerprint
    }

    /// Whether a text with `num_tokens` symbols can go on from `state`, or end there.
    pub fn may_go_on(&self, state: u32, num_tokens: u32) -> bool {
        state < self.automaton.num_states() && self.is_open(state, num_tokens)
    }

    /// Whether a text may end in `state` with `num_tokens` symbols.
    pub fn may_end(&self, state: u32, num_tokens: u32) -> bool {
        self.may_end && self.is_complete(state, num_tokens)
    }

    fn is_complete(&self, state: u32, num_tokens: u32) -> bool {
        self.lengths.contains(&num_tokens) && self.automaton.to_match(state) == 0
    }

    /// The state after `token`; none if the text must not go on with it.
    pub fn advance(&self, state: u32, num_tokens: u32, token: u32) -> Option<u32> {
        let next = self.automaton.next(state, token)?;
        self.is_open(next, num_tokens + 1).then_some(next)
    }

    /// The symbols that may follow `num_tokens` in `state`: bit `id % 64` of word `id / 64`. May use `scratch`.
    pub fn mask<'a>(&'a self, state: u32, num_tokens: u32, scratch: &'a mut Vec<u64>) -> &'a [u64] {
        let mask = self.automaton.mask(state);
        let end = self.end.filter(|_| self.is_complete(state, num_tokens));
        if end.is_none()
            && num_tokens >= *self.lengths.start()
            && self.left(num_tokens) > self.automaton.max_to_match()
        {
            return mask;
        }
        scratch.clear();
        scratch.extend_from_slice(mask);
        for (index, word) in scratch.iter_mut().enumerate() {
            let mut rest = *word;
            while rest != 0 {
                let bit = rest.trailing_zeros();
                rest &= rest - 1;
                if self.advance(state, num_tokens, index as u32 * 64 + bit).is_none() {
                    *word &= !(1 << bit);
                }
            }
        }
        if let Some(end) = end {
            scratch[end as usize / 64] |= 1 << (end % 64);
        }
        scratch
    }

    /// Whether nothing may follow a complete text.
    pub fn is_over(&self, state: u32, num_tokens: u32) -> bool {
        self.is_complete(state, num_tokens) && self.is_stuck(state, num_tokens)
    }

    fn is_stuck(&self, state: u32, num_tokens: u32) -> bool {
        self.mask(state, num_tokens, &mut Vec::new()).iter().all(|&word| word == 0)
    }

    fn left(&self, num_tokens: u32) -> u32 {
        self.lengths.end().saturating_sub(num_tokens)
    }

    /// Whether a text of an allowed length can be completed from `state` after `num_tokens`.
    fn is_open(&self, state: u32, num_tokens: u32) -> bool {
        match self.early.get(num_tokens as usize) {
            Some(states) => states[state as usize / 64] >> (state % 64) & 1 == 1,
            None => {
                num_tokens <= *self.lengths.end() && self.automaton.to_match(state) <= self.left(num_tokens)
            }
        }
    }
}

/// What `Constraint::early` holds, from the last length to the first: a state is open if one that follows it is.
fn early(automaton: &Automaton, lengths: &RangeInclusive<u32>) -> Result<Vec<Vec<u64>>, RequestError> {
    let (min, num_states) = (*lengths.start(), automaton.num_states());
    if (min as usize).saturating_mul(num_states as usize) > MAX_EARLY_BITS {
        return Err(RequestError::RegexTooLarge {
            what: format!("{num_states} states and min_tokens {min}"),
            limit: format!("{MAX_EARLY_BITS} for their product"),
        });
    }
    let room = lengths.end() - min;
    let mut following: Vec<bool> = (0..num_states).map(|state| automaton.to_match(state) <= room).collect();
    let mut early = vec![Vec::new(); min as usize];
    for states in early.iter_mut().rev() {
        let is_open = |state| automaton.successors(state).any(|next| following[next as usize]);
        following = (0..num_states).map(is_open).collect();
        *states = pack(&following);
    }
    Ok(early)
}

fn pack(bits: &[bool]) -> Vec<u64> {
    let word = |bits: &[bool]| bits.iter().rev().fold(0, |word, &bit| word << 1 | u64::from(bit));
    bits.chunks(64).map(word).collect()
}
