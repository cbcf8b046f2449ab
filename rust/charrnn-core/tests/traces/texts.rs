//! One text of a trace: what its reader took, and what that must be.

use std::time::{Duration, Instant};

use charrnn_core::event::{FinishReason, Finished, StreamError};
use charrnn_core::meter::Outcome;
use charrnn_core::request::Prompt;

use crate::common::requests::poison;
use crate::common::{solo_ending, Reader, Rig, Transcript};
use crate::trace::{Poison, Trace, Wanted};

pub(crate) struct Text {
    wanted: Wanted,
    /// None once cancelled.
    reader: Option<Reader>,
    got: Transcript,
    /// When the reader took something last, or the request was accepted.
    taken_at: Instant,
    /// Whether the reader had been slow for too long when the engine let go of the text.
    let_go: Option<bool>,
}

impl Text {
    pub(crate) fn new(wanted: Wanted, reader: Reader, now: Instant) -> Self {
        Text { wanted, reader: Some(reader), got: Transcript::default(), taken_at: now, let_go: None }
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
        let reason = self.got.finished.as_ref().map(|finished| finished.reason);
        if self.is_poisoned(trace) {
            assert!(self.echo(rig).starts_with(&self.got.text), "drawn from what are no numbers");
            assert!(
                matches!(reason, None | Some(FinishReason::Deadline)),
                "{reason:?} of a model that failed"
            );
            return;
        }
        let mut alone = solo_ending(&self.wanted.request, &rig.vocab, trace.end_token);
        alone.text.insert_str(0, &self.echo(rig));
        let (got, text) = (&self.got, &self.got.text);
        assert!(alone.text.starts_with(text), "not the start of {:?}: {got:?}", alone.text);
        if reason.is_some_and(|reason| ![FinishReason::Deadline, FinishReason::Drained].contains(&reason)) {
            assert_eq!(got.complete(), alone);
        }
    }

    fn echoed(&self) -> &[u32] {
        match &self.wanted.request.prompt {
            Prompt::Ids(ids) if self.wanted.request.output.echo_prompt => ids,
            _ => &[],
        }
    }

    fn echo(&self, rig: &Rig) -> String {
        rig.vocab.decode(self.echoed())
    }

    /// What is told of symbols belongs to the characters that it comes with, and comes if it was asked for.
    fn check_symbols(&self, rig: &Rig) {
        let (output, got) = (&self.wanted.request.output, &self.got);
        let num_top = output.top_logprobs.unwrap_or(0) as usize;
        let has_logprobs = output.logprobs || num_top > 0;
        let num_telling = if output.ids || has_logprobs { got.chunk_chars.len() } else { 0 };
        assert_eq!(got.pieces.len(), num_telling, "{output:?}");
        let (mut ids, mut text) = (Vec::new(), String::new());
        for (piece, symbols) in &got.pieces {
            let num = symbols.ids.len();
            let lens = (symbols.logprobs.len(), symbols.top.len());
            assert_eq!(lens, (if has_logprobs { num } else { 0 }, num * num_top), "{output:?}");
            ids.extend(&symbols.ids);
            text += piece;
            let (of_prompt, drawn) = ids.split_at(self.echoed().len().min(ids.len()));
            assert!(self.echoed().starts_with(of_prompt), "{of_prompt:?} is no echo");
            assert_eq!(rig.vocab.decode(of_prompt) + &rig.vocab.decode(drawn), text, "of other characters");
        }
    }

    fn check_finished(&self, finished: &Finished, rig: &Rig, trace: &Trace, is_aborted: bool) {
        let (time, timing) = (self.wanted.time, finished.timing);
        if let Some(time) = time.filter(|_| timing.num_steps > 0) {
            assert!(timing.queue < time, "begun when it was late: {finished:?} of {time:?}");
        }
        match finished.reason {
            FinishReason::Deadline => {
                assert!(time.is_some_and(|time| timing.total >= time), "early: {finished:?} of {time:?}");
            }
            FinishReason::Length => {
                let valid = rig.valid(&self.wanted.request);
                let num_steps = valid.prompt_tokens().len() as u64 + u64::from(valid.max_tokens()) - 1;
                assert_eq!(timing.num_steps, num_steps, "steps of {finished:?}");
            }
            FinishReason::Drained => {
                assert!(is_aborted && finished.snapshot.is_some(), "drained by nobody: {finished:?}");
            }
            _ => {}
        }
        assert!(finished.snapshot.is_none() || self.wanted.request.output.snapshot, "unasked: {finished:?}");
        assert!(finished.timing.mean_batch <= trace.max_streams as f64, "{finished:?}");
    }
}
