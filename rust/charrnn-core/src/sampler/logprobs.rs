//! How likely the symbol just drawn was, and which were the most likely ones.

use std::cmp::Reverse;
use std::f64::consts::LOG2_E;

use super::filter::Ranked;
use super::ln::ln;
use super::{exp, kernel, Sampler};
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
        let mut top = Vec::new();
        let token = match params.logprobs_mode() {
            LogprobsMode::Raw => self.measure(logits, token, num_top, &mut top)?,
            LogprobsMode::Processed => self.measure_drawn(token, num_top, &mut top),
        };
        Some(Logprobs { token: token as f32, top })
    }

    /// `ln p` of a symbol in the model's own distribution, at temperature 1 before any rule; `top` becomes the `num_top`
    /// most likely symbols with theirs. None if a logit is NaN or all are minus infinity.
    ///
    /// The sum is that of the integer weights, the symbol's own part comes from its logit: what weighs nothing is
    /// unlikely and not impossible.
    pub fn measure(
        &mut self,
        logits: &[f32],
        token: u32,
        num_top: usize,
        top: &mut Vec<(u32, f32)>,
    ) -> Option<f64> {
        let best = self.weigh_raw(logits)?;
        let ln_total = ln(self.total) - ln(exp::ONE);
        let logprob = |logit: f32| match logit == best {
            true => -ln_total,
            false => f64::from(logit) - f64::from(best) - ln_total,
        };
        rank(&mut self.ranked, num_top, logits.iter().map(|&logit| rising(kernel::key(logit))));
        top.clear();
        top.extend(self.ranked.iter().map(|&(_, id)| (id, logprob(logits[id as usize]) as f32)));
        Some(logprob(logits[token as usize]))
    }

    /// The same in the distribution drawn from last.
    fn measure_drawn(&mut self, token: u32, num_top: usize, top: &mut Vec<(u32, f32)>) -> f64 {
        self.lengthen();
        let weights = &self.weights[..self.vocab_size];
        rank(&mut self.ranked, num_top, weights.iter().copied());
        let logprob = |id: u32| ln(weights[id as usize]) - ln(self.total);
        top.extend(self.ranked.iter().map(|&(_, id)| (id, logprob(id) as f32)));
        logprob(token)
    }

    /// Weights of a row at temperature 1, whatever the rules say, and its best logit; none if a logit is NaN or all are
    /// minus infinity.
    pub(super) fn weigh_raw(&mut self, logits: &[f32]) -> Option<f32> {
        assert_eq!(logits.len(), self.vocab_size, "a row has one logit a symbol");
        let (least, most) = self.path.extremes(logits);
        let numbers = kernel::key(f32::NEG_INFINITY)..=kernel::key(f32::INFINITY);
        if !numbers.contains(&least) || !numbers.contains(&most) || most == *numbers.start() {
            return None;
        }
        let best = kernel::logit(most);
        self.shortlist.clear();
        self.total = self.path.weigh(logits, best, LOG2_E, &mut self.weights);
        Some(best)
    }
}

/// Fills `ranked` with the `num` largest of `values`, largest first, lowest id first among equals.
fn rank(ranked: &mut Vec<Ranked>, num: usize, values: impl Iterator<Item = u64>) {
    ranked.clear();
    if num == 0 {
        return;
    }
    ranked.extend((0..).zip(values).map(|(id, value)| (Reverse(value), id)));
    if num < ranked.len() {
        ranked.select_nth_unstable(num - 1);
        ranked.truncate(num);
    }
    ranked.sort_unstable();
}

/// The same order among unsigned numbers.
fn rising(key: i32) -> u64 {
    u64::from(key as u32 ^ 1 << 31)
}
