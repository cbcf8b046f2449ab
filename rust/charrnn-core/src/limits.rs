//! The one table of what a request may ask: the service, the Python classes and the documents read it.

use crate::error::RequestError;

/// The range of one number of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// The field, as it is called everywhere.
    pub name: &'static str,
    /// Smallest value allowed.
    pub min: f64,
    /// Largest value allowed.
    pub max: f64,
    /// What an absent field means; `None` where absence has a meaning of its own.
    pub default: Option<f64>,
    /// What it is, and what its extremes mean.
    pub meaning: &'static str,
}

macro_rules! limits {
    ($($(#[$doc:meta])* $constant:ident = $name:literal, $min:expr, $max:expr, $default:expr, $meaning:literal;)*) => {
        $($(#[$doc])* pub const $constant: Limit =
            Limit { name: $name, min: $min, max: $max, default: $default, meaning: $meaning };)*
        /// Every limit, in the order of this file.
        pub const TABLE: &[Limit] = &[$($constant),*];
    };
}

limits! {
    /// See [`Limit::meaning`], as for all below.
    TEMPERATURE = "temperature", 0.0, f64::INFINITY, Some(1.0), "0 takes the most likely symbol, inf draws uniformly";
    /// Kept symbols.
    TOP_K = "top_k", 0.0, u32::MAX as f64, Some(0.0), "keep the k most likely; 0 is off";
    /// Kept mass.
    TOP_P = "top_p", 0.0, 1.0, Some(1.0), "keep the smallest set whose mass reaches p; 1 is off";
    /// Kept share of the best.
    MIN_P = "min_p", 0.0, 1.0, Some(0.0), "keep what has this share of the best one's probability; 0 is off";
    /// Kept mass of what is as surprising as expected.
    TYPICAL_P = "typical_p", 0.0, 1.0, Some(1.0), "keep the mass p whose surprise is nearest to the mean; 1 is off";
    /// Penalty factor.
    REPETITION_PENALTY = "repetition_penalty", 0.01, 100.0, Some(1.0), "divides positive and multiplies negative logits of what was drawn lately; 1 is off";
    /// Penalty a time.
    FREQUENCY_PENALTY = "frequency_penalty", -100.0, 100.0, Some(0.0), "taken off the logit for each time the symbol was drawn lately; 0 is off";
    /// Penalty once.
    PRESENCE_PENALTY = "presence_penalty", -100.0, 100.0, Some(0.0), "taken off the logit of what was drawn lately; 0 is off";
    /// What lately means.
    PENALTY_WINDOW = "penalty_window", 0.0, 4096.0, Some(64.0), "last symbols that penalties look at; 0 is none";
    /// Length of what must not come again.
    NO_REPEAT_NGRAM_SIZE = "no_repeat_ngram_size", 0.0, 64.0, Some(0.0), "no run of so many symbols twice within penalty_window; 0 is off";
    /// Added to a logit.
    LOGIT_BIAS = "logit_bias", f64::NEG_INFINITY, 1e6, None, "added to the logit of a symbol; -inf bans it";
    /// Alternatives told.
    LOGPROBS = "logprobs", 0.0, 1024.0, None, "log-probabilities of the symbol drawn and of so many of the most likely";
    /// Samples of a prompt.
    SAMPLE_INDEX = "sample_index", 0.0, u32::MAX as f64, Some(0.0), "which of several samples of one prompt and seed";
    /// Least length of the text.
    MIN_TOKENS = "min_tokens", 0.0, 1_000_000.0, Some(0.0), "symbols before which no stop string, regex or end symbol ends the text";
    /// Length of an expression.
    REGEX_CHARS = "length of regex", 1.0, 65_536.0, None, "characters of the regular expression";
    /// Length of the text.
    MAX_TOKENS = "max_tokens", 1.0, 1_000_000.0, Some(256.0), "symbols of the text";
    /// Length of the prompt.
    PROMPT_TOKENS = "prompt", 0.0, 65_536.0, Some(0.0), "symbols of the prompt";
    /// Number of stop strings.
    NUM_STOP = "number of stop strings", 0.0, 64.0, Some(0.0), "stop strings of one request";
    /// Length of a stop string.
    STOP_TOKENS = "length of a stop string", 1.0, 256.0, None, "symbols of one stop string";
    /// Size of a chunk.
    CHUNK_CHARS = "chunk_chars", 1.0, 4096.0, Some(256.0), "characters a chunk holds before it is sent";
    /// Alternatives told of each symbol of a text.
    TOP_LOGPROBS = "top_logprobs", 0.0, 20.0, Some(0.0), "log-probabilities of so many of the most likely symbols in place of each";
    /// Length of a text to score.
    SCORED_TOKENS = "text", 1.0, 65_536.0, None, "symbols of the text to score";
    /// Age of a chunk.
    MAX_CHUNK_DELAY_MS = "max_chunk_delay_ms", 0.0, 60_000.0, None, "absent: 10 ms, growing with the live streams";
}

impl Limit {
    /// `value`, or the default where it is absent; refused outside the range. NaN is outside.
    pub(crate) fn resolve(&self, value: Option<f64>) -> Result<f64, RequestError> {
        let value = value.or(self.default).unwrap_or(self.min);
        self.check(value).map(|()| value)
    }

    /// The same for whole numbers.
    pub(crate) fn resolve_u32(&self, value: Option<u32>) -> Result<u32, RequestError> {
        self.resolve(value.map(f64::from)).map(|value| value as u32)
    }

    /// Refuses a value outside the range.
    pub fn check(&self, value: f64) -> Result<(), RequestError> {
        match (self.min..=self.max).contains(&value) {
            true => Ok(()),
            false => Err(RequestError::OutOfRange { limit: *self, value }),
        }
    }

    /// The range in words: `0 to 1`, `at least 0`.
    pub fn range(&self) -> String {
        match (self.min.is_finite(), self.max.is_finite()) {
            (false, _) => format!("at most {}", self.max),
            (true, true) => format!("{} to {}", self.min, self.max),
            (true, false) => format!("at least {}", self.min),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edges_are_inside_and_nan_is_not() {
        for limit in TABLE {
            limit.check(limit.min).expect("smallest");
            limit.check(limit.max).expect("largest");
            limit.check(f64::NAN).expect_err("NaN");
            if limit.min.is_finite() {
                limit.check(limit.min - 1.0).expect_err("too small");
            }
            if limit.max.is_finite() {
                limit.check(limit.max * 2.0).expect_err("too large");
            }
        }
    }

    #[test]
    fn defaults_are_inside() {
        assert!(TABLE.iter().all(|limit| limit.default.is_none_or(|value| limit.check(value).is_ok())));
    }

    #[test]
    fn names_are_distinct() {
        let mut names: Vec<_> = TABLE.iter().map(|limit| limit.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE.len());
    }
}
