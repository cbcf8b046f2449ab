//! How likely the symbol just drawn was, and which were the most likely ones.

use std::cmp::Reverse;

use super::ln::ln;
use super::{kernel, Sampler};
use crate::params::{LogprobsMode, ValidSampling};

/// Natural logarithms of probabilities.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// Of the symbol drawn.
    pub token: f32,
    /// The most likely symbols with theirs, the likeliest first, the lowest id first among equals.
    pub top: Vec<(u32, f32)>,
}

impl Sampler {
    /// Log-probabilities of what `sample` has just drawn from `logits`, `(V,)`, if the parameters ask for them.
    pub fn logprobs(&mut self, logits: &[f32], params: &ValidSampling, token: u32) -> Option<Logprobs> {
        let num_top = params.logprobs()? as usize;
        if params.logprobs_mode() == LogprobsMode::Raw {
            self.weigh_raw(logits);
        } else {
            self.lengthen();
        }
        Some(Logprobs { token: self.logprob(token), top: self.top(num_top.min(self.vocab_size)) })
    }

    /// Weights of a row without NaN at temperature 1, whatever the rules say.
    pub(super) fn weigh_raw(&mut self, logits: &[f32]) {
        let best = kernel::logit(self.path.extremes(logits).1);
        self.shortlist.clear();
        self.total = self.path.weigh(logits, best, std::f64::consts::LOG2_E, &mut self.weights);
    }

    fn logprob(&self, token: u32) -> f32 {
        (ln(self.weights[token as usize]) - ln(self.total)) as f32
    }

    fn top(&mut self, num: usize) -> Vec<(u32, f32)> {
        if num == 0 {
            return Vec::new();
        }
        let weights = &self.weights[..self.vocab_size];
        self.ranked.clear();
        self.ranked.extend((0..).zip(weights).map(|(id, &weight)| (Reverse(weight), id)));
        if num < self.ranked.len() {
            self.ranked.select_nth_unstable(num - 1);
            self.ranked.truncate(num);
        }
        self.ranked.sort_unstable();
        self.ranked.iter().map(|&(_, id)| (id, self.logprob(id))).collect()
    }
}
