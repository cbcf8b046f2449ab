//! From what a client asks to what the engine runs: `GenerateRequest -> ValidRequest`.
//!
//! Only `GenerateRequest::validate` makes a `ValidRequest`; defaults and the seed are resolved there, once,
//! for gRPC, the command line and Python alike.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::error::RequestError;
use crate::limits;
use crate::stop::StopSet;
use crate::vocab::Vocab;

/// The first symbols the model reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// Text, encoded with the model's vocabulary. May be empty.
    Text(String),
    /// Symbol indices.
    Ids(Vec<u32>),
}

/// How the next symbol is drawn; `None` is the default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SamplingParams {
    /// See [`limits::TEMPERATURE`].
    pub temperature: Option<f64>,
    /// See [`limits::TOP_K`].
    pub top_k: Option<u32>,
    /// See [`limits::TOP_P`].
    pub top_p: Option<f64>,
    /// See [`limits::MIN_P`].
    pub min_p: Option<f64>,
    /// `None` draws one.
    pub seed: Option<u64>,
}

/// When the text ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stopping {
    /// See [`limits::MAX_TOKENS`].
    pub max_tokens: Option<u32>,
    /// The text ends before the first of these.
    pub stop: Vec<String>,
    /// Keep the matched stop string at the end of the text.
    pub include_stop: bool,
}

/// How the text is delivered; nothing here changes the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// See [`limits::CHUNK_CHARS`].
    pub chunk_chars: Option<u32>,
    /// See [`limits::MAX_CHUNK_DELAY_MS`].
    pub max_chunk_delay_ms: Option<u32>,
}

/// What a client asks, unchecked.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateRequest {
    /// What the model reads first.
    pub prompt: Prompt,
    /// How symbols are drawn.
    pub sampling: SamplingParams,
    /// When the text ends.
    pub stopping: Stopping,
    /// How it is delivered.
    pub output: Output,
}

/// Sampling parameters within their limits, the seed decided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValidSampling {
    temperature: f64,
    top_k: u32,
    top_p: f64,
    min_p: f64,
    seed: u64,
}

impl ValidSampling {
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

    /// Given or drawn.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The same parameters for another seed.
    pub fn with_seed(self, seed: u64) -> Self {
        ValidSampling { seed, ..self }
    }
}

impl SamplingParams {
    /// Checks every field against the table; draws a seed where none is given.
    pub fn validate(&self) -> Result<ValidSampling, RequestError> {
        Ok(ValidSampling {
            temperature: limits::TEMPERATURE.resolve(self.temperature)?,
            top_k: limits::TOP_K.resolve_u32(self.top_k)?,
            top_p: limits::TOP_P.resolve(self.top_p)?,
            min_p: limits::MIN_P.resolve(self.min_p)?,
            seed: self.seed.unwrap_or_else(random_seed),
        })
    }
}

/// 64 bits from the system's entropy: every `RandomState` has keys of its own.
fn random_seed() -> u64 {
    RandomState::new().hash_one(())
}

impl Stopping {
    /// Checks what can be checked without a vocabulary; returns `max_tokens`.
    pub fn validate(&self) -> Result<u32, RequestError> {
        limits::NUM_STOP.check(self.stop.len() as f64)?;
        for stop in &self.stop {
            limits::STOP_TOKENS.check(stop.chars().count() as f64)?;
        }
        limits::MAX_TOKENS.resolve_u32(self.max_tokens)
    }

    fn automaton(&self, vocab: &Vocab) -> Result<StopSet, RequestError> {
        let encode = |(index, stop): (usize, &String)| {
            vocab.encode(stop).map_err(|unknown| RequestError::UnknownInStop { index, unknown })
        };
        let patterns: Vec<_> = self.stop.iter().enumerate().map(encode).collect::<Result<_, _>>()?;
        for pattern in &patterns {
            limits::STOP_TOKENS.check(pattern.len() as f64)?;
        }
        Ok(StopSet::new(&patterns))
    }
}

