//! Whole numbers drawn from a distribution: lengths of texts, deadlines.

use std::f64::consts::TAU;

use serde::{Deserialize, Serialize};

use crate::error::BenchError;

/// Nothing here is longer: characters of a text, or milliseconds of eleven days.
const MAX: f64 = 1e9;

/// How numbers are spread; all are at least 1.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Spread {
    /// From the first to the last of these, each equally likely.
    Uniform(u64, u64),
    /// Many short ones, few long ones, with this mean.
    Exponential {
        /// Of the numbers.
        mean: f64,
    },
    /// The logarithm is normal with deviation `sigma`.
    Lognormal {
        /// Half of the numbers are below.
        median: f64,
        /// Of the natural logarithm.
        sigma: f64,
    },
}

impl Spread {
    /// The number that two uniform draws from 0 up to but not 1 give.
    pub fn at(&self, (u, v): (f64, f64)) -> u64 {
        match *self {
            Spread::Uniform(low, high) => low + (u * (high - low + 1) as f64) as u64,
            Spread::Exponential { mean } => round(-mean * (1.0 - u).ln()),
            // Box and Muller (1958).
            Spread::Lognormal { median, sigma } => {
                round(median * (sigma * (-2.0 * (1.0 - u).ln()).sqrt() * (TAU * v).cos()).exp())
            }
        }
    }

    pub(crate) fn check(&self, name: &str) -> Result<(), BenchError> {
        let is_sound = match *self {
            Spread::Uniform(low, high) => 1 <= low && low <= high && high as f64 <= MAX,
            Spread::Exponential { mean } => (1.0..=MAX).contains(&mean),
            Spread::Lognormal { median, sigma } => {
                (1.0..=MAX).contains(&median) && (0.0..=10.0).contains(&sigma)
            }
        };
        let need = "it must lie within 1 and 1e9, the smaller end first, with a sigma of 0 to 10";
        is_sound.then_some(()).ok_or_else(|| BenchError::Plan(format!("{name} is {self:?}; {need}")))
    }
}

fn round(value: f64) -> u64 {
    value.round().clamp(1.0, MAX) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers from a grid of draws, sorted.
    fn numbers(spread: Spread) -> Vec<u64> {
        let unit = |i: u32| (f64::from(i) + 0.5) / 200.0;
        let mut numbers: Vec<u64> = (0..40_000).map(|i| spread.at((unit(i % 200), unit(i / 200)))).collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn each_number_of_a_uniform_spread_is_equally_likely() {
        let numbers = numbers(Spread::Uniform(3, 7));
        assert!((3..=7).all(|n| numbers.iter().filter(|&&found| found == n).count() == 8_000));
    }

    #[test]
    fn an_exponential_spread_has_its_mean_and_median() {
        let numbers = numbers(Spread::Exponential { mean: 1000.0 });
        let mean = numbers.iter().sum::<u64>() as f64 / numbers.len() as f64;
        // The grid ends before the tail does.
        assert!((mean - 1000.0).abs() < 10.0, "{mean}");
        assert!(numbers[20_000].abs_diff(693) < 10, "{}", numbers[20_000]);
    }

    #[test]
    fn a_lognormal_spread_has_its_median_and_deviation() {
        let numbers = numbers(Spread::Lognormal { median: 1000.0, sigma: 0.5 });
        assert!(numbers[20_000].abs_diff(1000) < 10, "{}", numbers[20_000]);
        // One deviation above the median lie 84.13 %.
        assert!(numbers[33_654].abs_diff(1649) < 20, "{}", numbers[33_654]);
    }

    #[test]
    fn what_cannot_be_drawn_from_is_refused() {
        for spread in [
            Spread::Uniform(0, 5),
            Spread::Uniform(5, 4),
            Spread::Exponential { mean: f64::NAN },
            Spread::Lognormal { median: 10.0, sigma: -1.0 },
        ] {
            assert!(spread.check("max_tokens").is_err(), "{spread:?}");
        }
    }
}
