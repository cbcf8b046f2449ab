//! The loops over a row, `(V,)`: each plain enough that compilers vectorise it for any set of instructions.

use super::exp::{weight, ONE};

/// Rows of weights are padded with zeros to a multiple of this, so that no loop has a scalar rest.
pub(super) const BLOCK: usize = 32;
/// What is left of a row after whole blocks is done in blocks of this.
const LANES: usize = 8;

/// A number in the order of the logit, on which comparing is integer work: -0 and 0 are equal, NaN is outside
/// the infinities.
#[inline(always)]
pub(super) fn key(logit: f32) -> i32 {
    let bits = (logit + 0.0).to_bits() as i32;
    bits ^ ((bits >> 31) as u32 >> 1) as i32
}

/// The logit of a key.
pub(super) fn logit(key: i32) -> f32 {
    f32::from_bits((key ^ ((key >> 31) as u32 >> 1) as i32) as u32)
}

/// The logit to compare with for a key: without NaN that is the same, and faster. -1 would be -0, which is no key but is
/// equal to 0; nothing lies between it and -2.
#[inline(always)]
pub(super) fn bound_of(key: i32) -> f32 {
    logit(key - i32::from(key == -1))
}

/// The smallest and the largest key.
#[inline(always)]
pub(super) fn extremes(logits: &[f32]) -> (i32, i32) {
    let (mut least, mut most) = (i32::MAX, i32::MIN);
    for &logit in logits {
        let key = key(logit);
        least = least.min(key);
        most = most.max(key);
    }
    (least, most)
}

/// Fills `weights` with `trunc(2^((l - best) * scale) * 2^46)`; returns their sum.
#[inline(always)]
pub(super) fn fill(logits: &[f32], best: f32, scale: f64, weights: &mut [u64]) -> u64 {
    let weigh = |logit| weight((f64::from(logit) - f64::from(best)) * scale);
    let num_whole = logits.len() / LANES * LANES;
    let total = fill_lanes(&logits[..num_whole], weigh, &mut weights[..num_whole]);
    total + fill_rest(logits, num_whole, weigh, weights)
}

#[inline(always)]
fn fill_lanes(logits: &[f32], weigh: impl Fn(f32) -> u64, weights: &mut [u64]) -> u64 {
    let mut total = 0;
    for (slot, &logit) in weights.iter_mut().zip(logits) {
        *slot = weigh(logit);
        total += *slot;
    }
    total
}

/// The symbols from `start` on, fewer than the lanes, which begin early where the row is long enough.
#[inline(always)]
fn fill_rest(logits: &[f32], start: usize, weigh: impl Fn(f32) -> u64, weights: &mut [u64]) -> u64 {
    if start == logits.len() {
        return 0;
    }
    let weights = &mut weights[..logits.len()];
    match (weights.last_chunk_mut::<LANES>(), logits.last_chunk::<LANES>()) {
        (Some(slots), Some(logits)) => fill_lanes(logits, weigh, slots),
        _ => fill_lanes(logits, weigh, weights),
    };
    weights[start..].iter().sum()
}

/// Symbols at plus infinity share everything. Returns the sum.
#[inline(always)]
pub(super) fn fill_infinite(logits: &[f32], weights: &mut [u64]) -> u64 {
    let mut total = 0;
    for (slot, &logit) in weights.iter_mut().zip(logits) {
        *slot = if logit == f32::INFINITY { ONE } else { 0 };
        total += *slot;
    }
    total
}

/// Keeps the weights above `bound`, or equal to it at an id below `end`. Returns the sum.
#[inline(always)]
pub(super) fn keep_heavy(weights: &mut [u64], bound: u64, end: u32) -> u64 {
    let mut total = 0;
    for (id, slot) in (0_u32..).zip(weights.iter_mut()) {
        let is_kept = (*slot > bound) | ((*slot == bound) & (id < end));
        *slot = if is_kept { *slot } else { 0 };
        total += *slot;
    }
    total
}

/// The first id up to which the weights sum to more than `target`, which is below the sum of all.
#[inline(always)]
pub(super) fn locate(weights: &[u64], mut target: u64) -> usize {
    for (number, block) in weights.chunks_exact(BLOCK).enumerate() {
        let sum: u64 = block.iter().sum();
        if target < sum {
            return number * BLOCK + locate_in_block(block, target);
        }
        target -= sum;
    }
    unreachable!("the target is below the sum of the weights")
}

/// Counts instead of stopping: where a random draw ends cannot be predicted.
#[inline(always)]
fn locate_in_block(block: &[u64], target: u64) -> usize {
    let (mut sum, mut count) = (0, 0);
    for &weight in block {
        sum += weight;
        count += usize::from(sum <= target);
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_ordered_as_logits() {
        let rising = [f32::NEG_INFINITY, f32::MIN, -1.5, -1e-45, 0.0, 1e-45, 1.5, f32::MAX, f32::INFINITY];
        assert!(rising.map(key).is_sorted_by(|a, b| a < b));
        assert_eq!(rising.map(|value| logit(key(value))), rising);
        assert_eq!(key(-0.0), key(0.0));
        // Which end a NaN is at is not said: sums do not keep its sign.
        let numbers = key(f32::NEG_INFINITY)..=key(f32::INFINITY);
        assert!([f32::NAN, -f32::NAN].iter().all(|&nan| !numbers.contains(&key(nan))));
    }

    #[test]
    fn locate_inverts_the_cumulative_sum() {
        let mut weights = vec![0; 3 * BLOCK];
        for (id, weight) in [(0, 2), (31, 1), (32, 3), (95, 1)] {
            weights[id] = weight;
        }
        let found: Vec<usize> = (0..7).map(|target| locate(&weights, target)).collect();
        assert_eq!(found, [0, 0, 31, 32, 32, 32, 95]);
    }
}
