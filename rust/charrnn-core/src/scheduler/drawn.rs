//! What a stream has drawn so far, as far as the next draw depends on it; and what draws work with.

use crate::constraint::{self, Constraint};
use crate::event::Symbols;
use crate::request::{Told, ValidRequest};
use crate::sampler::{Context, Draw, Sampler};
use crate::snapshot::{Guide, SavedPast};

/// What draws take, and the room they work in.
pub(crate) struct Draws {
    sampler: Sampler,
    /// Of a constraint.
    mask: Vec<u64>,
    measured: Measured,
}

impl Draws {
    pub(crate) fn new(vocab_size: usize) -> Self {
        Draws { sampler: Sampler::new(vocab_size), mask: Vec::new(), measured: Measured::default() }
    }

    /// Measures how likely a symbol is by `logits`, `(V,)`, and `num_top` of the likeliest; false if they are no numbers.
    pub(crate) fn measure(&mut self, logits: &[f32], token: u32, num_top: u32) -> bool {
        let logprob = self.sampler.measure(logits, token, num_top as usize, &mut self.measured.top);
        logprob.is_some_and(|logprob| {
            self.measured.logprob = logprob;
            true
        })
    }

    /// What was measured last.
    pub(crate) fn measured(&self) -> &Measured {
        &self.measured
    }
}

/// How likely a symbol was.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// `ln p` in the model's own distribution.
    pub(crate) logprob: f64,
    /// The likeliest symbols with theirs.
    top: Vec<(u32, f32)>,
}

impl Measured {
    /// Of a symbol of which it is not known any more.
    pub(crate) fn unknown(token: u32, told: Told) -> Self {
        let num_top = if let Told::Logprobs { num_top } = told { num_top } else { 0 };
        Measured { logprob: f64::NAN, top: vec![(token, f32::NAN); num_top as usize] }
    }

    /// Appends what is told of the symbol.
    pub(crate) fn record(&self, token: u32, told: Told, symbols: &mut Symbols) {
        match told {
            Told::Nothing => {}
            Told::Ids => symbols.ids.push(token),
            Told::Logprobs { .. } => {
                symbols.ids.push(token);
                symbols.logprobs.push(self.logprob as f32);
                symbols.top.extend_from_slice(&self.top);
            }
        }
    }
}

/// What a drawn symbol means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drawn {
    /// It is the next of the text.
    Next,
    /// It is the last: nothing may follow.
    Last,
    /// It is no part of the text, which matched the expression before it.
    Beyond,
    /// It is the end symbol.
    End,
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

    /// The past of a stream that goes on.
    pub(crate) fn resume(saved: &SavedPast) -> Self {
        let state = saved.guide.map_or(constraint::START, |guide| guide.state);
        Past { num_tokens: saved.num_tokens, history: saved.history.clone(), state }
    }

    pub(crate) fn save(&self, request: &ValidRequest) -> SavedPast {
        let start = self.history.len().saturating_sub(request.sampling().history_len());
        let guide = |it: &Constraint| Guide { state: self.state, fingerprint: it.fingerprint() };
        SavedPast {
            num_tokens: self.num_tokens,
            history: self.history[start..].to_vec(),
            guide: request.constraint().map(guide),
        }
    }

    /// Symbols drawn, which is the position of the next draw.
    pub(crate) fn num_tokens(&self) -> u32 {
        self.num_tokens
    }

    /// Draws the next symbol from `logits`, `(V,)`, and measures it if that is told.
    pub(crate) fn draw(&self, request: &ValidRequest, logits: &[f32], draws: &mut Draws) -> Draw {
        let mask = self.mask(request, logits.len(), &mut draws.mask);
        let sampling = request.sampling();
        let place = sampling.place(u64::from(self.num_tokens), request.sample_index());
        let draw = draws.sampler.sample(logits, sampling, place, Context { history: &self.history, mask });
        if let (Draw::Token(token), Some(num_top)) = (draw, request.num_top()) {
            draws.measure(logits, token, num_top);
        }
        draw
    }

    /// The symbols that may come next, if not all: a bit each.
    fn mask<'a>(
        &self,
        request: &'a ValidRequest,
        vocab_size: usize,
        scratch: &'a mut Vec<u64>,
    ) -> Option<&'a [u64]> {
        match (request.constraint(), request.end_token()) {
            // In a match the end has the probability of all that the expression forbids, so nothing is masked.
            (Some(it), _) if it.may_end(self.state, self.num_tokens) => None,
            (Some(it), _) => Some(it.mask(self.state, self.num_tokens, scratch)),
            (None, Some(end)) if self.num_tokens < request.min_tokens() => {
                Some(all_but(end, vocab_size, scratch))
            }
            (None, _) => None,
        }
    }

    /// Takes a drawn symbol.
    pub(crate) fn push(&mut self, request: &ValidRequest, token: u32) -> Drawn {
        let is_match = request.constraint().is_some_and(|it| it.may_end(self.state, self.num_tokens));
        if request.end_token() == Some(token) && !is_match {
            return Drawn::End;
        }
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

fn all_but(token: u32, vocab_size: usize, mask: &mut Vec<u64>) -> &[u64] {
    mask.clear();
    mask.resize(vocab_size.div_ceil(64), u64::MAX);
    mask[token as usize / 64] &= !(1 << (token % 64));
    mask
}
