//! A toy model, a bounded pipe, a clock that is moved by hand, and the slow obvious way to a text.

#![allow(dead_code)] // Each test file uses its part.

pub(crate) mod requests;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use charrnn_core::constraint;
use charrnn_core::engine::{Engine, EngineConfig, SubmitError, Worker};
use charrnn_core::event::{
    Event, FinishReason, Finished, Scored, SendError, Sink, Started, StreamError, Symbols,
};
use charrnn_core::params::SamplingParams;
use charrnn_core::request::{GenerateRequest, Output, Prompt, ScoreRequest, Stopping, ValidRequest};
use charrnn_core::sampler::{Context, Draw, Sampler};
use charrnn_core::snapshot::Snapshot;
use charrnn_core::state::StateRows;
use charrnn_core::vocab::{Unit, Vocab};
use charrnn_core::{ModelSpec, StateTensor, StepError, StepModel};

/// Symbols that make `FakeModel` misbehave when it reads them, and how slow it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// That row's logits are NaN.
    pub(crate) nan: Option<u32>,
    /// That row's logits are minus infinity.
    pub(crate) mute: Option<u32>,
    /// The whole batch fails.
    pub(crate) error: Option<u32>,
    /// The thread panics.
    pub(crate) panic: Option<u32>,
    /// By the clock of its rig.
    pub(crate) step_time: Duration,
}

/// What a test sees of a `FakeModel` that an engine has.
#[derive(Debug, Default)]
pub(crate) struct Remote {
    /// So many of the next steps fail, whatever they read.
    pub(crate) num_failing: AtomicUsize,
    /// Steps of one row that failed: each is the end of a text.
    pub(crate) num_failed: AtomicUsize,
}

type Time = Arc<Mutex<Instant>>;

/// A deterministic toy recurrence: the logits depend on every symbol the row has read, and on their order.
/// The last symbol is never drawn, so that a text meets faults only through its prompt.
pub(crate) struct FakeModel {
    spec: ModelSpec,
    faults: Faults,
    logits: Vec<f32>,
    /// Rows of all steps so far.
    pub(crate) num_rows: Arc<AtomicUsize>,
    pub(crate) remote: Arc<Remote>,
    time: Option<Time>,
}

impl FakeModel {
    pub(crate) fn new(vocab_size: usize, faults: Faults) -> Self {
        let tensor = |(name, width): (&str, usize)| StateTensor { name: name.to_owned(), width };
        let spec = ModelSpec { vocab_size, state: [("h0", 2), ("c0", 1)].map(tensor).to_vec() };
        let logits = Vec::new();
        FakeModel { spec, faults, logits, num_rows: Arc::default(), remote: Arc::default(), time: None }
    }

    fn is_failing(&self, tokens: &[u32]) -> bool {
        let is_next =
            self.remote.num_failing.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        let is_failing = is_next || self.faults.error.is_some_and(|symbol| tokens.contains(&symbol));
        self.remote.num_failed.fetch_add(usize::from(is_failing && tokens.len() == 1), SeqCst);
        is_failing
    }
}

impl StepModel for FakeModel {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn step(&mut self, tokens: &[u32], state: &mut StateRows) -> Result<&[f32], StepError> {
        assert!(!tokens.is_empty() && tokens.len() == state.num_rows(), "a batch of {}", tokens.len());
        let is_fatal = self.faults.panic.is_some_and(|symbol| tokens.contains(&symbol));
        assert!(!is_fatal, "told to panic");
        if let Some(time) = &self.time {
            *time.lock().expect("no test panics with the clock") += self.faults.step_time;
        }
        if self.is_failing(tokens) {
            return Err(StepError("told to fail".to_owned()));
        }
        self.num_rows.fetch_add(tokens.len(), SeqCst);
        self.logits.clear();
        for (row, &token) in tokens.iter().enumerate() {
            let (h0, h1, c) = (state.tensor(0)[2 * row], state.tensor(0)[2 * row + 1], state.tensor(1)[row]);
            // Small whole numbers: exact in f32.
            let h1 = (3.0 * h1 + h0 + 1.0) % 241.0;
            let h0 = (31.0 * h0 + 7.0 * token as f32 + 3.0) % 251.0;
            let c = (c + h1 + token as f32) % 239.0;
            state.in_out(0).1[2 * row..][..2].copy_from_slice(&[h0, h1]);
            state.in_out(1).1[row] = c;
            let shift = match Some(token) {
                fault if fault == self.faults.nan => f32::NAN,
                fault if fault == self.faults.mute => f32::NEG_INFINITY,
                _ => 0.0,
            };
            let logit = |v: usize| ((h0 + 5.0 * c) * (v + 1) as f32 + h1) % 97.0 / 12.0 + shift;
            self.logits.extend((0..self.spec.vocab_size - 1).map(logit));
            self.logits.push(f32::NEG_INFINITY);
        }
        state.flip();
        Ok(&self.logits)
    }
}

