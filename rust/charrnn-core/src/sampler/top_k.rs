//! The `k` largest logits of a row, by passes that count, without sorting.

use super::kernel::{bound_of, key, logit};
use super::simd::{Simd, LANES};

/// Passes that quarter the range of values; from then on that of keys is halved, which ends after 32.
const NUM_QUARTERS: u32 = 12;

/// Some logits of a row with their ids, which rise.
#[derive(Clone, Debug)]
pub(super) struct Shortlist {
    /// Room for `V`, and for a block written at once behind them.
    ids: Vec<u32>,
    logits: Vec<f32>,
    len: usize,
}

impl Shortlist {
    pub(super) fn new(vocab_size: usize) -> Self {
        let room = vocab_size + LANES;
        Shortlist { ids: vec![0; room], logits: vec![0.0; room], len: 0 }
    }

    pub(super) fn ids(&self) -> &[u32] {
        &self.ids[..self.len]
    }

    pub(super) fn logits(&self) -> &[f32] {
        &self.logits[..self.len]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    #[inline(always)]
    fn extend<S: Simd>(&mut self, block: &[f32; LANES], mask: u16, start: u32) {
        let (ids, logits) = (&mut self.ids[self.len..], &mut self.logits[self.len..]);
        if let (Some(ids), Some(logits)) = (ids.first_chunk_mut(), logits.first_chunk_mut()) {
            S::pack(block, mask, start, ids, logits);
            self.len += mask.count_ones() as usize;
        }
    }
}

/// A row in blocks.
struct Row<'a> {
    whole: &'a [[f32; LANES]],
    /// The rest, padded with minus infinity.
    last: [f32; LANES],
}

impl<'a> Row<'a> {
    #[inline(always)]
    fn new(logits: &'a [f32]) -> Self {
        let (whole, rest) = logits.as_chunks();
        let mut last = [f32::NEG_INFINITY; LANES];
        last[..rest.len()].copy_from_slice(rest);
        Row { whole, last }
    }

    /// How many are above each bound.
    #[inline(always)]
    fn counts_above<S: Simd, const N: usize>(&self, bounds: [f32; N]) -> [u32; N] {
        let mut counts = [0; N];
        for block in self.whole.iter().chain([&self.last]) {
            for (count, &bound) in counts.iter_mut().zip(&bounds) {
                *count += S::above(block, bound).count_ones();
            }
        }
        counts
    }
}

/// What is kept: logits above `bound`, and the first `num_equal` of those equal to it.
struct Cut {
    bound: f32,
    num_equal: u32,
}

/// Lists the `k` largest logits, the lowest ids among equals. `0 < k < V`; `range` holds the keys of all logits that
/// weigh anything, and of the others some may be missing.
#[inline(always)]
pub(super) fn shortlist<S: Simd>(logits: &[f32], k: u32, range: (i32, i32), list: &mut Shortlist) {
    let row = Row::new(logits);
    let cut = cut::<S>(&row, k, range);
    let end = if cut.num_equal == 0 { 0 } else { end_of_equal(logits, &cut) };
    list.clear();
    for (start, block) in (0_u32..).step_by(LANES).zip(row.whole.iter().chain([&row.last])) {
        let mut mask = S::above(block, cut.bound);
        if start < end {
            // Nothing lies between the bound and the next number below it.
            let first = u32::MAX >> (32 - (end - start).min(LANES as u32));
            mask |= S::above(block, cut.bound.next_down()) & first as u16;
        }
        if mask != 0 {
            list.extend::<S>(block, mask, start);
        }
    }
}

/// The id after the last of the equal ones that are kept.
fn end_of_equal(logits: &[f32], cut: &Cut) -> u32 {
    let mut equal = (0_u32..).zip(logits).filter(|(_, &logit)| logit == cut.bound);
    equal.nth(cut.num_equal as usize - 1).map_or(u32::MAX, |(id, _)| id + 1)
}

