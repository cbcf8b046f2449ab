//! top_k, top_p and min_p over integer weights, without sorting them all. Each returns the new sum.

use std::cmp::Ordering;

/// Keeps the `k` largest logits, the lowest ids among equals. `0 < k < V`.
pub(super) fn top_k(weights: &mut [u64], logits: &[f32], k: usize, order: &mut Vec<u32>) -> u64 {
    let by_logit = |a: &u32, b: &u32| {
        let (left, right) = (logits[*a as usize], logits[*b as usize]);
        right.partial_cmp(&left).unwrap_or(Ordering::Equal).then(a.cmp(b))
    };
    order.clear();
    order.extend(0..weights.len() as u32);
    order.select_nth_unstable_by(k - 1, by_logit);
    order[k..].iter().for_each(|&token| weights[token as usize] = 0);
    order[..k].iter().map(|&token| weights[token as usize]).sum()
}

/// Keeps the smallest set whose mass reaches `p` of `total`: largest first, lowest ids first among equals, the one that
/// crosses included.
///
/// Weights are sorted into buckets by their leading zeros; only the bucket in which the mass is reached is ordered.
pub(super) fn top_p(weights: &mut [u64], total: u64, p: f64, order: &mut Vec<u32>) -> u64 {
    let wanted = ((p * total as f64).ceil() as u64).max(1);
    let (bucket, above) = crossing_bucket(weights, wanted);
    order.clear();
    for (token, weight) in weights.iter_mut().enumerate() {
        match weight.leading_zeros().cmp(&bucket) {
            Ordering::Less => {}
            Ordering::Equal => order.push(token as u32),
            Ordering::Greater => *weight = 0,
        }
    }
    order.sort_unstable_by_key(|&token| (std::cmp::Reverse(weights[token as usize]), token));
    let mut mass = above;
    for &token in order.iter() {
        if mass >= wanted {
            weights[token as usize] = 0;
        }
        mass += weights[token as usize];
    }
    mass
}

/// The leading zeros of the bucket in which the mass reaches `wanted`, and the mass of the buckets above it.
fn crossing_bucket(weights: &[u64], wanted: u64) -> (u32, u64) {
    let mut masses = [0_u64; 65];
    for weight in weights {
        masses[weight.leading_zeros() as usize] += weight;
    }
    let mut above = 0;
    for (bucket, mass) in masses.iter().enumerate() {
        if above + mass >= wanted {
            return (bucket as u32, above);
        }
        above += mass;
    }
    // Rounding asked for more than there is: everything stays.
    (64, above)
}

/// Keeps what weighs at least `p` of the largest.
pub(super) fn min_p(weights: &mut [u64], p: f64) -> u64 {
    let largest = weights.iter().copied().max().unwrap_or(0);
    let least = (p * largest as f64).ceil() as u64;
    let mut total = 0;
    for weight in weights {
        *weight = if *weight >= least { *weight } else { 0 };
        total += *weight;
    }
    total
}