struct PipeState {
    events: VecDeque<Event>,
    is_reader_gone: bool,
    is_writer_gone: bool,
}

struct Pipe {
    state: Mutex<PipeState>,
    changed: Condvar,
    capacity: usize,
    /// Room for the last event, beyond the capacity.
    keeps_place: bool,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, PipeState> {
        self.state.lock().expect("no test panics with the lock")
    }
}

/// The engine's end of a bounded pipe.
pub(crate) struct PipeSink(Arc<Pipe>);

/// The reader's end; dropping it cancels the stream.
pub(crate) struct Reader(Arc<Pipe>);

/// A pipe that holds `capacity` events.
pub(crate) fn pipe(capacity: usize) -> (Box<PipeSink>, Reader) {
    pipe_with(capacity, false)
}

/// The same, with a place kept for the last event or not.
pub(crate) fn pipe_with(capacity: usize, keeps_place: bool) -> (Box<PipeSink>, Reader) {
    let state = PipeState { events: VecDeque::new(), is_reader_gone: false, is_writer_gone: false };
    let pipe = Arc::new(Pipe { state: Mutex::new(state), changed: Condvar::new(), capacity, keeps_place });
    (Box::new(PipeSink(pipe.clone())), Reader(pipe))
}

impl Sink for PipeSink {
    fn try_send(&mut self, event: Event) -> Result<(), SendError> {
        let mut state = self.0.lock();
        if state.is_reader_gone {
            return Err(SendError::Closed);
        }
        let is_end = matches!(event, Event::Finished(_) | Event::Failed(_));
        if state.events.len() >= self.0.capacity + usize::from(is_end && self.0.keeps_place) {
            return Err(SendError::Full(event));
        }
        state.events.push_back(event);
        self.0.changed.notify_all();
        Ok(())
    }

    fn try_send_last(&mut self, event: Event) -> Result<(), SendError> {
        if !self.0.keeps_place {
            return self.try_send(event);
        }
        let mut state = self.0.lock();
        if state.is_reader_gone {
            return Err(SendError::Closed);
        }
        state.events.push_back(event);
        self.0.changed.notify_all();
        Ok(())
    }

    fn is_closed(&self) -> bool {
        self.0.lock().is_reader_gone
    }
}

impl Drop for PipeSink {
    fn drop(&mut self) {
        self.0.lock().is_writer_gone = true;
        self.0.changed.notify_all();
    }
}

impl Reader {
    /// The next event if there is one now.
    pub(crate) fn take(&self) -> Option<Event> {
        self.0.lock().events.pop_front()
    }

    /// Waits for the next event; none after the last.
    pub(crate) fn wait(&self) -> Option<Event> {
        let is_pending = |state: &mut PipeState| state.events.is_empty() && !state.is_writer_gone;
        let mut state =
            self.0.changed.wait_while(self.0.lock(), is_pending).expect("no test panics with the lock");
        state.events.pop_front()
    }

    /// Whether the engine has let go of the stream.
    pub(crate) fn is_over(&self) -> bool {
        self.0.lock().is_writer_gone
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.lock().is_reader_gone = true;
    }
}

/// What a reader got.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    pub(crate) started: Option<Started>,
    pub(crate) text: String,
    pub(crate) chunk_chars: Vec<u32>,
    /// The chunks that tell of their symbols.
    pub(crate) pieces: Vec<(String, Symbols)>,
    pub(crate) scored: Option<Scored>,
    pub(crate) finished: Option<Finished>,
    pub(crate) failed: Option<StreamError>,
}

