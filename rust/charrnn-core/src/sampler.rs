//! From one row of logits to one symbol, by integer arithmetic that no vector width or thread count can change.
//!
//! Knows nothing of models or streams: the random bits are a function of (seed, position, stream).
//! Order: row check, temperature, top_k, top_p, min_p, draw. Holds its scratch memory, so a draw allocates nothing.

mod filter;
mod weights;

pub use weights::Path;

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
    weights: Vec<u64>,
    order: Vec<u32>,
}

impl Sampler {
    /// A sampler for rows of `vocab_size` logits, on the fastest instructions this CPU has.
    pub fn new(vocab_size: usize) -> Self {
        Self::with_path(vocab_size, Path::fastest())
    }

    /// The same on chosen instructions, which do not change what is drawn.
    pub fn with_path(vocab_size: usize, path: Path) -> Self {
        Sampler { path, weights: vec![0; vocab_size], order: Vec::with_capacity(vocab_size) }
    }

    /// Number of symbols, `V`.
    pub fn vocab_size(&self) -> usize {
        self.weights.len()
    }

    /// Draws the symbol at `position` of a text from `logits`, `(V,)`.
    ///
    /// `stream` tells the samples of one prompt apart. The length of `logits` must be the vocabulary's.
    pub fn sample(&mut self, logits: &[f32], params: &ValidSampling, position: u64, stream: u32) -> Draw {
        assert_eq!(logits.len(), self.vocab_size(), "a row has one logit a symbol");
        let best = match self.path.check(logits) {
            best if best.is_nan() => return Draw::InvalidLogits,
            f32::NEG_INFINITY => return Draw::NoCandidates,
            best => best,
        };
        if params.temperature() == 0.0 {
            let token = logits.iter().position(|&logit| logit == best).unwrap_or(0);
            return Draw::Token(token as u32);
        }
        let total = self.weigh(logits, best, params);
        let bits = uniform64(params.seed(), position, stream, PURPOSE_SAMPLE);
        Draw::Token(self.pick(multiply_high(bits, total)))
    }

    /// Fills the weights of all symbols that the filters leave; returns their sum.
    fn weigh(&mut self, logits: &[f32], best: f32, params: &ValidSampling) -> u64 {
        let mut total = self.path.fill(logits, best, params.temperature(), &mut self.weights);
        let top_k = params.top_k() as usize;
        if 0 < top_k && top_k < logits.len() {
            total = filter::top_k(&mut self.weights, logits, top_k, &mut self.order);
        }
        if params.top_p() < 1.0 {
            total = filter::top_p(&mut self.weights, total, params.top_p(), &mut self.order);
        }
        if params.min_p() > 0.0 {
            total = filter::min_p(&mut self.weights, params.min_p());
        }
        total
    }

    /// The symbol whose share of the cumulative sum holds `target`, which is below the sum.
    fn pick(&self, mut target: u64) -> u32 {
        for (token, &weight) in self.weights.iter().enumerate() {
            if target < weight {
                return token as u32;
            }
            target -= weight;
        }
        unreachable!("the target is below the sum of the weights")
    }
}

/// The upper 64 bits of the product: a uniform number below `total`.
fn multiply_high(bits: u64, total: u64) -> u64 {
    ((u128::from(bits) * u128::from(total)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_below_the_sum_falls_on_its_symbol_and_none_on_a_weightless_one() {
        let sampler = Sampler { weights: vec![0, 3, 0, 2, 0], ..Sampler::new(5) };
        let picked: Vec<u32> = (0..5).map(|target| sampler.pick(target)).collect();
        assert_eq!(picked, [1, 1, 1, 3, 3]);
        assert_eq!((multiply_high(0, 5), multiply_high(u64::MAX, 5)), (0, 4));
    }
}
