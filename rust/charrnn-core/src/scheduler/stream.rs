//! One stream: a request, where it stands, and the events its reader has yet to take.
//!
//! Knows nothing of the other streams or of rows; the state of its model lives elsewhere.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::event::{Event, FinishReason, Finished, Scored, SendError, Sink, Started, StreamError, Timing};
use crate::meter::Outcome;
use crate::request::ValidRequest;
use crate::sampler::Draw;
use crate::snapshot::{SavedText, Snapshot};
use crate::state::RowState;
use crate::vocab::{Unit, Vocab};

use super::admission::Ticket;
use super::drawn::{Drawn, Draws, Measured, Past};
use super::text::TextBuffer;

mod reading;

pub(crate) use reading::NO_NUMBERS;

/// Room kept for the next chunk; longer ones grow.
const MAX_CHUNK_ROOM: u32 = 64;

/// What became of a stream's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// All handed over; more will come.
    Open,
    /// The reader has no room.
    Blocked,
    /// The last event is handed over, or the reader is gone.
    Over,
}

/// What completes a text.
#[derive(Clone, Copy, Debug)]
enum End {
    Length,
    /// The stop string of that index.
    Stop(usize),
    Match,
    /// The end symbol.
    Symbol,
}

/// When a stream got where it is.
#[derive(Debug)]
struct Times {
    accepted: Instant,
    first_step: Option<Instant>,
    first_char: Option<Instant>,
    last_chunk: Option<Instant>,
    num_steps: u64,
    /// Sum of the batch sizes over those steps.
    batch_sum: u64,
}

impl Times {
    fn new(accepted: Instant) -> Self {
        Times { accepted, first_step: None, first_char: None, last_chunk: None, num_steps: 0, batch_sum: 0 }
    }
}

/// A live stream.
pub(crate) struct Stream {
    request: ValidRequest,
    sink: Box<dyn Sink>,
    ticket: Ticket,
    text: TextBuffer,
    /// Symbols of the prompt given to the model.
    num_fed: usize,
    /// The state after all of the prompt but its last symbol, if it was read before.
    cached: Option<Arc<RowState>>,
    /// Whether the prompt is read here, and may be looked up by others.
    reads_prompt: bool,
    past: Past,
    /// Of a text to score, so far.
    scored: Scored,
    times: Times,
    /// Since when characters have been ready for a chunk.
    ready_since: Instant,
    outbox: VecDeque<Event>,
    /// Of a stream that has ended and could go on: what was no text yet, until the state of the model joins it.
    saved: Option<SavedText>,
    is_ended: bool,
}

impl Stream {
    /// A stream accepted at `now`; its first event waits to be handed over.
    pub(crate) fn new(
        request: ValidRequest,
        sink: Box<dyn Sink>,
        mut ticket: Ticket,
        vocab: &Vocab,
        now: Instant,
    ) -> Self {
        ticket.begin();
        let (seed, num_prompt_tokens) = (request.sampling().seed(), request.num_prompt_tokens());
        let (told, stop) = (request.told(), request.stop());
        let (text, past) = match request.snapshot() {
            Some(it) => (TextBuffer::resume(vocab, told, &it.text, stop), Past::resume(&it.past)),
            None => (TextBuffer::new(vocab.unit(), told), Past::new()),
        };
        Stream {
            text,
            request,
            sink,
            ticket,
            num_fed: 0,
            cached: None,
            reads_prompt: true,
            past,
            scored: Scored::default(),
            times: Times::new(now),
            ready_since: now,
            outbox: VecDeque::from([Event::Started(Started {
                seed,
                num_prompt_tokens,
                num_cached_tokens: 0,
            })]),
            saved: None,
            is_ended: false,
        }
    }

