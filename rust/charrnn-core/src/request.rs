//! From what a client asks to what the engine runs: `GenerateRequest -> ValidRequest`.
//!
//! Only `GenerateRequest::validate` makes a `ValidRequest`; defaults and the seed are resolved there, once,
//! for gRPC, the command line and Python alike.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::constraint::{Constraint, Pattern};
use crate::error::RequestError;
use crate::limits::{self, Limit};
use crate::params::{SamplingParams, ValidSampling};
use crate::prompt_cache::MIN_SYMBOLS;
use crate::snapshot::Snapshot;
use crate::stop::StopSet;
use crate::vocab::{Unit, Vocab};

mod score;

pub use score::ScoreRequest;

/// What a text begins with.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// Text, encoded with the model's vocabulary. May be empty.
    Text(String),
    /// Symbol indices.
    Ids(Vec<u32>),
    /// Where a text of the same model and parameters stands: it goes on. `max_tokens` counts it from its beginning.
    Resume(Arc<Snapshot>),
}

/// What the text looks like and when it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stopping {
    /// See [`limits::MAX_TOKENS`].
    pub max_tokens: Option<u32>,
    /// See [`limits::MIN_TOKENS`].
    pub min_tokens: Option<u32>,
    /// The whole text matches this regular expression.
    pub regex: Option<String>,
    /// Never draw a byte that cannot continue valid UTF-8.
    pub utf8: bool,
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
    /// Tell the indices of the symbols.
    pub ids: bool,
    /// And how likely each was.
    pub logprobs: bool,
    /// And of the likeliest in its place; see [`limits::TOP_LOGPROBS`].
    pub top_logprobs: Option<u32>,
    /// The prompt comes first, as a part of the text.
    pub echo_prompt: bool,
    /// An end after which the text could go on comes with a snapshot.
    pub snapshot: bool,
}

/// What is told of each symbol besides its characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Told {
    /// Nothing, which costs nothing.
    #[default]
    Nothing,
    /// Its index.
    Ids,
    /// Its index, how likely it was, and so many of the likeliest in its place.
    Logprobs {
        /// 0 for none.
        num_top: u32,
    },
}

impl Output {
    fn told(&self) -> Result<Told, RequestError> {
        let num_top = limits::TOP_LOGPROBS.resolve_u32(self.top_logprobs)?;
        Ok(match (self.logprobs || num_top > 0, self.ids) {
            (true, _) => Told::Logprobs { num_top },
            (false, true) => Told::Ids,
            (false, false) => Told::Nothing,
        })
    }
}

/// What a client asks, unchecked.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateRequest {
    /// What the model reads first.
    pub prompt: Prompt,
    /// How symbols are drawn.
    pub sampling: SamplingParams,
    /// Which of several samples of the same prompt and seed; each has random numbers of its own.
    pub sample_index: u32,
    /// What the text looks like and when it ends.
    pub stopping: Stopping,
    /// How it is delivered.
    pub output: Output,
}

impl Stopping {
    /// Checks what can be checked without a vocabulary; returns how many tokens the text may have.
    pub fn validate(&self) -> Result<RangeInclusive<u32>, RequestError> {
        limits::NUM_STOP.check(self.stop.len() as f64)?;
        for stop in &self.stop {
            limits::STOP_TOKENS.check(stop.chars().count() as f64)?;
        }
        if let Some(regex) = &self.regex {
            limits::REGEX_CHARS.check(regex.chars().count() as f64)?;
        }
        let max = limits::MAX_TOKENS.resolve_u32(self.max_tokens)?;
        match limits::MIN_TOKENS.resolve_u32(self.min_tokens)? {
            min if min > max => Err(RequestError::Lengths { min, max }),
            min => Ok(min..=max),
        }
    }

