//! The weights of a row as they are, for coding: what `sample` draws from at temperature 1 without any rule.

use super::{Path, Sampler};
use crate::coding::Share;

/// A row's weights and their sum.
#[derive(Clone, Copy, Debug)]
pub struct Distribution<'a> {
    path: Path,
    /// `(V,)`, padded with zeros.
    weights: &'a [u64],
    total: u64,
}

impl Sampler {
    /// The weights of `logits`, `(V,)`; none if a logit is NaN or all are minus infinity.
    pub fn distribution(&mut self, logits: &[f32]) -> Option<Distribution<'_>> {
        self.weigh_raw(logits)?;
        Some(Distribution { path: self.path, weights: &self.weights, total: self.total })
    }
}

impl Distribution<'_> {
    /// The sum of the weights, at most 2^63.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The share of a symbol; none if it weighs nothing.
    pub fn share(&self, token: u32) -> Option<Share> {
        let (before, from) = self.weights.split_at(token as usize);
        let share = Share { start: before.iter().sum(), size: from[0], total: self.total };
        (share.size > 0).then_some(share)
    }

    /// The symbol in whose share `target`, below the sum, lies.
    pub fn symbol_at(&self, target: u64) -> u32 {
        self.path.locate(self.weights, target) as u32
    }
}
