//! How symbols are drawn: what a caller asks, and the same once it is checked.

use std::hash::{BuildHasher, RandomState};

use crate::error::RequestError;
use crate::limits;
use crate::sampler::Place;

/// Which distribution log-probabilities are of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogprobsMode {
    /// The model's, at temperature 1, before any rule.
    #[default]
    Raw,
    /// The one drawn from, after all rules.
    Processed,
}

/// How the next symbol is drawn; `None` is the default. The rules apply in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SamplingParams {
    /// Added to the logits of single symbols; minus infinity bans one.
    pub logit_bias: Vec<(u32, f64)>,
    /// The only symbols that may be drawn.
    pub allowed: Option<Vec<u32>>,
    /// See [`limits::REPETITION_PENALTY`].
    pub repetition_penalty: Option<f64>,
    /// See [`limits::FREQUENCY_PENALTY`].
    pub frequency_penalty: Option<f64>,
    /// See [`limits::PRESENCE_PENALTY`].
    pub presence_penalty: Option<f64>,
    /// See [`limits::PENALTY_WINDOW`].
    pub penalty_window: Option<u32>,
    /// See [`limits::NO_REPEAT_NGRAM_SIZE`].
    pub no_repeat_ngram_size: Option<u32>,
    /// See [`limits::TEMPERATURE`].
    pub temperature: Option<f64>,
    /// See [`limits::TOP_K`].
    pub top_k: Option<u32>,
    /// See [`limits::TOP_P`].
    pub top_p: Option<f64>,
    /// See [`limits::MIN_P`].
    pub min_p: Option<f64>,
    /// See [`limits::TYPICAL_P`].
    pub typical_p: Option<f64>,
    /// See [`limits::LOGPROBS`].
    pub logprobs: Option<u32>,
    /// Of which distribution.
    pub logprobs_mode: LogprobsMode,
    /// `None` draws one.
    pub seed: Option<u64>,
}

/// Penalties on what was drawn lately.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Penalties {
    pub(crate) repetition: f64,
    pub(crate) frequency: f64,
    pub(crate) presence: f64,
    /// Symbols looked back on.
    pub(crate) window: u32,
    /// 0 is off.
    pub(crate) ngram_size: u32,
}

impl Penalties {
    /// Whether they can change a logit.
    pub(crate) fn are_on(&self) -> bool {
        self.window > 0 && (self.weigh() || self.ngram_size > 0)
    }

    /// Whether symbols are made less likely, and not only banned.
    pub(crate) fn weigh(&self) -> bool {
        (self.repetition, self.frequency, self.presence) != (1.0, 0.0, 0.0)
    }
}

/// Sampling parameters within their limits, the seed decided.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidSampling {
    /// By id.
    bias: Vec<(u32, f64)>,
    /// Ascending.
    allowed: Option<Vec<u32>>,
    penalties: Penalties,
    temperature: f64,
    top_k: u32,
    top_p: f64,
    min_p: f64,
    typical_p: f64,
    logprobs: Option<u32>,
    logprobs_mode: LogprobsMode,
    seed: u64,
}

impl SamplingParams {
    /// Checks every field against the table; draws a seed where none is given.
    pub fn validate(&self) -> Result<ValidSampling, RequestError> {
        for (_, bias) in &self.logit_bias {
            limits::LOGIT_BIAS.check(*bias)?;
        }
        if let Some(num) = self.logprobs {
            limits::LOGPROBS.check(f64::from(num))?;
        }
        if self.allowed.as_ref().is_some_and(Vec::is_empty) {
            return Err(RequestError::NothingAllowed);
        }
        let (mut bias, mut allowed) = (self.logit_bias.clone(), self.allowed.clone());
        bias.sort_by_key(|&(id, _)| id);
        allowed.iter_mut().for_each(|ids| ids.sort_unstable());
        Ok(ValidSampling {
            bias,
            allowed,
            penalties: self.penalties()?,
            temperature: limits::TEMPERATURE.resolve(self.temperature)?,
            top_k: limits::TOP_K.resolve_u32(self.top_k)?,
            top_p: limits::TOP_P.resolve(self.top_p)?,
            min_p: limits::MIN_P.resolve(self.min_p)?,
            typical_p: limits::TYPICAL_P.resolve(self.typical_p)?,
            logprobs: self.logprobs,
            logprobs_mode: self.logprobs_mode,
            seed: self.seed.unwrap_or_else(random_seed),
        })
    }

