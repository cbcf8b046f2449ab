//! Integer weights `trunc(exp((l - best) / T) * 2^46)`, the same bits on every path.
//!
//! One exponential, written once as a fixed sequence of exactly rounded operations; the compiler vectorises it for each
//! set of instructions. Relative error below 2^-45; 2^46 keeps the mass of symbols 31 nats below the best.

use std::sync::OnceLock;

/// Environment variable that forces a path: `scalar`, `avx2` or `avx512`.
const FORCE: &str = "CHARRNN_SIMD";

/// Set in the sum, so that adding it to a number below 2^51 leaves its nearest integer in the low bits.
const ROUND: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52
const INTEGER: f64 = 4_503_599_627_370_496.0; // 2^52
const LN_2_HIGH: f64 = 0.693_147_180_369_123_8;
const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
/// Below this exp * 2^46 is less than 1: the weight is 0.
const LOWEST: f64 = -40.0;
/// 1/n!, highest first: Taylor's series of exp on |x| <= ln(2)/2, cut after x^11 / 11!.
const COEFFICIENTS: [f64; 12] = [
    1.0 / 39_916_800.0,
    1.0 / 3_628_800.0,
    1.0 / 362_880.0,
    1.0 / 40_320.0,
    1.0 / 5_040.0,
    1.0 / 720.0,
    1.0 / 120.0,
    1.0 / 24.0,
    1.0 / 6.0,
    0.5,
    1.0,
    1.0,
];

/// The instructions a sampler runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// What every CPU of the target has.
    Scalar,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, DQ and VL.
    Avx512,
}

impl Path {
    /// The fastest this CPU has, or the one that CHARRNN_SIMD names if this CPU has it.
    pub fn fastest() -> Path {
        static FASTEST: OnceLock<Path> = OnceLock::new();
        *FASTEST.get_or_init(|| {
            let forced = std::env::var(FORCE).ok();
            let available = Path::available();
            let is_forced = |path: &&Path| Some(path.name()) == forced.as_deref();
            available.iter().find(is_forced).or(available.last()).copied().unwrap_or(Path::Scalar)
        })
    }

    /// Those this CPU has, slowest first.
    pub fn available() -> Vec<Path> {
        #[allow(unused_mut, reason = "only x86 has more than one")]
        let mut paths = vec![Path::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                paths.push(Path::Avx2);
            }
            let has_vl = is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("fma");
            if has_vl && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") {
                paths.push(Path::Avx512);
            }
        }
        paths
    }

    /// As CHARRNN_SIMD names it.
    pub fn name(self) -> &'static str {
        match self {
            Path::Scalar => "scalar",
            Path::Avx2 => "avx2",
            Path::Avx512 => "avx512",
        }
    }

    /// The largest logit, NaN if there is any NaN.
    pub(super) fn check(self, logits: &[f32]) -> f32 {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a path is only ever made where its instructions were detected.
            Path::Avx2 => unsafe { check_avx2(logits) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Path::Avx512 => unsafe { check_avx512(logits) },
            _ => check(logits),
        }
    }

    /// Fills the weights for finite or infinite logits whose largest is `best`; returns their sum.
    pub(super) fn fill(self, logits: &[f32], best: f32, temperature: f64, weights: &mut [u64]) -> u64 {
        match self {
            _ if best == f32::INFINITY => fill_infinite(logits, weights),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Path::Avx2 => unsafe { fill_avx2(logits, best, temperature, weights) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Path::Avx512 => unsafe { fill_avx512(logits, best, temperature, weights) },
            _ => fill(logits, best, temperature, weights),
        }
    }
}

/// Symbols at plus infinity share everything.
fn fill_infinite(logits: &[f32], weights: &mut [u64]) -> u64 {
    for (weight, &logit) in weights.iter_mut().zip(logits) {
        *weight = u64::from(logit == f32::INFINITY);
    }
    weights.iter().sum()
}

