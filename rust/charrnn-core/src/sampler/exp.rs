//! Integer weights: `trunc(2^y * 2^46)` as a fixed sequence of exactly rounded operations.
//!
//! No table, no branch, no conversion instruction that only some CPUs have, so compilers vectorise it and every set of
//! instructions gives the same bits.

/// The weight of the most likely symbol.
pub(super) const ONE: u64 = 1 << ONE_EXPONENT;
const ONE_EXPONENT: u64 = 46;
/// Bias of the exponent of an f64.
const BIAS: u64 = 1023;
/// Added to a small number, leaves its nearest integer in the low bits of the sum.
const ROUND: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52
/// Added to a whole number below 2^52, leaves it in the low 52 bits of the sum.
const WHOLE: f64 = 4_503_599_627_370_496.0; // 2^52
/// Below 2^-46 weights are 0; any number under that will do.
const LOWEST: f64 = -50.0;
/// 2^f on |f| <= 1/2, lowest power first: 1 + f q(f) with q interpolating (2^f - 1) / f at 10 Chebyshev nodes.
/// Relative error 2^-50.6 before rounding; a weight has 46 bits.
const COEFFICIENTS: [f64; 11] = [
    1.0,
    0.693_147_180_559_946_2,
    0.240_226_506_959_100_75,
    0.055_504_108_664_651_67,
    0.009_618_129_107_618_665,
    0.001_333_355_820_079_459_2,
    0.000_154_035_304_247_765_29,
    1.525_267_292_485_073_7e-5,
    1.321_545_163_322_143_4e-6,
    1.020_590_541_376_559_5e-7,
    7.070_977_866_508_138e-9,
];

/// `trunc(2^y * 2^46)` for `y <= 0`; 0 for NaN, which an infinite temperature makes of minus infinity.
#[inline(always)]
pub(super) fn weight(y: f64) -> u64 {
    let y = if y > LOWEST { y } else { LOWEST };
    let shifted = y + ROUND;
    let f = y - (shifted - ROUND);
    let mut p = COEFFICIENTS[10];
    for power in (0..10).rev() {
        p = p.mul_add(f, COEFFICIENTS[power]);
    }
    // The integer in the low bits of `shifted` becomes the exponent; what stands above it is shifted out.
    let scale = f64::from_bits(shifted.to_bits().wrapping_add(BIAS + ONE_EXPONENT) << 52);
    ((p * scale).floor() + WHOLE).to_bits() & (WHOLE.to_bits() ^ u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_exp2_to_one_unit_in_2_45() {
        for i in 0..200_000_i32 {
            let y = f64::from(i) * -0.000_25;
            let exact = y.exp2() * ONE as f64;
            let found = weight(y) as f64;
            assert!((found - exact).abs() <= 1.0 + exact * f64::from(2).powi(-45), "{y}: {found} {exact}");
        }
    }

    #[test]
    fn whole_powers_are_exact() {
        for power in 0..=46_u32 {
            assert_eq!(weight(-f64::from(power)), ONE >> power);
        }
        assert_eq!(weight(-0.0), ONE);
    }

    #[test]
    fn what_is_excluded_weighs_nothing() {
        for y in [-46.001, -1e9, -f64::MAX, f64::NEG_INFINITY, f64::NAN] {
            assert_eq!(weight(y), 0, "{y}");
        }
    }

    /// Steps of 2^-32 change a weight by more than its error until it is below 2^20.
    #[test]
    fn weights_never_grow_downwards() {
        for start in 0..1000_u32 {
            let start = f64::from(start) * -0.05;
            let weights: Vec<u64> =
                (0..200).map(|i| weight(start - f64::from(i) / 4_294_967_296.0)).collect();
            assert!(weights.is_sorted_by(|a, b| a >= b), "at {start}");
        }
    }
}