    fn penalties(&self) -> Result<Penalties, RequestError> {
        Ok(Penalties {
            repetition: limits::REPETITION_PENALTY.resolve(self.repetition_penalty)?,
            frequency: limits::FREQUENCY_PENALTY.resolve(self.frequency_penalty)?,
            presence: limits::PRESENCE_PENALTY.resolve(self.presence_penalty)?,
            window: limits::PENALTY_WINDOW.resolve_u32(self.penalty_window)?,
            ngram_size: limits::NO_REPEAT_NGRAM_SIZE.resolve_u32(self.no_repeat_ngram_size)?,
        })
    }
}

/// 64 bits from the system's entropy: every `RandomState` has keys of its own.
fn random_seed() -> u64 {
    RandomState::new().hash_one(())
}

impl ValidSampling {
    /// Refuses symbols that a vocabulary of that size does not have.
    pub fn check_ids(&self, vocab_size: usize) -> Result<(), RequestError> {
        let biased = self.bias.iter().map(|&(id, _)| ("logit_bias", id));
        let allowed = self.allowed.iter().flatten().map(|&id| ("allowed", id));
        match biased.chain(allowed).find(|&(_, id)| id as usize >= vocab_size) {
            Some((field, id)) => Err(RequestError::NoSuchId { field, id, vocab_size }),
            None => Ok(()),
        }
    }

    /// Whether a symbol may be drawn at all.
    pub fn is_allowed(&self, token: u32) -> bool {
        let bias = self.bias.binary_search_by_key(&token, |&(id, _)| id).map(|at| self.bias[at].1);
        self.allowed.as_ref().is_none_or(|allowed| allowed.binary_search(&token).is_ok())
            && bias != Ok(f64::NEG_INFINITY)
    }

    pub(crate) fn bias(&self) -> &[(u32, f64)] {
        &self.bias
    }

    pub(crate) fn allowed(&self) -> Option<&[u32]> {
        self.allowed.as_deref()
    }

    pub(crate) fn penalties(&self) -> &Penalties {
        &self.penalties
    }

    /// How many of the last symbols of a text the next draw depends on.
    pub fn history_len(&self) -> usize {
        match self.penalties.are_on() {
            true => self.penalties.window as usize,
            false => 0,
        }
    }

    /// 0 takes the most likely symbol.
    pub fn temperature(&self) -> f64 {
        self.temperature
    }

    /// 0 is off.
    pub fn top_k(&self) -> u32 {
        self.top_k
    }

    /// 1 is off.
    pub fn top_p(&self) -> f64 {
        self.top_p
    }

    /// 0 is off.
    pub fn min_p(&self) -> f64 {
        self.min_p
    }

    /// 1 is off.
    pub fn typical_p(&self) -> f64 {
        self.typical_p
    }

    /// `None` is off; else that many of the most likely symbols besides the one drawn.
    pub fn logprobs(&self) -> Option<u32> {
        self.logprobs
    }

    /// Of which distribution.
    pub fn logprobs_mode(&self) -> LogprobsMode {
        self.logprobs_mode
    }

    /// The same parameters for another seed.
    pub fn with_seed(self, seed: u64) -> Self {
        ValidSampling { seed, ..self }
    }

    /// Where the random bits of a draw come from.
    pub fn place(&self, position: u64, stream: u32) -> Place {
        Place { seed: self.seed, position, stream }
    }

    /// Given or drawn.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}