/// Quarters the range in which the `k`-th largest is until a bound has `k` above it. Values find a gap between logits in
/// some four passes; keys alone would spend many on numbers next to 0, but find equal logits in the end.
#[inline(always)]
fn cut<S: Simd>(row: &Row<'_>, k: u32, range: (i32, i32)) -> Cut {
    let (mut low, mut high) = (logit(range.0).max(f32::MIN), logit(range.1));
    let mut step = high * 0.25 - low * 0.25;
    for _ in 0..NUM_QUARTERS {
        if low + step == low || step == f32::INFINITY {
            break;
        }
        let bounds = [low + step, low + step * 2.0, low + step * 3.0];
        let counts = row.counts_above::<S, 3>(bounds);
        let num_more = counts.iter().filter(|&&count| count > k).count();
        if counts.iter().filter(|&&count| count >= k).count() > num_more {
            return Cut { bound: bounds[num_more], num_equal: 0 };
        }
        (low, high) = neighbours(low, bounds, high, num_more);
        step *= 0.25;
    }
    cut_between::<S>(row, k, (key(low), key(high)))
}

/// The two next to each other between which it goes on, with `num` of the bounds at or below it.
#[inline(always)]
pub(super) fn neighbours<N: Copy>(low: N, [a, b, c]: [N; 3], high: N, num: usize) -> (N, N) {
    ([low, a, b, c][num], [a, b, c, high][num])
}

/// Halves the range of keys.
#[inline(always)]
fn cut_between<S: Simd>(row: &Row<'_>, k: u32, (mut low, mut high): (i32, i32)) -> Cut {
    while low < high {
        // Rounded down: `i32::midpoint` rounds towards 0, where a range of two negative numbers would never end.
        let middle = ((i64::from(low) + i64::from(high)) >> 1) as i32;
        match row.counts_above::<S, 1>([bound_of(middle)]) {
            [count] if count == k => return Cut { bound: bound_of(middle), num_equal: 0 },
            [count] if count > k => low = middle + 1,
            _ => high = middle,
        }
    }
    let [count] = row.counts_above::<S, 1>([bound_of(low)]);
    Cut { bound: bound_of(low), num_equal: k.saturating_sub(count) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::Path;
    use proptest::prelude::*;

    /// By sorting; in order of id.
    fn sorted(logits: &[f32], k: usize) -> Vec<u32> {
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        // Stable, and -0 is equal to 0.
        ids.sort_by(|&a, &b| (logits[b as usize] + 0.0).total_cmp(&(logits[a as usize] + 0.0)));
        ids.truncate(k);
        ids.retain(|&id| logits[id as usize] > f32::NEG_INFINITY);
        ids.sort_unstable();
        ids
    }

    fn assert_as_sorted(logits: &[f32], k: u32) {
        for path in Path::available() {
            let mut list = Shortlist::new(logits.len());
            path.shortlist(logits, k, path.extremes(logits), &mut list);
            let possible = |&&id: &&u32| logits[id as usize] > f32::NEG_INFINITY;
            let ids: Vec<u32> = list.ids().iter().filter(possible).copied().collect();
            assert_eq!(ids, sorted(logits, k as usize), "k {k}, {path:?}, {logits:?}");
            assert!(list.len <= k as usize);
            let listed = list.ids().iter().zip(list.logits());
            assert!(listed.into_iter().all(|(&id, logit)| logits[id as usize].to_bits() == logit.to_bits()));
        }
    }

    fn logit_of_any_kind() -> impl Strategy<Value = f32> {
        let special =
            vec![f32::NEG_INFINITY, f32::INFINITY, f32::MIN, f32::MAX, 0.0, -0.0, 1e-45, -1e-45, 1.0];
        prop_oneof![
            -8_f32..8.0,
            prop::sample::select(special),
            (0..4_u8).prop_map(|n| 1.0 + f32::from(n) * f32::EPSILON),
            prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO,
        ]
    }

    proptest! {
        #[test]
        fn lists_what_sorting_would(logits in prop::collection::vec(logit_of_any_kind(), 2..150), k: u32) {
            if logits.iter().any(|&logit| logit > f32::NEG_INFINITY) {
                assert_as_sorted(&logits, 1 + k % (logits.len() as u32 - 1));
            }
        }

        #[test]
        fn lists_what_sorting_would_of_many_equal_ones(quarters in prop::collection::vec(-6_i8..6, 2..150), k: u32) {
            let logits: Vec<f32> = quarters.iter().map(|&quarter| f32::from(quarter) / 4.0).collect();
            assert_as_sorted(&logits, 1 + k % (logits.len() as u32 - 1));
        }
    }

    #[test]
    fn equal_logits_are_listed_by_id() {
        for k in [1, 15, 16, 17, 31, 32, 33, 64] {
            assert_as_sorted(&[-2.5; 65], k);
        }
    }
}
