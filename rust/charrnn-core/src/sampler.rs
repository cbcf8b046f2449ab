//! From one row of logits to one symbol, by integer arithmetic that no vector width or thread count can change.
//!
//! Knows nothing of models or streams: the random bits are a function of (seed, position, stream).
//! Order: row check, bias and masks, penalties, temperature, top_k, top_p, min_p, typical_p, draw. Holds its scratch
//! memory, so a draw allocates nothing.

mod adjust;
mod distribution;
mod exp;
mod filter;
mod kernel;
mod ln;
mod logprobs;
mod path;
mod simd;
mod top_k;
mod top_p;

use std::f64::consts::{LN_2, LOG2_E};

pub use distribution::Distribution;
pub use logprobs::Logprobs;
pub use path::Path;

use crate::params::ValidSampling;
use crate::philox::{uniform64, PURPOSE_SAMPLE};

/// What a row of logits gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// The symbol drawn.
    Token(u32),
    /// The row holds NaN.
    InvalidLogits,
    /// Every symbol is excluded.
    NoCandidates,
}

/// Which random bits a draw takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Of the request.
    pub seed: u64,
    /// Symbols drawn before in the same text.
    pub position: u64,
    /// Tells the samples of one prompt apart.
    pub stream: u32,
}

/// What the text so far says of the next symbol.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// The symbols drawn so far, at least the last `ValidSampling::history_len` of them.
    pub history: &'a [u32],
    /// A bit a symbol that may follow, 64 a word; none allows all.
    pub mask: Option<&'a [u64]>,
}

/// Draws symbols of one vocabulary.
#[derive(Clone, Debug)]
pub struct Sampler {
    path: Path,
    vocab_size: usize,
    /// `(V,)`, padded with zeros to whole blocks and one more: what each symbol weighed in the last draw. While there is a
    /// shortlist, `(its length,)`, with a block of zeros behind: what each symbol on it weighed.
    weights: Vec<u64>,
    /// The sum of the weights.
    total: u64,
    adjusted: adjust::Adjusted,
    /// Room for `V`.
    ranked: Vec<filter::Ranked>,
    /// What top_k left; empty if all symbols are weighed.
    shortlist: top_k::Shortlist,
}

impl Sampler {
    /// A sampler for rows of `vocab_size` logits, on the fastest instructions this CPU has.
    pub fn new(vocab_size: usize) -> Self {
        Self::with_path(vocab_size, Path::fastest())
    }

    /// The same on chosen instructions, which do not change what is drawn.
    pub fn with_path(vocab_size: usize, path: Path) -> Self {
        Sampler {
            path,
            vocab_size,
            weights: vec![0; vocab_size.next_multiple_of(kernel::BLOCK) + kernel::BLOCK],
            total: 0,
            adjusted: adjust::Adjusted::new(vocab_size),
            ranked: Vec::with_capacity(vocab_size),
            shortlist: top_k::Shortlist::new(vocab_size),
        }
    }

    /// Number of symbols, `V`.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Draws the symbol at a place from `logits`, `(V,)`; their number must be the vocabulary's.
    pub fn sample(
        &mut self,
        logits: &[f32],
        params: &ValidSampling,
        place: Place,
        context: Context<'_>,
    ) -> Draw {
        assert_eq!(logits.len(), self.vocab_size, "a row has one logit a symbol");
        let range = self.path.extremes(logits);
        if range.0 < kernel::key(f32::NEG_INFINITY) || range.1 > kernel::key(f32::INFINITY) {
            return Draw::InvalidLogits;
        }
        if !adjust::is_needed(params, &context) {
            return self.draw(logits, range, params, place);
        }
        let mut adjusted = std::mem::take(&mut self.adjusted);
        let logits = adjusted.fill(logits, params, &context);
        let draw = self.draw(logits, self.path.extremes(logits), params, place);
        self.adjusted = adjusted;
        draw
    }