    /// What the text may look like, if not like anything. The end symbol is no part of it.
    fn constraint(
        &self,
        vocab: &Vocab,
        sampling: &ValidSampling,
        end_token: Option<u32>,
    ) -> Result<Option<Constraint>, RequestError> {
        let end = end_token.filter(|&end| sampling.is_allowed(end));
        let pattern = match (&self.regex, self.utf8 && vocab.unit() == Unit::Byte) {
            (Some(regex), _) => Pattern::Regex(regex),
            (None, true) => Pattern::Utf8 { end },
            (None, false) => return Ok(None),
        };
        let is_allowed = |token| Some(token) != end_token && sampling.is_allowed(token);
        Constraint::new(pattern, vocab, is_allowed, self.validate()?).map(Some)
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
    /// Its symbols, as many as `limit` allows, which has the name of the text.
    fn encode(self, vocab: &Vocab, limit: Limit, ids_field: &'static str) -> Result<Vec<u32>, RequestError> {
        let token_ids = match self {
            Prompt::Text(text) => {
                limit.check(text.chars().count() as f64)?;
                let unknown = |unknown| RequestError::UnknownInText { field: limit.name, unknown };
                vocab.encode(&text).map_err(unknown)?
            }
            Prompt::Ids(ids) => check_ids(ids, vocab.size(), ids_field)?,
            // To go on is to read the symbol drawn last, in the state it was drawn from.
            Prompt::Resume(it) => vec![it.token],
        };
        limit.check(token_ids.len() as f64)?;
        Ok(token_ids)
    }
}

/// Within a document there is no end symbol.
fn check_no_end(prompt: &[u32], end_token: Option<u32>, vocab: &Vocab) -> Result<(), RequestError> {
    match prompt.iter().position(|&token| Some(token) == end_token) {
        Some(position) => {
            let (symbol, unit) = (vocab.symbol(prompt[position]), vocab.unit());
            Err(RequestError::EndInPrompt { symbol, position, unit })
        }
        None => Ok(()),
    }
}

fn check_ids(ids: Vec<u32>, vocab_size: usize, field: &'static str) -> Result<Vec<u32>, RequestError> {
    match ids.iter().position(|&id| id as usize >= vocab_size) {
        Some(position) => Err(RequestError::UnknownId { field, id: ids[position], position, vocab_size }),
        None => Ok(ids),
    }
}

/// A request that can be run as it stands.
#[derive(Clone, Debug)]
pub struct ValidRequest {
    prompt_tokens: Vec<u32>,
    num_prompt_tokens: u32,
    sampling: ValidSampling,
    sample_index: u32,
    end_token: Option<u32>,
    lengths: RangeInclusive<u32>,
    constraint: Option<Arc<Constraint>>,
    stop: StopSet,
    stop_strings: Vec<String>,
    include_stop: bool,
    chunk_chars: u32,
    max_chunk_delay: Option<Duration>,
    wants_snapshot: bool,
    snapshot: Option<Arc<Snapshot>>,
    told: Told,
    /// Of the prompt's symbols those from here on are told of: an echo, or a text to score.
    first_told: usize,
    is_score: bool,
    /// What stands before the prompt is read for the likelihood of its first symbol alone.
    forgets_start: bool,
    deadline: Option<Instant>,
    client: Arc<str>,
}

impl GenerateRequest {
    /// Checks everything against the vocabulary and the limits. An empty prompt becomes `start_token`; with an
    /// `end_token` every prompt is a document's beginning, which that symbol stands before.
    pub fn validate(
        self,
        vocab: &Vocab,
        start_token: u32,
        end_token: Option<u32>,
    ) -> Result<ValidRequest, RequestError> {
        let lengths = self.stopping.validate()?;
        let sampling = self.sampling.validate()?;
        sampling.check_ids(vocab.size())?;
        let delay_ms = self.output.max_chunk_delay_ms;
        let max_chunk_delay =
            delay_ms.map(|ms| limits::MAX_CHUNK_DELAY_MS.resolve_u32(Some(ms))).transpose()?;
        let snapshot = if let Prompt::Resume(it) = &self.prompt { Some(Arc::clone(it)) } else { None };
        let mut prompt_tokens = self.prompt.encode(vocab, limits::PROMPT_TOKENS, "prompt_ids")?;
        let num_prompt_tokens = if snapshot.is_some() { 0 } else { prompt_tokens.len() as u32 };
        check_no_end(&prompt_tokens, end_token, vocab)?;
        let is_echo = self.output.echo_prompt && num_prompt_tokens > 0;
        if snapshot.is_none() && (num_prompt_tokens == 0 || end_token.is_some() || is_echo) {
            prompt_tokens.insert(0, end_token.unwrap_or(start_token));
        }
        let constraint = self.stopping.constraint(vocab, &sampling, end_token)?.map(Arc::new);
        let stop = self.stopping.automaton(vocab)?;
        if let Some(snapshot) = &snapshot {
            snapshot.check(vocab, *lengths.end(), constraint.as_deref(), &stop)?;
        }
        Ok(ValidRequest {
            first_told: if is_echo { 1 } else { prompt_tokens.len() },
            forgets_start: is_echo && end_token.is_none(),
            prompt_tokens,
            num_prompt_tokens,
            constraint,
            sampling,
            sample_index: self.sample_index,
            end_token,
            lengths,
            stop,
            stop_strings: self.stopping.stop,
            include_stop: self.stopping.include_stop,
            chunk_chars: limits::CHUNK_CHARS.resolve_u32(self.output.chunk_chars)?,
            max_chunk_delay: max_chunk_delay.map(|ms| Duration::from_millis(u64::from(ms))),
            wants_snapshot: self.output.snapshot,
            snapshot,
            told: self.output.told()?,
            is_score: false,
            deadline: None,
            client: Arc::default(),
        })
    }
}

impl ValidRequest {
    /// The same, of which nobody wants more after `deadline`.
    pub fn until(self, deadline: Option<Instant>) -> Self {
        ValidRequest { deadline, ..self }
    }