impl Transcript {
    /// Of a text that goes on after `text`.
    pub(crate) fn after(text: String) -> Self {
        Transcript { text, ..Transcript::default() }
    }

    /// What was delivered when the text was cut, but is not decided, comes again.
    fn go_on_at(&mut self, offset: u64) {
        if self.chunk_chars.is_empty() {
            self.text = self.text.chars().take(offset as usize).collect();
        }
    }

    /// Adds an event, which must be in order: `Started`, chunks without gaps, one last event.
    pub(crate) fn add(&mut self, event: Event) {
        let is_over = self.finished.is_some() || self.failed.is_some() || self.scored.is_some();
        assert!(!is_over, "{event:?} after the last event");
        assert_eq!(self.started.is_none(), matches!(event, Event::Started(_)), "{event:?} out of place");
        match event {
            Event::Started(started) => self.started = Some(started),
            Event::Chunk(chunk) => {
                self.go_on_at(chunk.offset);
                assert_eq!(chunk.offset, self.text.chars().count() as u64, "a gap or overlap");
                assert_eq!(chunk.num_chars as usize, chunk.text.chars().count());
                assert_ne!(chunk.num_chars, 0, "an empty chunk");
                self.text.push_str(&chunk.text);
                self.chunk_chars.push(chunk.num_chars);
                self.pieces.extend(chunk.symbols.map(|symbols| (chunk.text, *symbols)));
            }
            Event::Finished(finished) => {
                self.go_on_at(finished.num_chars);
                assert_eq!(finished.num_chars, self.text.chars().count() as u64);
                self.finished = Some(finished);
            }
            Event::Scored(scored) => self.scored = Some(scored),
            Event::Failed(error) => self.failed = Some(error),
        }
    }

    /// Everything there is to read now.
    pub(crate) fn read(&mut self, reader: &Reader) -> &mut Self {
        while let Some(event) = reader.take() {
            self.add(event);
        }
        self
    }

    /// Everything until the end.
    pub(crate) fn wait(reader: &Reader) -> Self {
        let mut transcript = Transcript::default();
        while let Some(event) = reader.wait() {
            transcript.add(event);
        }
        transcript
    }

    /// The complete text and how it ended.
    pub(crate) fn complete(&self) -> Solo {
        let finished = self.finished.clone().unwrap_or_else(|| panic!("incomplete: {self:?}"));
        Solo { text: self.text.clone(), reason: finished.reason, matched_stop: finished.matched_stop }
    }
}

/// As it travels.
pub(crate) fn sent(snapshot: &Snapshot) -> Arc<Snapshot> {
    let bytes = serde_json::to_vec(snapshot).expect("plain data");
    Arc::new(serde_json::from_slice(&bytes).expect("its own bytes"))
}

/// A complete text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Solo {
    pub(crate) text: String,
    pub(crate) reason: FinishReason,
    pub(crate) matched_stop: Option<String>,
}

/// The slow and obvious way to the text of a request, without an echo: alone, symbol by symbol, searching the whole text for stops.
pub(crate) fn solo(request: &GenerateRequest, vocab: &Vocab) -> Solo {
    solo_ending(request, vocab, None)
}

