//! A stream between two symbols, as data: all that its text needs, beside its parameters, to go on in another engine.
//!
//! Knows nothing of how it travels and of who may be trusted with it.

use serde::{Deserialize, Serialize};

use crate::constraint::Constraint;
use crate::error::RequestError;
use crate::state::RowState;
use crate::stop::StopSet;
use crate::vocab::Vocab;

/// Where a stream stands. Only a stream that has drawn a symbol has one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Of the model, before it reads `token`.
    pub(crate) state: RowState,
    /// The last symbol drawn.
    pub(crate) token: u32,
    pub(crate) past: SavedPast,
    pub(crate) text: SavedText,
}

/// What the next draw depends on besides the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedPast {
    /// Symbols drawn, which is the position of the next draw.
    pub(crate) num_tokens: u32,
    /// The last symbols, as many as the parameters look back on.
    pub(crate) history: Vec<u32>,
    pub(crate) guide: Option<Guide>,
}

/// Where a constraint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Guide {
    pub(crate) state: u32,
    /// Of the constraint: its states mean something to that one alone.
    pub(crate) fingerprint: u32,
}

/// What was drawn and is not text yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedText {
    /// Symbols that may be the beginning of a stop string.
    pub(crate) held: Vec<u32>,
    /// Bytes of a character that is not complete.
    pub(crate) partial: Vec<u8>,
    /// Characters of the text before all that.
    pub(crate) num_chars: u64,
}

impl Snapshot {
    /// Floats of the model's state.
    pub fn state_len(&self) -> usize {
        self.state.floats().len()
    }

    /// Symbols of the text so far.
    pub fn num_tokens(&self) -> u32 {
        self.past.num_tokens
    }

    /// Whether a text with these rules can go on from here.
    pub(crate) fn check(
        &self,
        vocab: &Vocab,
        max_tokens: u32,
        constraint: Option<&Constraint>,
        stop: &StopSet,
    ) -> Result<(), RequestError> {
        let num_tokens = self.num_tokens();
        if num_tokens >= max_tokens {
            return Err(RequestError::NothingLeft { max_tokens, num_tokens });
        }
        let ids = self.past.history.iter().chain(&self.text.held).chain([&self.token]);
        if !self.state.is_finite() || ids.max().is_some_and(|&id| id as usize >= vocab.size()) {
            return Err(RequestError::Snapshot("its state is not one of this model"));
        }
        if stop.held(self.text.stop_state(stop)) != self.text.held.len() {
            return Err(RequestError::Snapshot("what it withholds begins none of its stop strings"));
        }
        self.past.check(max_tokens, constraint)
    }
}

impl SavedPast {
    fn check(&self, max_tokens: u32, constraint: Option<&Constraint>) -> Result<(), RequestError> {
        match (constraint, self.guide) {
            (None, None) => Ok(()),
            (Some(constraint), Some(guide)) if constraint.fingerprint() == guide.fingerprint => {
                match constraint.may_go_on(guide.state, self.num_tokens) {
                    true => Ok(()),
                    false => Err(RequestError::RegexUnmatchable { min: self.num_tokens, max: max_tokens }),
                }
            }
            _ => Err(RequestError::Snapshot("its regex was compiled by another version of charrnn")),
        }
    }
}

impl SavedText {
    /// The state of a search for stop strings. What is withheld is all that it depends on.
    pub(crate) fn stop_state(&self, stop: &StopSet) -> u32 {
        self.held.iter().fold(crate::stop::START, |state, &token| stop.advance(state, token).state)
    }
}
