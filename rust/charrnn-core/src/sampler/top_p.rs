//! The smallest set of weights whose mass reaches a share of all, by passes that sum, without sorting.

use super::exp::ONE;
use super::kernel::keep_heavy;
use super::simd::Simd;
use super::top_k::neighbours;

/// Keeps the smallest set whose mass reaches `p` of `total`: largest first, lowest ids first among equals, the one that
/// crosses included. Returns its sum. The weights are padded with zeros to whole blocks.
#[inline(always)]
pub(super) fn keep_top_p<S: Simd>(weights: &mut [u64], total: u64, p: f64) -> u64 {
    // Were logits spread evenly, the mass up to a weight would be in proportion to it.
    let guess = ((1.0 - p) * ONE as f64) as u64;
    let cut = cut::<S>(weights, guess, total, wanted(p, total));
    let end = if cut.num_equal == 0 { 0 } else { end_of_equal(weights, &cut) };
    keep_heavy(weights, cut.bound, end)
}

/// The mass that is `p` of `total`, at least 1.
#[inline(always)]
pub(super) fn wanted(p: f64, total: u64) -> u64 {
    ((p * total as f64).ceil() as u64).clamp(1, total)
}

/// What is kept: weights above `bound`, and the first `num_equal` of those equal to it.
struct Cut {
    bound: u64,
    num_equal: u64,
}

/// Quarters the range in which the mass is reached until one weight is left in it, or only equal ones.
///
/// A guess saves passes: some four are left in rows of 65 or 96.
#[inline(always)]
fn cut<S: Simd>(weights: &[u64], guess: u64, total: u64, wanted: u64) -> Cut {
    let (blocks, _) = weights.as_chunks();
    // The mass of what is above is at least what is wanted at `low`, and less at `high`.
    let (mut low, mut high) = (0, ONE);
    let (mut mass_low, mut mass_high) = (total, 0);
    let mut bounds = [guess / 2, guess, guess * 2];
    // Two weights above `low` would have more mass.
    while mass_low - mass_high > 2 * low + 1 {
        if high - low == 1 {
            return Cut { bound: high, num_equal: (wanted - mass_high).div_ceil(high) };
        }
        let masses = S::masses_above(blocks, bounds);
        let num_enough = masses.iter().filter(|&&mass| mass >= wanted).count();
        (low, high) = neighbours(low, bounds, high, num_enough);
        (mass_low, mass_high) = neighbours(mass_low, masses, mass_high, num_enough);
        // Rounded up to something odd, or a range of 2 or 3 would never end.
        let step = ((high - low) / 4) | 1;
        bounds = [low + step, low + 2 * step, low + 3 * step];
    }
    Cut { bound: low, num_equal: 0 }
}

/// The id after the last of the equal ones that are kept.
fn end_of_equal(weights: &[u64], cut: &Cut) -> u32 {
    let mut equal = (0_u32..).zip(weights).filter(|(_, &weight)| weight == cut.bound);
    equal.nth(cut.num_equal as usize - 1).map_or(u32::MAX, |(id, _)| id + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::kernel::BLOCK;
    use crate::sampler::Path;
    use proptest::prelude::*;

    /// By sorting.
    fn sorted(weights: &[u64], total: u64, p: f64) -> Vec<u64> {
        let mut ids: Vec<usize> = (0..weights.len()).collect();
        ids.sort_by_key(|&id| (std::cmp::Reverse(weights[id]), id));
        let (mut kept, mut mass) = (vec![0; weights.len()], 0);
        for id in ids.into_iter().take_while(|&id| weights[id] > 0) {
            if mass >= wanted(p, total) {
                break;
            }
            kept[id] = weights[id];
            mass += weights[id];
        }
        kept
    }

    fn assert_as_sorted(weights: &[u64], p: f64) {
        let mut padded = weights.to_vec();
        padded.resize(weights.len().next_multiple_of(BLOCK), 0);
        let total = padded.iter().sum();
        for path in Path::available() {
            let mut kept = padded.clone();
            let sum = path.keep_top_p(&mut kept, total, p);
            assert_eq!(kept, sorted(&padded, total, p), "p {p}, {path:?}");
            assert_eq!(sum, kept.iter().sum::<u64>());
        }
    }

    fn weight_of_any_size() -> impl Strategy<Value = u64> {
        prop_oneof![0..=ONE, (0..=46_u32).prop_map(|power| ONE >> power), 0..4_u64, ONE - 3..=ONE]
    }

    fn share() -> impl Strategy<Value = f64> {
        prop_oneof![
            0.0..1.0,
            prop::sample::select(vec![0.0, 1e-12, 0.5, 0.95, 1.0 - 1e-9, 1.0 - f64::EPSILON])
        ]
    }

    proptest! {
        #[test]
        fn keeps_what_sorting_would(mut weights in prop::collection::vec(weight_of_any_size(), 1..150), p in share()) {
            weights[0] = ONE;
            assert_as_sorted(&weights, p);
        }

        #[test]
        fn keeps_what_sorting_would_of_many_equal_ones(powers in prop::collection::vec(0..3_u32, 1..150), p in share()) {
            let weights: Vec<u64> = powers.iter().map(|power| ONE >> power).chain([ONE]).collect();
            assert_as_sorted(&weights, p);
        }
    }

    #[test]
    fn equal_weights_are_kept_by_id() {
        for p in [0.0, 0.1, 0.5, 0.999] {
            assert_as_sorted(&[ONE; 65], p);
        }
    }
}