/// The same for a model of documents, which `end_token` ends.
pub(crate) fn solo_ending(request: &GenerateRequest, vocab: &Vocab, end_token: Option<u32>) -> Solo {
    let start = end_token.unwrap_or(START);
    // How it is told and delivered changes nothing.
    let plain = GenerateRequest { output: Output::default(), ..request.clone() };
    let valid = plain.validate(vocab, start, end_token).expect("a valid request");
    let mut model = FakeModel::new(vocab.size(), Faults::default());
    let mut state = StateRows::new(model.spec(), 1);
    state.push_zero();
    let mut sampler = Sampler::new(vocab.size());
    let mut logits = Vec::new();
    for &token in valid.prompt_tokens() {
        logits = model.step(&[token], &mut state).expect("no faults").to_vec();
    }
    let stops: Vec<Vec<u32>> =
        request.stopping.stop.iter().map(|stop| vocab.encode(stop).expect("known symbols")).collect();
    let (mut text, mut guide, mut scratch) = (Vec::new(), constraint::START, Vec::new());
    for position in 0..valid.max_tokens() {
        let is_match = valid.constraint().is_some_and(|it| it.may_end(guide, position));
        let mask = match valid.constraint() {
            Some(_) if is_match => None,
            Some(it) => Some(it.mask(guide, position, &mut scratch)),
            // Vocabularies of tests fit one word.
            None => end_token.filter(|_| position < valid.min_tokens()).map(|end| {
                scratch = vec![!(1 << end)];
                scratch.as_slice()
            }),
        };
        let place = valid.sampling().place(u64::from(position), valid.sample_index());
        let context = Context { history: &text, mask };
        let Draw::Token(token) = sampler.sample(&logits, valid.sampling(), place, context) else {
            panic!("no symbol to draw")
        };
        if Some(token) == end_token && !is_match {
            return Solo { text: vocab.decode(&text), reason: FinishReason::End, matched_stop: None };
        }
        if let Some(constraint) = valid.constraint() {
            let Some(next) = constraint.advance(guide, position, token) else {
                return Solo { text: vocab.decode(&text), reason: FinishReason::Match, matched_stop: None };
            };
            guide = next;
        }
        text.push(token);
        if text.len() < valid.min_tokens() as usize {
            logits = model.step(&[token], &mut state).expect("no faults").to_vec();
            continue;
        }
        // The longest of those that end here.
        let matched = (0..stops.len()).filter(|&i| text.ends_with(&stops[i])).max_by_key(|&i| stops[i].len());
        if let Some(i) = matched {
            let num_cut = if request.stopping.include_stop { 0 } else { stops[i].len() };
            let text = vocab.decode(&text[..text.len() - num_cut]);
            let matched_stop = Some(request.stopping.stop[i].clone());
            return Solo { text, reason: FinishReason::Stop, matched_stop };
        }
        let is_over = valid.constraint().is_some_and(|it| it.is_over(guide, position + 1));
        if is_over && position + 1 < valid.max_tokens() {
            return Solo { text: vocab.decode(&text), reason: FinishReason::Match, matched_stop: None };
        }
        logits = model.step(&[token], &mut state).expect("no faults").to_vec();
    }
    Solo { text: vocab.decode(&text), reason: FinishReason::Length, matched_stop: None }
}

/// The model's own `ln p`, `(V,)`, of what follows each of `tokens`, which it reads from the zero state on.
pub(crate) fn predictions(tokens: &[u32], vocab: &Vocab) -> Vec<Vec<f64>> {
    let mut model = FakeModel::new(vocab.size(), Faults::default());
    let mut state = StateRows::new(model.spec(), 1);
    state.push_zero();
    let mut predict = |&token: &u32| {
        let logits = model.step(&[token], &mut state).expect("no faults");
        let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
        logits.iter().map(|&logit| f64::from(logit) - sum.ln()).collect()
    };
    tokens.iter().map(&mut predict).collect()
}

/// The start token of all requests.
pub(crate) const START: u32 = 0;

/// `a` to `h`; `h` is never drawn.
pub(crate) fn letters() -> Arc<Vocab> {
    Arc::new(Vocab::new(Unit::Char, (97..105).collect()).expect("distinct letters"))
}

/// The bytes of a line end, `a`, `b`, `é`, `€` and `z`, which is never drawn: most texts over them are not UTF-8.
pub(crate) fn bytes() -> Arc<Vocab> {
    let symbols = "\nabé€z".bytes().map(u32::from).collect();
    Arc::new(Vocab::new(Unit::Byte, symbols).expect("distinct bytes"))
}

/// A request for `max_tokens` symbols after `prompt`.
pub(crate) fn request(prompt: &str, seed: u64, max_tokens: u32) -> GenerateRequest {
    GenerateRequest {
        prompt: Prompt::Text(prompt.to_owned()),
        sampling: SamplingParams { seed: Some(seed), ..SamplingParams::default() },
        sample_index: 0,
        stopping: Stopping { max_tokens: Some(max_tokens), ..Stopping::default() },
        output: Output::default(),
    }
}

/// An engine whose workers and clock are moved by hand.
pub(crate) struct Rig {
    pub(crate) engine: Engine,
    pub(crate) workers: Vec<Worker>,
    pub(crate) vocab: Arc<Vocab>,
    /// What ends a document, if the model is one of documents.
    pub(crate) end_token: Option<u32>,
    /// Rows stepped so far, by worker.
    pub(crate) num_rows: Vec<Arc<AtomicUsize>>,
    /// Of the models, by worker.
    pub(crate) remotes: Vec<Arc<Remote>>,
    time: Time,
}