    /// The same, of that client; while it waits, it takes turns with those of others.
    pub fn of(self, client: Arc<str>) -> Self {
        ValidRequest { client, ..self }
    }

    /// Whose it is.
    pub fn client(&self) -> &Arc<str> {
        &self.client
    }

    /// Whether nobody wants more of it.
    pub fn is_late(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// What is fed before the first symbol is drawn; never empty.
    pub fn prompt_tokens(&self) -> &[u32] {
        &self.prompt_tokens
    }

    /// Symbols of the prompt as given; 0 for an empty one and for a text that goes on.
    pub fn num_prompt_tokens(&self) -> u32 {
        self.num_prompt_tokens
    }

    /// The symbols before the last of the prompt, if nothing but the state that they lead to matters of them and to
    /// read them takes long enough.
    pub fn cacheable(&self) -> Option<&[u32]> {
        let (_, before) = self.prompt_tokens.split_last()?;
        let is_plain =
            self.first_told == self.prompt_tokens.len() && !self.is_score && self.snapshot.is_none();
        (is_plain && before.len() >= MIN_SYMBOLS).then_some(before)
    }

    /// Where the text goes on from, if it does not begin.
    pub fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        self.snapshot.as_ref()
    }

    /// Whether an end after which the text could go on comes with a snapshot.
    pub fn wants_snapshot(&self) -> bool {
        self.wants_snapshot
    }

    /// Whether the symbol at that place of `prompt_tokens` is told of.
    pub fn is_told(&self, index: usize) -> bool {
        index >= self.first_told
    }

    /// Whether the symbol at that place of `prompt_tokens` is fed to the zero state.
    pub fn begins_anew(&self, index: usize) -> bool {
        index == 1 && self.forgets_start || Some(self.prompt_tokens[index]) == self.end_token
    }

    /// What is told of each symbol.
    pub fn told(&self) -> Told {
        self.told
    }

    /// Whether it has to be measured how likely symbols are, and how many of the likeliest besides.
    pub fn num_top(&self) -> Option<u32> {
        match self.told {
            Told::Logprobs { num_top } => Some(num_top),
            Told::Nothing | Told::Ids => self.is_score.then_some(0),
        }
    }

    /// Whether its text is given and has only to be read.
    pub fn is_score(&self) -> bool {
        self.is_score
    }

    /// How symbols are drawn.
    pub fn sampling(&self) -> &ValidSampling {
        &self.sampling
    }

    /// Which of several samples of the same prompt and seed.
    pub fn sample_index(&self) -> u32 {
        self.sample_index
    }

    /// What ends the text when it is drawn, and is no part of it.
    pub fn end_token(&self) -> Option<u32> {
        self.end_token
    }

    /// Symbols after which the text ends, at least 1.
    pub fn max_tokens(&self) -> u32 {
        *self.lengths.end()
    }

    /// Symbols before which only `max_tokens` could end it.
    pub fn min_tokens(&self) -> u32 {
        *self.lengths.start()
    }

    /// What the text may look like; `None` for anything.
    pub fn constraint(&self) -> Option<&Constraint> {
        self.constraint.as_deref()
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