impl Prompt {
    fn encode(self, vocab: &Vocab) -> Result<Vec<u32>, RequestError> {
        let token_ids = match self {
            Prompt::Text(text) => {
                limits::PROMPT_TOKENS.check(text.chars().count() as f64)?;
                vocab.encode(&text).map_err(RequestError::UnknownInPrompt)?
            }
            Prompt::Ids(ids) => check_ids(ids, vocab.size())?,
        };
        limits::PROMPT_TOKENS.check(token_ids.len() as f64)?;
        Ok(token_ids)
    }
}

fn check_ids(ids: Vec<u32>, vocab_size: usize) -> Result<Vec<u32>, RequestError> {
    match ids.iter().position(|&id| id as usize >= vocab_size) {
        Some(position) => Err(RequestError::UnknownId { id: ids[position], position, vocab_size }),
        None => Ok(ids),
    }
}

/// A request that can be run as it stands.
#[derive(Clone, Debug)]
pub struct ValidRequest {
    prompt_tokens: Vec<u32>,
    num_prompt_tokens: u32,
    sampling: ValidSampling,
    max_tokens: u32,
    stop: StopSet,
    stop_strings: Vec<String>,
    include_stop: bool,
    chunk_chars: u32,
    max_chunk_delay: Option<Duration>,
}

impl GenerateRequest {
    /// Checks everything against the vocabulary and the limits. An empty prompt becomes `start_token`.
    pub fn validate(self, vocab: &Vocab, start_token: u32) -> Result<ValidRequest, RequestError> {
        let max_tokens = self.stopping.validate()?;
        let delay_ms = self.output.max_chunk_delay_ms;
        let max_chunk_delay =
            delay_ms.map(|ms| limits::MAX_CHUNK_DELAY_MS.resolve_u32(Some(ms))).transpose()?;
        let mut prompt_tokens = self.prompt.encode(vocab)?;
        let num_prompt_tokens = prompt_tokens.len() as u32;
        if prompt_tokens.is_empty() {
            prompt_tokens.push(start_token);
        }
        Ok(ValidRequest {
            prompt_tokens,
            num_prompt_tokens,
            sampling: self.sampling.validate()?,
            max_tokens,
            stop: self.stopping.automaton(vocab)?,
            stop_strings: self.stopping.stop,
            include_stop: self.stopping.include_stop,
            chunk_chars: limits::CHUNK_CHARS.resolve_u32(self.output.chunk_chars)?,
            max_chunk_delay: max_chunk_delay.map(|ms| Duration::from_millis(u64::from(ms))),
        })
    }
}

impl ValidRequest {
    /// What is fed before the first symbol is drawn; never empty.
    pub fn prompt_tokens(&self) -> &[u32] {
        &self.prompt_tokens
    }

    /// Symbols of the prompt as given; 0 for an empty one.
    pub fn num_prompt_tokens(&self) -> u32 {
        self.num_prompt_tokens
    }

    /// How symbols are drawn.
    pub fn sampling(&self) -> &ValidSampling {
        &self.sampling
    }

    /// Symbols after which the text ends, at least 1.
    pub fn max_tokens(&self) -> u32 {
        self.max_tokens
    }

    /// The stop strings as an automaton.
    pub fn stop(&self) -> &StopSet {
        &self.stop
    }

    /// The stop strings as given; the automaton's indices are theirs.
    pub fn stop_strings(&self) -> &[String] {
        &self.stop_strings
    }

    /// Whether the text keeps its stop string.
    pub fn include_stop(&self) -> bool {
        self.include_stop
    }

    /// Characters a chunk holds before it is sent.
    pub fn chunk_chars(&self) -> u32 {
        self.chunk_chars
    }

    /// Longest wait of a character for its chunk; `None` leaves it to the engine.
    pub fn max_chunk_delay(&self) -> Option<Duration> {
        self.max_chunk_delay
    }
}