impl Rig {
    pub(crate) fn new(num_workers: usize, vocab: Arc<Vocab>, config: EngineConfig) -> Self {
        Rig::with_faults(num_workers, vocab, config, Faults::default())
    }

    pub(crate) fn with_faults(
        num_workers: usize,
        vocab: Arc<Vocab>,
        config: EngineConfig,
        faults: Faults,
    ) -> Self {
        let time = Arc::new(Mutex::new(Instant::now()));
        let model = |_| FakeModel { time: Some(time.clone()), ..FakeModel::new(vocab.size(), faults) };
        let models: Vec<FakeModel> = (0..num_workers).map(model).collect();
        let num_rows = models.iter().map(|model| model.num_rows.clone()).collect();
        let remotes = models.iter().map(|model| model.remote.clone()).collect();
        let models = models.into_iter().map(|model| Box::new(model) as Box<dyn StepModel>).collect();
        let clock = Arc::clone(&time);
        let now = Arc::new(move || *clock.lock().expect("no test panics with the clock"));
        let (engine, workers) = Engine::unstarted(models, vocab.clone(), config, now);
        Rig { engine, workers, vocab, end_token: None, num_rows, remotes, time }
    }

    pub(crate) fn now(&self) -> Instant {
        *self.time.lock().expect("no test panics with the clock")
    }

    pub(crate) fn advance(&self, by: Duration) {
        *self.time.lock().expect("no test panics with the clock") += by;
    }

    pub(crate) fn submit(&self, request: &GenerateRequest, capacity: usize) -> Result<Reader, SubmitError> {
        self.submit_until(None, request, capacity)
    }

    /// The same, of which nobody wants more after that time from now.
    pub(crate) fn submit_until(
        &self,
        time: Option<Duration>,
        request: &GenerateRequest,
        capacity: usize,
    ) -> Result<Reader, SubmitError> {
        let (sink, reader) = pipe(capacity);
        let deadline = time.map(|time| self.now() + time);
        self.engine.submit(self.valid(request).until(deadline), sink).map(|()| reader)
    }

    /// The same, with places kept for the end.
    pub(crate) fn submit_kept(
        &self,
        request: &GenerateRequest,
        capacity: usize,
    ) -> Result<Reader, SubmitError> {
        let (sink, reader) = pipe_with(capacity, true);
        self.engine.submit(self.valid(request), sink).map(|()| reader)
    }

    pub(crate) fn valid(&self, request: &GenerateRequest) -> ValidRequest {
        let start = self.end_token.unwrap_or(START);
        request.clone().validate(&self.vocab, start, self.end_token).expect("a valid request")
    }

    /// A text to score; nobody wants to know after that time from now.
    pub(crate) fn score_until(
        &self,
        time: Option<Duration>,
        request: &ScoreRequest,
    ) -> Result<Reader, SubmitError> {
        let (sink, reader) = pipe(2);
        let start = self.end_token.unwrap_or(START);
        let valid = request.clone().validate(&self.vocab, start, self.end_token).expect("a valid request");
        let deadline = time.map(|time| self.now() + time);
        self.engine.submit(valid.until(deadline), sink).map(|()| reader)
    }

    /// One turn of every worker; false if none ran a step.
    pub(crate) fn turn(&mut self) -> bool {
        self.workers.iter_mut().fold(false, |stepped, worker| worker.turn() | stepped)
    }

    pub(crate) fn turns(&mut self, count: usize) {
        for _ in 0..count {
            self.turn();
        }
    }

    pub(crate) fn rows_stepped(&self) -> usize {
        self.num_rows.iter().map(|num_rows| num_rows.load(SeqCst)).sum()
    }

    /// Waiting and running streams.
    pub(crate) fn live(&self) -> (usize, usize) {
        (self.engine.num_waiting(), self.engine.num_running())
    }
}

/// A configuration with room for `max_streams` rows and `max_queue` more streams.
pub(crate) fn config(max_streams: usize, max_queue: usize) -> EngineConfig {
    EngineConfig { max_streams, max_queue, ..EngineConfig::default() }
}
