//! The engine: one decode thread a model, requests to the least loaded of them.
//!
//! Knows no network and no Python: a stream is a `ValidRequest` in and events out through a `Sink`.

use std::sync::mpsc::{channel, Sender};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::event::Sink;
use crate::meter::Stats;
use crate::model::StepModel;
use crate::prompt_cache::PromptCache;
use crate::request::ValidRequest;
use crate::scheduler::admission::Admission;
use crate::scheduler::stream::Stream;
use crate::vocab::Vocab;

mod rescue;
mod worker;

pub use crate::scheduler::admission::{SubmitError, KEPT_PART};
pub use crate::scheduler::shares::PATIENCE;
pub use worker::Worker;

/// How long a drain that ran out of time waits for the workers to notice. A step takes milliseconds.
const ABORT_GRACE: Duration = Duration::from_secs(5);

/// Where the engine reads the time; must not run backwards.
pub type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// The sizes of an engine, and what its threads begin with.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Rows of each worker's batch, at least 1.
    pub max_streams: usize,
    /// Live streams beyond the rows of all workers.
    pub max_queue: usize,
    /// A stream whose reader takes nothing for this long ends.
    pub stall_timeout: Duration,
    /// Room for the states after prompts read before, which then are not read again; 0 is off.
    pub prompt_cache_bytes: usize,
    /// The first thing that a decode thread does, such as to change its priority.
    pub on_start: fn(),
}

impl Default for EngineConfig {
    fn default() -> Self {
        let stall_timeout = Duration::from_secs(30);
        EngineConfig {
            max_streams: 64,
            max_queue: 1024,
            stall_timeout,
            prompt_cache_bytes: 0,
            on_start: || {},
        }
    }
}

/// Runs streams. Dropping it ends those that are live with `Failed(Stopping)` and joins its threads.
pub struct Engine {
    vocab: Arc<Vocab>,
    admission: Arc<Admission>,
    clock: Clock,
    cache: Arc<PromptCache>,
    /// Floats of a stream's state.
    state_len: usize,
    /// One a worker.
    jobs: Vec<Sender<Stream>>,
    threads: Vec<JoinHandle<()>>,
}

impl Engine {
    /// Starts one thread a model, named `charrnn-decode-0` and so on.
    ///
    /// # Panics
    /// If a model and the vocabulary differ in size, or the system starts no thread.
    pub fn start(models: Vec<Box<dyn StepModel>>, vocab: Arc<Vocab>, config: EngineConfig) -> Engine {
        let on_start = config.on_start;
        let (mut engine, workers) = Engine::unstarted(models, vocab, config, Arc::new(Instant::now));
        let spawn = |(i, worker): (usize, Worker)| {
            let thread = std::thread::Builder::new().name(format!("charrnn-decode-{i}"));
            let run = move || {
                on_start();
                worker.run();
            };
            thread.spawn(run).expect("the system starts a decode thread")
        };
        engine.threads = workers.into_iter().enumerate().map(spawn).collect();
        engine
    }

    /// An engine whose workers the caller drives, turn by turn and by its own clock.
    ///
    /// # Panics
    /// If a model and the vocabulary differ in size.
    pub fn unstarted(
        models: Vec<Box<dyn StepModel>>,
        vocab: Arc<Vocab>,
        config: EngineConfig,
        clock: Clock,
    ) -> (Engine, Vec<Worker>) {
        let num_slots = models.len() * config.max_streams.max(1);
        let admission = Arc::new(Admission::new(models.len(), num_slots, config.max_queue));
        let cache = Arc::new(PromptCache::new(config.prompt_cache_bytes));
        let state_len = models.first().map_or(0, |model| model.spec().state_len());
        let mut jobs = Vec::with_capacity(models.len());
        let worker = |(index, model)| {
            let (sender, receiver) = channel();
            jobs.push(sender);
            let (admission, clock, cache) = (admission.clone(), clock.clone(), cache.clone());
            let link = worker::Link { index, jobs: receiver, admission, clock, cache };
            Worker::new(model, vocab.clone(), &config, link)
        };
        let workers = models.into_iter().enumerate().map(worker).collect();
        (Engine { vocab, admission, clock, cache, state_len, jobs, threads: Vec::new() }, workers)
    }

    /// Starts a stream, or says at once why not. Everything further comes through `sink`; if that is dropped
    /// without a last event, a worker died in an unforeseen way.
    ///
    /// # Panics
    /// If the request goes on from a state of another size than this model's.
    pub fn submit(&self, request: ValidRequest, sink: Box<dyn Sink>) -> Result<(), SubmitError> {
        let state_len = request.snapshot().map_or(self.state_len, |snapshot| snapshot.state_len());
        assert_eq!(state_len, self.state_len, "a snapshot of another model");
        let ticket = self.admission.admit(request.client(), (self.clock)())?;
        let cached = request.cacheable().and_then(|prompt| self.cache.get(prompt));
        let mut stream = Stream::new(request, sink, ticket, &self.vocab, (self.clock)());
        if let Some(state) = cached {
            stream.skip_prompt(state);
        }
        let worker = stream.worker();
        // A worker without a receiver died a moment ago: as good as stopping.
        self.jobs[worker].send(stream).map_err(|_| SubmitError::Stopping)
    }

    /// Why `submit` would turn away whatever came of `client` just now, if there is no room; counted as if it had.
    pub fn turn_away(&self, client: &Arc<str>) -> Option<SubmitError> {
        self.admission.turn_away(client, (self.clock)())
    }

    /// Streams that had a slot and are not over, parked ones included.
    pub fn num_running(&self) -> usize {
        self.admission.num_running()
    }

    /// Streams that wait for their first slot.
    pub fn num_waiting(&self) -> usize {
        self.admission.num_waiting()
    }

    /// Whether one of its threads panicked again after it had begun anew; the others go on.
    pub fn is_broken(&self) -> bool {
        self.admission.is_broken()
    }

    /// What it has done so far and is doing.
    pub fn stats(&self) -> Stats {
        Stats { cache: self.cache.stats(), ..self.admission.stats() }
    }

    /// Blocks until no stream is live, at most `timeout`; `submit` still takes requests.
    pub fn wait_until_empty(&self, timeout: Duration) -> bool {
        self.admission.wait_until_empty(timeout)
    }

    /// From here on `submit` says `Stopping`; live streams go on.
    pub fn stop_admission(&self) {
        self.admission.stop();
    }

    /// Ends the live streams with `Failed(Stopping)` at their next step, without waiting for it.
    pub fn abort(&self) {
        self.admission.abort();
    }

    /// Stops admission and blocks until the live streams are over. After `timeout` the rest end with
    /// `Failed(Stopping)`, and the answer is false.
    pub fn drain(&self, timeout: Duration) -> bool {
        self.stop_admission();
        let is_empty = self.admission.wait_until_empty(timeout);
        if !is_empty {
            self.admission.abort();
            self.admission.wait_until_empty(ABORT_GRACE);
        }
        is_empty
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.admission.abort();
        // Without senders a sleeping worker wakes up and returns.
        self.jobs.clear();
        for thread in self.threads.drain(..) {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }
}