    /// Draws from logits without NaN whose keys are in `range`.
    fn draw(&mut self, logits: &[f32], range: (i32, i32), params: &ValidSampling, place: Place) -> Draw {
        self.shortlist.clear();
        let best = kernel::logit(range.1);
        if best == f32::NEG_INFINITY {
            return Draw::NoCandidates;
        }
        if params.temperature() == 0.0 {
            let token = logits.iter().position(|&logit| logit == best).unwrap_or(0);
            self.weigh_only(token);
            return Draw::Token(token as u32);
        }
        self.total = self.weigh(logits, range, params);
        let bits = uniform64(place.seed, place.position, place.stream, PURPOSE_SAMPLE);
        let index = self.path.locate(&self.weights, multiply_high(bits, self.total));
        Draw::Token(if self.shortlist.is_empty() { index as u32 } else { self.shortlist.ids()[index] })
    }

    fn weigh_only(&mut self, token: usize) {
        self.weights.fill(0);
        self.weights[token] = exp::ONE;
        self.total = exp::ONE;
    }

    /// Fills the weights of all symbols that the filters leave; returns their sum.
    ///
    /// The weight of the best is never filtered away, so the sum is positive.
    fn weigh(&mut self, logits: &[f32], range: (i32, i32), params: &ValidSampling) -> u64 {
        if 0 < params.top_k() && (params.top_k() as usize) < logits.len() {
            self.shorten(logits, range, params);
        }
        let Sampler { path, weights, shortlist, ranked, .. } = self;
        let logits = if shortlist.is_empty() { logits } else { shortlist.logits() };
        let weights = &mut weights[..logits.len().next_multiple_of(simd::WIDE_LANES)];
        let (best, scale) = (kernel::logit(range.1), per_unit(params.temperature()));
        let mut total = path.weigh(logits, best, scale, weights);
        if params.top_p() < 1.0 {
            total = path.keep_top_p(weights, total, params.top_p());
        }
        if params.min_p() > 0.0 {
            total = filter::min_p(*path, weights, params.min_p());
        }
        if params.typical_p() < 1.0 {
            let surprise = filter::Surprise { logits, best, scale };
            total = filter::typical_p(weights, total, params.typical_p(), surprise, ranked);
        }
        total
    }

    /// Lists the most likely symbols: from here on weights are theirs alone.
    fn shorten(&mut self, logits: &[f32], range: (i32, i32), params: &ValidSampling) {
        // Logits below this weigh nothing; many may be minus infinity.
        let least = f64::from(kernel::logit(range.1)) - LEAST_NATS * params.temperature();
        let range = (range.0.max(kernel::key(least as f32)), range.1);
        self.path.shortlist(logits, params.top_k(), range, &mut self.shortlist);
        let len = self.shortlist.ids().len();
        self.weights[len..len + kernel::BLOCK].fill(0);
    }

    /// Makes the weights those of all symbols again.
    fn lengthen(&mut self) {
        if self.shortlist.is_empty() {
            return;
        }
        let ids = self.shortlist.ids();
        self.weights[ids.len()..].fill(0);
        // From the last on, for an id is never below its place in the list.
        for (index, &id) in ids.iter().enumerate().rev() {
            let weight = std::mem::take(&mut self.weights[index]);
            self.weights[id as usize] = weight;
        }
        self.shortlist.clear();
    }
}

/// What is so much less likely than the best at temperature 1 weighs nothing, with room for rounding.
const LEAST_NATS: f64 = 48.0 * LN_2;

/// Powers of two that a logit is worth at a temperature; finite, so that 0 times it is 0.
fn per_unit(temperature: f64) -> f64 {
    (LOG2_E / temperature).min(f64::MAX)
}

/// The upper 64 bits of the product: a uniform number below `total`.
fn multiply_high(bits: u64, total: u64) -> u64 {
    ((u128::from(bits) * u128::from(total)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_random_bits_fall_below_the_sum() {
        assert_eq!(
            (multiply_high(0, 5), multiply_high(u64::MAX / 5 + 1, 5), multiply_high(u64::MAX, 5)),
            (0, 1, 4)
        );
    }
}
