//! top_k, top_p, min_p and typical_p over integer weights, without sorting them all. Each returns the new sum.

use std::cmp::Reverse;

use super::exp::ONE;
use super::kernel::{key, logit, BLOCK};
use super::path::Path;

/// Steps that halve the range of values; from then on that of keys, which ends after 32.
const NUM_VALUE_STEPS: u32 = 24;

/// Keeps the `k` largest logits, the lowest ids among equals. `0 < k < V`; `range` holds the keys of all logits that
/// weigh anything.
///
/// Halves the range of the k-th largest until the count fits: each step is one fast pass. Halving values finds a gap
/// between logits in some ten steps; halving keys alone would spend that many on numbers next to 0.
pub(super) fn top_k(path: Path, weights: &mut [u64], logits: &[f32], k: u32, range: (i32, i32)) -> u64 {
    let (mut low, mut high) = range;
    let mut num_steps = 0;
    while low < high {
        let middle =
            if num_steps < NUM_VALUE_STEPS { middle_value(low, high) } else { middle_key(low, high) };
        num_steps += 1;
        match path.count_above(logits, middle) {
            count if count == k => return path.keep_likely(logits, middle, 0, weights),
            count if count > k => low = middle + 1,
            _ => high = middle,
        }
    }
    let num_equal = k.saturating_sub(path.count_above(logits, low));
    let end = if num_equal == 0 { 0 } else { end_of_equal(logits, low, num_equal) };
    path.keep_likely(logits, low, end, weights)
}

/// Rounded down: `i32::midpoint` rounds towards 0, where a range of two negative numbers would never end.
fn middle_key(low: i32, high: i32) -> i32 {
    ((i64::from(low) + i64::from(high)) >> 1) as i32
}

/// The key of the mean of two logits, below `high`.
fn middle_value(low: i32, high: i32) -> i32 {
    let finite = |key| f64::from(logit(key).clamp(f32::MIN, f32::MAX));
    key(((finite(low) + finite(high)) * 0.5) as f32).clamp(low, high - 1)
}

/// The id after the `num_equal`-th logit whose key is `bound`.
fn end_of_equal(logits: &[f32], bound: i32, num_equal: u32) -> u32 {
    let mut equal = (0_u32..).zip(logits).filter(|(_, &logit)| key(logit) == bound);
    equal.nth(num_equal as usize - 1).map_or(u32::MAX, |(id, _)| id + 1)
}

/// A number with an id, largest first, lowest id first among equals.
pub(super) type Ranked = (Reverse<u64>, u32);

/// Keeps the smallest set whose mass reaches `p` of `total`: largest first, lowest ids first among equals, the one that
/// crosses included.
///
/// Weights fall into buckets by their leading zeros; only the bucket in which the mass is reached is searched.
pub(super) fn top_p(path: Path, weights: &mut [u64], total: u64, p: f64, scratch: &mut Vec<Ranked>) -> u64 {
    let wanted = wanted(p, total);
    let (bucket, mass) = crossing_bucket(weights, wanted);
    scratch.clear();
    for (number, block) in weights.chunks_exact(BLOCK).enumerate() {
        if is_empty(block) {
            continue;
        }
        let ranked = (number * BLOCK..).zip(block).map(|(id, &weight)| (Reverse(weight), id as u32));
        scratch.extend(ranked.filter(|(Reverse(weight), _)| weight.leading_zeros() as usize == bucket));
    }
    let (Reverse(weight), id) = crossing(scratch, |&(Reverse(weight), _)| weight, wanted - mass);
    path.keep_heavy(weights, weight, id + 1)
}

/// The leading zeros of the bucket in which the mass reaches `wanted`, and the mass of the buckets above it.
fn crossing_bucket(weights: &[u64], wanted: u64) -> (usize, u64) {
    // Two tables, or neighbours of one bucket would wait for each other.
    let mut masses = [[0_u64; 65]; 2];
    for block in weights.chunks_exact(BLOCK).filter(|block| !is_empty(block)) {
        for pair in block.chunks_exact(2) {
            masses[0][pair[0].leading_zeros() as usize] += pair[0];
            masses[1][pair[1].leading_zeros() as usize] += pair[1];
        }
    }
    let mut mass = 0;
    for (bucket, (even, odd)) in masses[0].iter().zip(masses[1]).enumerate() {
        if mass + even + odd >= wanted {
            return (bucket, mass);
        }
        mass += even + odd;
    }
    unreachable!("what is wanted is at most the sum of all")
}

/// Filters leave most of a large row empty.
fn is_empty(block: &[u64]) -> bool {
    block.iter().fold(0, |all, weight| all | weight) == 0
}

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

/// The mass that is `p` of `total`, at least 1.
fn wanted(p: f64, total: u64) -> u64 {
    ((p * total as f64).ceil() as u64).clamp(1, total)
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
