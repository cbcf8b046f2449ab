//! One text of a trace: what its reader took, and what that must be.

use std::time::{Duration, Instant};

use charrnn_core::event::{FinishReason, Finished, StreamError};
use charrnn_core::meter::Outcome;
use charrnn_core::request::{GenerateRequest, Prompt};
use charrnn_core::snapshot::Snapshot;

use crate::common::requests::poison;
use crate::common::{sent, solo_ending, Reader, Rig, Transcript};
use crate::trace::{Audience, Poison, Trace, Wanted};

/// What is asked for of a text, all of it or from where it was cut.
pub(crate) struct Rest {
    pub(crate) wanted: Wanted,
    uncut: GenerateRequest,
    /// What there is.
    text: String,
}

impl From<Wanted> for Rest {
    fn from(wanted: Wanted) -> Self {
        Rest { uncut: wanted.request.clone(), wanted, text: String::new() }
    }
}

pub(crate) struct Text {
    wanted: Wanted,
    /// The same if it had never been cut.
    uncut: GenerateRequest,
    /// None once cancelled.
    reader: Option<Reader>,
    got: Transcript,
    /// When the reader took something last, or the request was accepted.
    taken_at: Instant,
    /// Whether the reader had been slow for too long when the engine let go of the text.
    let_go: Option<bool>,
}

impl Text {
    pub(crate) fn new(rest: Rest, reader: Reader, now: Instant) -> Self {
        let Rest { wanted, uncut, text } = rest;
        let got = Transcript::after(text);
        Text { wanted, uncut, reader: Some(reader), got, taken_at: now, let_go: None }
    }

    /// What is left of it, if it was cut.
    pub(crate) fn rest(&self, audience: Audience) -> Option<Rest> {
        let snapshot = self.snapshot()?;
        let request = GenerateRequest { prompt: Prompt::Resume(sent(snapshot)), ..self.uncut.clone() };
        let (uncut, text) = (self.uncut.clone(), self.got.text.clone());
        Some(Rest { wanted: Wanted { request, audience }, uncut, text })
    }

    /// Where it was cut, if it was and can go on.
    pub(crate) fn snapshot(&self) -> Option<&Snapshot> {
        self.got.finished.as_ref().filter(|_| self.is_cut())?.snapshot.as_deref()
    }

    fn is_cut(&self) -> bool {
        let reason = self.got.finished.as_ref().map(|finished| finished.reason);
        matches!(reason, Some(FinishReason::Deadline | FinishReason::Drained | FinishReason::Stalled))
    }

    /// Whether it has come to its own end.
    pub(crate) fn is_whole(&self) -> bool {
        self.got.finished.is_some() && !self.is_cut()
    }

    pub(crate) fn cancel(&mut self) {
        self.reader = None;
    }

    /// Takes up to `count` events.
    pub(crate) fn read(&mut self, count: usize, now: Instant) {
        let Some(reader) = &self.reader else { return };
        for event in (0..count).map_while(|_| reader.take()) {
            self.got.add(event);
            self.taken_at = now;
        }
    }

    /// Whether a model may work on it.
    pub(crate) fn is_open(&self) -> bool {
        self.reader.as_ref().is_some_and(|reader| !reader.is_over())
    }

    /// Looks whether the engine let go of it.
    pub(crate) fn look(&mut self, now: Instant, stall_timeout: Duration) {
        if self.let_go.is_none() && !self.is_open() {
            self.let_go = Some(now.saturating_duration_since(self.taken_at) >= stall_timeout);
        }
    }

