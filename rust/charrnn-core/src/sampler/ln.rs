//! The natural logarithm of whole numbers, as a fixed sequence of exactly rounded operations: libraries' differ.

use std::f64::consts::{LN_2, SQRT_2};

/// Terms of atanh(s) / s in s^2: with |s| < 0.172 the first one left out is below 2^-56.
const NUM_TERMS: i32 = 11;

/// `ln(x)`; minus infinity for 0. Relative error below 2^-50.
pub(super) fn ln(x: u64) -> f64 {
    if x == 0 {
        return f64::NEG_INFINITY;
    }
    let bits = (x as f64).to_bits();
    let mut exponent = (bits >> 52) as i32 - 1023;
    let mut mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    if mantissa > SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let series =
        (0..NUM_TERMS).rev().fold(0.0, |sum: f64, k| sum.mul_add(square, 1.0 / f64::from(2 * k + 1)));
    f64::from(exponent).mul_add(LN_2, 2.0 * s * series)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_libraries() {
        for shift in 0..64 {
            for add in [0_u64, 1, 2, 3, 12_345, 0x5555_5555_5555_5555] {
                let x = (1_u64 << shift).saturating_add(add);
                let exact = (x as f64).ln();
                assert!((ln(x) - exact).abs() <= exact.abs() * 2_f64.powi(-50), "{x}: {} {exact}", ln(x));
            }
        }
        assert_eq!((ln(1), ln(0)), (0.0, f64::NEG_INFINITY));
    }
}
