//! From one row of logits to one symbol, by integer arithmetic that no vector width or thread count can change.
//!
//! Knows nothing of models or streams: the random bits are a function of (seed, position, stream).
//! Order: row check, temperature, top_k, top_p, min_p, draw. Holds its scratch memory, so a draw allocates nothing.

mod exp;
mod filter;
mod kernel;
mod path;

use std::f64::consts::LOG2_E;

pub use path::Path;

use crate::philox::{uniform64, PURPOSE_SAMPLE};
use crate::request::ValidSampling;

/// What a row of logits gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// The symbol drawn.
    Token(u32),
    /// The row holds NaN.
    InvalidLogits,
    /// Every symbol is excluded: the row is all minus infinity.
    NoCandidates,
}

/// Draws symbols of one vocabulary.
#[derive(Clone, Debug)]
pub struct Sampler {
    path: Path,
    vocab_size: usize,
    /// `(V,)`, padded with zeros to whole blocks.
    weights: Vec<u64>,
    /// Room for `V`.
    ranked: Vec<filter::Ranked>,
}

impl Sampler {
    /// A sampler for rows of `vocab_size` logits, on the fastest instructions this CPU has.
    pub fn new(vocab_size: usize) -> Self {
        Self::with_path(vocab_size, Path::fastest())
    }

    /// The same on chosen instructions, which do not change what is drawn.
    pub fn with_path(vocab_size: usize, path: Path) -> Self {
        let weights = vec![0; vocab_size.next_multiple_of(kernel::BLOCK)];
        Sampler { path, vocab_size, weights, ranked: Vec::with_capacity(vocab_size) }
    }

    /// Number of symbols, `V`.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Draws the symbol at `position` of a text from `logits`, `(V,)`.
    ///
    /// `stream` tells the samples of one prompt apart. The length of `logits` must be the vocabulary's.
    pub fn sample(&mut self, logits: &[f32], params: &ValidSampling, position: u64, stream: u32) -> Draw {
        assert_eq!(logits.len(), self.vocab_size, "a row has one logit a symbol");
        let range = self.path.extremes(logits);
        if range.0 < kernel::key(f32::NEG_INFINITY) || range.1 > kernel::key(f32::INFINITY) {
            return Draw::InvalidLogits;
        }
        let best = kernel::logit(range.1);
        if best == f32::NEG_INFINITY {
            return Draw::NoCandidates;
        }
        if params.temperature() == 0.0 {
            let token = logits.iter().position(|&logit| logit == best).unwrap_or(0);
            return Draw::Token(token as u32);
        }
        let total = self.weigh(logits, range, params);
        let bits = uniform64(params.seed(), position, stream, PURPOSE_SAMPLE);
        Draw::Token(self.path.locate(&self.weights, multiply_high(bits, total)) as u32)
    }

    /// Fills the weights of all symbols that the filters leave; returns their sum.
    ///
    /// The weight of the best is never filtered away, so the sum is positive.
    fn weigh(&mut self, logits: &[f32], range: (i32, i32), params: &ValidSampling) -> u64 {
        let (path, weights) = (self.path, self.weights.as_mut_slice());
        let mut total = match kernel::logit(range.1) {
            f32::INFINITY => path.fill_infinite(logits, weights),
            best => path.fill(logits, best, per_unit(params.temperature()), weights),
        };
        if 0 < params.top_k() && (params.top_k() as usize) < logits.len() {
            total = filter::top_k(path, weights, logits, params.top_k(), range);
        }
        if params.top_p() < 1.0 {
            total = filter::top_p(path, weights, total, params.top_p(), &mut self.ranked);
        }
        if params.min_p() > 0.0 {
            total = filter::min_p(path, weights, params.min_p());
        }
        total
    }
}

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