    /// How it ended, if its reader was told.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        match (&self.got.finished, &self.got.failed) {
            (Some(finished), _) => Some(Outcome::Finished(finished.reason)),
            (_, Some(error)) => Some(Outcome::from(error)),
            _ => None,
        }
    }

    /// Whether the model fails because of what it reads.
    pub(crate) fn is_poisoned(&self, trace: &Trace) -> bool {
        let Prompt::Ids(ids) = &self.wanted.request.prompt else { return false };
        let is_harmful = !matches!(trace.poison, Poison::Harmless);
        is_harmful && ids.last() == Some(&poison(trace.unit))
    }

    /// Checks what the reader got, now that nothing more comes.
    pub(crate) fn check(&self, rig: &Rig, trace: &Trace, is_aborted: bool) {
        self.check_text(rig, trace);
        self.check_symbols(rig);
        let was_slow = self.let_go == Some(true);
        match (&self.got.finished, &self.got.failed) {
            (Some(finished), _) => self.check_finished(finished, rig, trace, is_aborted),
            (_, Some(StreamError::Model(_))) => {}
            (_, Some(StreamError::Stopping)) => assert!(is_aborted, "stopped by nobody: {:?}", self.got),
            (_, Some(StreamError::Stalled(_))) => assert!(was_slow, "given up too soon: {:?}", self.got),
            (None, None) => {
                assert!(self.reader.is_none() || is_aborted || was_slow, "left alone: {:?}", self.got);
            }
        }
    }

    /// A whole text is that of the request alone, and any other the beginning of it.
    fn check_text(&self, rig: &Rig, trace: &Trace) {
        if self.is_poisoned(trace) {
            assert!(self.echo(rig).starts_with(&self.got.text), "drawn from what are no numbers");
            assert!(!self.is_whole(), "{:?} of a model that failed", self.got.finished);
            return;
        }
        let mut alone = solo_ending(&self.uncut, &rig.vocab, trace.end_token);
        alone.text.insert_str(0, &self.echo(rig));
        let (got, text) = (&self.got, &self.got.text);
        assert!(alone.text.starts_with(text), "not the start of {:?}: {got:?}", alone.text);
        if self.is_whole() {
            assert_eq!(got.complete(), alone);
        }
    }

    fn echo(&self, rig: &Rig) -> String {
        rig.vocab.decode(echoed(&self.uncut))
    }

    /// What is told of symbols belongs to the characters that it comes with, and comes if it was asked for.
    fn check_symbols(&self, rig: &Rig) {
        let (output, got) = (&self.wanted.request.output, &self.got);
        let num_top = output.top_logprobs.unwrap_or(0) as usize;
        let has_logprobs = output.logprobs || num_top > 0;
        let num_telling = if output.ids || has_logprobs { got.chunk_chars.len() } else { 0 };
        assert_eq!(got.pieces.len(), num_telling, "{output:?}");
        let echoed = echoed(&self.wanted.request);
        let (mut ids, mut text) = (Vec::new(), String::new());
        for (piece, symbols) in &got.pieces {
            let num = symbols.ids.len();
            let lens = (symbols.logprobs.len(), symbols.top.len());
            assert_eq!(lens, (if has_logprobs { num } else { 0 }, num * num_top), "{output:?}");
            ids.extend(&symbols.ids);
            text += piece;
            let (of_prompt, drawn) = ids.split_at(echoed.len().min(ids.len()));
            assert!(echoed.starts_with(of_prompt), "{of_prompt:?} is no echo");
            assert_eq!(rig.vocab.decode(of_prompt) + &rig.vocab.decode(drawn), text, "of other characters");
        }
    }

    fn check_finished(&self, finished: &Finished, rig: &Rig, trace: &Trace, is_aborted: bool) {
        let (time, timing) = (self.wanted.audience.time, finished.timing);
        if let Some(time) = time.filter(|_| timing.num_steps > 0) {
            assert!(timing.queue < time, "begun when it was late: {finished:?} of {time:?}");
        }
        match finished.reason {
            FinishReason::Deadline => {
                assert!(time.is_some_and(|time| timing.total >= time), "early: {finished:?} of {time:?}");
            }
            FinishReason::Length => {
                let valid = rig.valid(&self.wanted.request);
                let num_before = valid.snapshot().map_or(0, |it| it.num_tokens());
                let num_drawn = u64::from(valid.max_tokens() - num_before);
                let num_steps = valid.prompt_tokens().len() as u64 + num_drawn - 1;
                assert_eq!(timing.num_steps, num_steps, "steps of {finished:?}");
            }
            FinishReason::Drained => {
                assert!(is_aborted && finished.snapshot.is_some(), "drained by nobody: {finished:?}");
            }
            FinishReason::Stalled => {
                let was_slow = self.let_go == Some(true);
                assert!(was_slow && finished.snapshot.is_some(), "given up too soon: {finished:?}");
            }
            _ => {}
        }
        assert!(finished.snapshot.is_none() || self.wanted.request.output.snapshot, "unasked: {finished:?}");
        assert!(finished.timing.mean_batch <= trace.max_streams as f64, "{finished:?}");
    }
}

fn echoed(request: &GenerateRequest) -> &[u32] {
    match &request.prompt {
        Prompt::Ids(ids) if request.output.echo_prompt => ids,
        _ => &[],
    }
}
