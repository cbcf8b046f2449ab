//! What a stream has drawn so far, as far as the next draw depends on it.

use crate::constraint;
use crate::request::ValidRequest;
use crate::sampler::{Context, Draw, Sampler};

/// What a drawn symbol means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drawn {
    /// It is the next of the text.
    Next,
    /// It is the last: nothing may follow.
    Last,
    /// It is no part of the text, which ended before it.
    Beyond,
}

/// The past of a stream.
#[derive(Debug)]
pub(crate) struct Past {
    num_tokens: u32,
    /// The last symbols, at least as many as the parameters look back on.
    history: Vec<u32>,
    /// Of the constraint.
    state: u32,
}

impl Past {
    pub(crate) fn new() -> Self {
        Past { num_tokens: 0, history: Vec::new(), state: constraint::START }
    }

    /// Symbols drawn, which is the position of the next draw.
    pub(crate) fn num_tokens(&self) -> u32 {
        self.num_tokens
    }

    /// Draws the next symbol from `logits`, `(V,)`.
    pub(crate) fn draw(
        &self,
        request: &ValidRequest,
        logits: &[f32],
        sampler: &mut Sampler,
        scratch: &mut Vec<u64>,
    ) -> Draw {
        // In a match the end has the probability of all that the expression forbids, so nothing is masked.
        let masking = request.constraint().filter(|it| !it.may_end(self.state, self.num_tokens));
        let mask = masking.map(|it| it.mask(self.state, self.num_tokens, scratch));
        let sampling = request.sampling();
        let place = sampling.place(u64::from(self.num_tokens), request.sample_index());
        sampler.sample(logits, sampling, place, Context { history: &self.history, mask })
    }

    /// Takes a drawn symbol.
    pub(crate) fn push(&mut self, request: &ValidRequest, token: u32) -> Drawn {
        if let Some(constraint) = request.constraint() {
            match constraint.advance(self.state, self.num_tokens, token) {
                Some(state) => self.state = state,
                None => return Drawn::Beyond,
            }
        }
        self.num_tokens += 1;
        self.remember(token, request.sampling().history_len());
        match request.constraint() {
            Some(constraint) if constraint.is_over(self.state, self.num_tokens) => Drawn::Last,
            _ => Drawn::Next,
        }
    }

    /// Forgets in large steps, so that a symbol costs the same however long the history is.
    fn remember(&mut self, token: u32, history_len: usize) {
        if history_len == 0 {
            return;
        }
        if self.history.len() >= 2 * history_len {
            self.history.drain(..=history_len);
        }
        self.history.push(token);
    }
}
