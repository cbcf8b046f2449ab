//! min_p and typical_p over integer weights, without sorting them all. Each returns the new sum.

use std::cmp::Reverse;

use super::exp::ONE;
use super::path::Path;
use super::top_p::wanted;

/// A number with an id, largest first, lowest id first among equals.
pub(super) type Ranked = (Reverse<u64>, u32);

/// Keeps what weighs at least `p` of the largest, which is always `ONE`.
pub(super) fn min_p(path: Path, weights: &mut [u64], p: f64) -> u64 {
    path.keep_heavy(weights, (p * ONE as f64).ceil() as u64, u32::MAX)
}

/// How surprising each symbol is, in bits: `log2(total) - y`, with y what its weight is two to the power of.
pub(super) struct Surprise<'a> {
    pub(super) logits: &'a [f32],
    pub(super) best: f32,
    pub(super) scale: f64,
}

impl Surprise<'_> {
    /// `y` of a symbol that has a weight; 0 for all of them at plus infinity.
    fn exponent(&self, id: usize) -> f64 {
        let below = f64::from(self.logits[id]) - f64::from(self.best);
        if below < 0.0 {
            below * self.scale
        } else {
            0.0
        }
    }
}

/// Keeps the symbols whose surprise is nearest to the mean of all until their mass reaches `p` of `total`, the lowest ids
/// first among equals, the one that crosses included. Meister et al. 2022, "Locally typical sampling".
///
/// Surprise less its mean, the entropy, is the mean of `y` less `y`: no logarithm is needed.
pub(super) fn typical_p(
    weights: &mut [u64],
    total: u64,
    p: f64,
    surprise: Surprise<'_>,
    scratch: &mut Vec<Ranked>,
) -> u64 {
    let sum = |sum: f64, (id, &weight): (usize, &u64)| match weight {
        0 => sum,
        _ => (weight as f64).mul_add(surprise.exponent(id), sum),
    };
    let mean = weights.iter().enumerate().fold(0.0, sum) / total as f64;
    scratch.clear();
    for id in (0..weights.len()).filter(|&id| weights[id] > 0) {
        // Bits of numbers that are not negative are in their order.
        let distance = (surprise.exponent(id) - mean).abs().to_bits();
        scratch.push((Reverse(u64::MAX - distance), id as u32));
    }
    let last = crossing(scratch, |&(_, id)| weights[id as usize], wanted(p, total));
    scratch.iter().filter(|&&ranked| ranked > last).for_each(|&(_, id)| weights[id as usize] = 0);
    weights.iter().sum()
}

/// The first in order up to which the mass reaches `wanted`, by halving what it can be.
fn crossing(mut ranked: &mut [Ranked], weight: impl Fn(&Ranked) -> u64, mut wanted: u64) -> Ranked {
    while ranked.len() > 1 {
        let (head, _, _) = ranked.select_nth_unstable(ranked.len() / 2);
        let num_head = head.len();
        let mass: u64 = head.iter().map(&weight).sum();
        ranked = match mass >= wanted {
            true => &mut ranked[..num_head],
            false => {
                wanted -= mass;
                &mut ranked[num_head..]
            }
        };
    }
    ranked[0]
}