    /// Whether the reader is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.sink.is_closed()
    }

    /// Whether its last event is written, handed over or not.
    pub(crate) fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Events the reader has yet to take.
    pub(crate) fn num_unsent(&self) -> usize {
        self.outbox.len()
    }

    pub(crate) fn worker(&self) -> usize {
        self.ticket.worker()
    }

    /// Draws its next symbol from `logits`, `(V,)`.
    pub(crate) fn draw(&self, logits: &[f32], draws: &mut Draws) -> Draw {
        self.past.draw(&self.request, logits, draws)
    }

    /// The stream got its first slot.
    pub(crate) fn start(&mut self, now: Instant) {
        self.ticket.start();
        self.times.first_step = Some(now);
        self.ticket.streams().queue.add_time(now.saturating_duration_since(self.times.accepted));
    }

    /// Whose it is.
    pub(crate) fn client(&self) -> &Arc<str> {
        self.request.client()
    }

    /// A step was run for it among `batch` rows.
    pub(crate) fn count_step(&mut self, batch: usize) {
        self.times.num_steps += 1;
        self.times.batch_sum += batch as u64;
    }

    /// Begins with the last symbol of the prompt, in the state that the others lead to.
    pub(crate) fn skip_prompt(&mut self, state: Arc<RowState>) {
        (self.cached, self.reads_prompt) = (Some(state), false);
        self.num_fed = self.request.prompt_tokens().len() - 1;
        if let Some(Event::Started(started)) = self.outbox.front_mut() {
            started.num_cached_tokens = started.num_prompt_tokens.saturating_sub(1);
        }
    }

    pub(crate) fn take_cached(&mut self) -> Option<Arc<RowState>> {
        self.cached.take()
    }

    /// The symbols that led to its row, if that is worth keeping: all of a prompt but the last, which is fed next.
    pub(crate) fn prompt_to_cache(&self) -> Option<&[u32]> {
        let is_last_fed = self.num_fed == self.request.prompt_tokens().len() && self.past.num_tokens() == 0;
        let is_wanted = self.reads_prompt && is_last_fed && !self.is_ended;
        is_wanted.then(|| self.request.cacheable()).flatten()
    }

    /// What it goes on from, if it does.
    pub(crate) fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.request.snapshot().cloned()
    }

    /// The next symbol of the prompt, as long as there is one.
    pub(crate) fn next_prompt_token(&mut self) -> Option<u32> {
        let token = *self.request.prompt_tokens().get(self.num_fed)?;
        self.num_fed += 1;
        Some(token)
    }

    /// Takes a drawn symbol; ends the stream if it was the last.
    pub(crate) fn push(&mut self, token: u32, measured: &Measured, vocab: &Vocab, now: Instant) {
        let drawn = self.past.push(&self.request, token);
        match drawn {
            Drawn::Beyond => return self.finish(End::Match, vocab, now),
            Drawn::End => return self.finish(End::Symbol, vocab, now),
            Drawn::Next | Drawn::Last => {}
        }
        if self.times.first_char.is_none() {
            self.times.first_char = Some(now);
            self.ticket.streams().first_char.add_time(now.saturating_duration_since(self.times.accepted));
        }
        let had_chars = self.text.num_chars() > 0;
        let num_tokens = self.past.num_tokens();
        let may_stop = num_tokens >= self.request.min_tokens();
        self.text.note(token, measured);
        match self.text.push(token, self.request.stop(), may_stop, vocab) {
            Some(matched) => self.finish(End::Stop(matched), vocab, now),
            None if num_tokens == self.request.max_tokens() => self.finish(End::Length, vocab, now),
            None if drawn == Drawn::Last => self.finish(End::Match, vocab, now),
            None if !had_chars => self.ready_since = now,
            None => {}
        }
    }

    /// The text is complete.
    fn finish(&mut self, end: End, vocab: &Vocab, now: Instant) {
        let (reason, matched) = match end {
            End::Length => (FinishReason::Length, None),
            End::Stop(index) => (FinishReason::Stop, Some(index)),
            End::Match => (FinishReason::Match, None),
            End::Symbol => (FinishReason::End, None),
        };
        let matched_stop = matched.map(|index| self.request.stop_strings()[index].clone());
        let num_cut = match &matched_stop {
            Some(stop) if !self.request.include_stop() => num_symbols(stop, vocab.unit()),
            _ => 0,
        };
        if reason == FinishReason::Length {
            self.save();
        }
        self.text.finish(num_cut, vocab);
        self.end_with(reason, matched_stop, now);
    }

    /// Keeps what is withheld, if the reader may want the text to go on and a symbol was drawn, here or before.
    fn save(&mut self) {
        let is_begun = self.times.num_steps > 0 && self.past.num_tokens() > 0;
        if self.request.wants_snapshot() && is_begun {
            self.saved = Some(self.text.save());
        }
    }

    /// Whether `attach` is wanted.
    pub(crate) fn wants_state(&self) -> bool {
        self.saved.is_some()
    }

    /// Completes the last event with the state of the model before it reads `token`, the last symbol drawn.
    pub(crate) fn attach(&mut self, state: RowState, token: u32) {
        if let (Some(text), Some(Event::Finished(last))) = (self.saved.take(), self.outbox.back_mut()) {
            let past = self.past.save(&self.request);
            // Numbers that are none end every text at its next step.
            last.snapshot = state.is_finite().then(|| Box::new(Snapshot { state, token, past, text }));
        }
    }

    fn end_with(&mut self, reason: FinishReason, matched_stop: Option<String>, now: Instant) {
        self.flush(now);
        self.ticket.end(Outcome::Finished(reason));
        let (num_chars, timing) = (self.text.num_taken(), self.timing(now));
        self.end(Event::Finished(Finished { reason, matched_stop, num_chars, timing, snapshot: None }));
    }

    fn timing(&self, now: Instant) -> Timing {
        let since = |end: Option<Instant>| end.unwrap_or(now).saturating_duration_since(self.times.accepted);
        Timing {
            queue: since(self.times.first_step),
            first_char: since(self.times.first_char),
            total: since(Some(now)),
            num_steps: self.times.num_steps,
            mean_batch: self.times.batch_sum as f64 / self.times.num_steps.max(1) as f64,
        }
    }

    /// Ends the stream early, with the text released so far. Does nothing to a stream that has ended.
    pub(crate) fn fail(&mut self, error: StreamError, now: Instant) {
        if !self.is_ended {
            self.flush(now);
            self.ticket.end(Outcome::from(&error));
            self.end(Event::Failed(error));
        }
    }

    /// Ends a stream whose time is over, with the text so far; true if it has ended, now or before. What may be the
    /// beginning of a stop string is left out.
    pub(crate) fn expire(&mut self, now: Instant) -> bool {
        if !self.is_ended && self.request.is_late(now) {
            self.save();
            self.end_with(FinishReason::Deadline, None, now);
        }
        self.is_ended
    }

    /// Ends a stream that can go on elsewhere, if its reader asked how.
    pub(crate) fn hand_over(&mut self, reason: FinishReason, now: Instant) {
        if !self.is_ended {
            self.save();
            if self.wants_state() {
                self.end_with(reason, None, now);
            }
        }
    }

    fn end(&mut self, last: Event) {
        self.outbox.push_back(last);
        self.is_ended = true;
    }

    /// Moves the characters that are ready into the outbox.
    fn flush(&mut self, now: Instant) {
        let next_chars = self.request.chunk_chars().min(MAX_CHUNK_ROOM);
        let Some(chunk) = self.text.take(next_chars) else { return };
        let (streams, num_chars) = (self.ticket.streams(), u64::from(chunk.num_chars));
        streams.chunk_chars.add(num_chars);
        if let Some(last) = self.times.last_chunk.replace(now) {
            let ns = now.saturating_duration_since(last).as_nanos() as u64;
            streams.inter_char.add_many(ns / num_chars.max(1), num_chars);
        }
        self.outbox.push_back(Event::Chunk(chunk));
    }

    /// Makes a chunk if one is due (the first character drawn, enough of them, or `default_delay` after the oldest unless
    /// the request says otherwise) and hands over what waits.
    pub(crate) fn emit(&mut self, now: Instant, default_delay: Duration) -> Flow {
        if !self.is_ended && self.is_due(now, default_delay) {
            self.flush(now);
        }
        self.pump()
    }

    fn is_due(&self, now: Instant, default_delay: Duration) -> bool {
        let num_chars = self.text.num_chars();
        let is_first = self.past.num_tokens() > 0 && self.text.num_taken() <= self.text.num_before();
        num_chars > 0
            && (is_first
                || num_chars >= self.request.chunk_chars()
                || now.saturating_duration_since(self.ready_since)
                    >= self.request.max_chunk_delay().unwrap_or(default_delay))
    }

    /// Hands over what waits.
    pub(crate) fn pump(&mut self) -> Flow {
        while let Some(event) = self.outbox.pop_front() {
            match self.sink.try_send(event) {
                Ok(()) => {}
                Err(SendError::Full(event)) => {
                    self.outbox.push_front(event);
                    return Flow::Blocked;
                }
                Err(SendError::Closed) => return Flow::Over,
            }
        }
        if self.is_ended {
            Flow::Over
        } else {
            Flow::Open
        }
    }

    /// Tells the reader why nothing more comes, ahead of what it did not take, if it has room for that much. One that may
    /// want the text to go on gets all that waits, up to its end, if that is written.
    pub(crate) fn give_up(mut self, error: StreamError) {
        if self.is_ended && self.request.wants_snapshot() {
            let mut rest = std::mem::take(&mut self.outbox).into_iter();
            let _ = rest.try_for_each(|event| self.sink.try_send_last(event));
            return;
        }
        self.ticket.end(Outcome::from(&error));
        // No room: the end of the sink says that the stream is over.
        let _ = self.sink.try_send(Event::Failed(error));
    }
}

fn num_symbols(text: &str, unit: Unit) -> usize {
    match unit {
        Unit::Char => text.chars().count(),
        Unit::Byte => text.len(),
    }
}