#[inline(always)]
fn check(logits: &[f32]) -> f32 {
    let mut best = f32::NEG_INFINITY;
    let mut has_nan = false;
    for &logit in logits {
        best = if logit > best { logit } else { best };
        has_nan |= logit.is_nan();
    }
    if has_nan {
        f32::NAN
    } else {
        best
    }
}

#[inline(always)]
fn fill(logits: &[f32], best: f32, temperature: f64, weights: &mut [u64]) -> u64 {
    let best = f64::from(best);
    let mut total = 0;
    for (weight, &logit) in weights.iter_mut().zip(logits) {
        *weight = weigh((f64::from(logit) - best) / temperature);
        total += *weight;
    }
    total
}

/// `trunc(exp(x) * 2^46)` for `x <= 0`; NaN, which an infinite temperature makes of minus infinity, weighs nothing.
#[inline(always)]
fn weigh(x: f64) -> u64 {
    let x = if x > LOWEST { x } else { LOWEST };
    let shifted = x.mul_add(std::f64::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, x));
    let mut p = COEFFICIENTS[0];
    for coefficient in &COEFFICIENTS[1..] {
        p = p.mul_add(r, *coefficient);
    }
    // n stands in the low bits of `shifted`; the exponent of 2^(n + 46) is made of it.
    let scale = f64::from_bits(shifted.to_bits().wrapping_add(1023 + 46) << 52);
    ((p * scale).floor() + INTEGER).to_bits() & ((1 << 52) - 1)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! The same source, compiled for more instructions.

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn check_avx2(logits: &[f32]) -> f32 {
        super::check(logits)
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512vl,fma")]
    pub(super) fn check_avx512(logits: &[f32]) -> f32 {
        super::check(logits)
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn fill_avx2(logits: &[f32], best: f32, temperature: f64, weights: &mut [u64]) -> u64 {
        super::fill(logits, best, temperature, weights)
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512vl,fma")]
    pub(super) fn fill_avx512(logits: &[f32], best: f32, temperature: f64, weights: &mut [u64]) -> u64 {
        super::fill(logits, best, temperature, weights)
    }
}

#[cfg(target_arch = "x86_64")]
use x86::{check_avx2, check_avx512, fill_avx2, fill_avx512};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_exp_to_one_unit_in_2_45() {
        for i in 0..200_000_i32 {
            let x = f64::from(i) * -0.000_2;
            let exact = x.exp() * f64::from(2).powi(46);
            let weight = weigh(x) as f64;
            assert!((weight - exact).abs() <= 1.0 + exact * f64::from(2).powi(-45), "{x}: {weight} {exact}");
        }
    }

    #[test]
    fn the_best_weighs_2_46_and_the_excluded_nothing() {
        assert_eq!(weigh(0.0), 1 << 46);
        assert_eq!(weigh(-0.0), 1 << 46);
        for x in [-33.0, -1e9, f64::NEG_INFINITY, f64::NAN] {
            assert_eq!(weigh(x), 0, "{x}");
        }
        assert_eq!(weigh(-31.0), 2);
    }

    #[test]
    fn every_path_gives_the_same_bits() {
        let logits: Vec<f32> =
            (0..1000_u16).map(|i| f32::from(i).sin() * 30.0).chain([f32::NEG_INFINITY]).collect();
        for temperature in [1e-300, 0.1, 0.7, 1.0, 3.3, f64::INFINITY] {
            let mut expected = vec![0; logits.len()];
            let best = Path::Scalar.check(&logits);
            let total = Path::Scalar.fill(&logits, best, temperature, &mut expected);
            assert_eq!(total, expected.iter().sum::<u64>());
            assert_eq!(expected[1000], 0);
            for path in Path::available() {
                let mut weights = vec![0; logits.len()];
                assert_eq!(path.check(&logits), best);
                assert_eq!(path.fill(&logits, best, temperature, &mut weights), total, "{path:?}");
                assert_eq!(weights, expected, "{path:?}");
            }
        }
    }
}
