//! What a server is made of, each part alone, in this process: steps of the model, draws from its logits, and the
//! engine over both.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use charrnn_core::engine::EngineConfig;
use charrnn_core::event::{Event, StreamError};
use charrnn_core::manifest::Bundle;
use charrnn_core::params::{SamplingParams, ValidSampling};
use charrnn_core::request::{GenerateRequest, Output, Prompt, Stopping};
use charrnn_core::sampler::{Context, Draw, Place, Sampler};
use charrnn_core::state::StateRows;
use charrnn_core::StepModel;
use charrnn_serve::{choose_precision, load_model, Caller, Device, Model, OrtModel, OrtRuntime, ServeError};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;

use crate::error::BenchError;
use crate::process::usage;

/// Long enough that starting a text costs nothing beside it.
const MAX_TOKENS: u32 = 4096;
/// Until every slot is taken and chunks flow.
const WARM_UP: Duration = Duration::from_millis(500);

/// Characters made over some time, and what they took.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Yield {
    /// How many.
    pub chars: u64,
    /// Seconds by the clock.
    pub seconds: f64,
    /// Processor seconds of this process, all threads; absent where the system does not say.
    pub cpu_s: Option<f64>,
}

/// A bundle loaded twice: bare models for the loops, and an engine.
pub struct Layers {
    models: Vec<OrtModel>,
    batch: usize,
    engine: Arc<Model>,
}

impl Layers {
    /// Loads a session for each of `loops`, which step `batch` rows, and an engine of `workers` with 64 places each
    /// and room for `queue` more texts that wait.
    pub fn load(
        bundle: &Path,
        (onnxruntime, device): (&Path, Device),
        precision: Option<&str>,
        (loops, batch): (usize, usize),
        (workers, queue): (usize, usize),
    ) -> Result<Self, BenchError> {
        let opened = Bundle::open(bundle).map_err(ServeError::from)?;
        let precision = choose_precision(&opened, device, precision)?;
        let bytes = opened.read(precision).map_err(ServeError::from)?;
        let runtime = OrtRuntime::load(onnxruntime).map_err(ServeError::from)?;
        let load = |_| OrtModel::load(runtime, device, precision, &bytes, opened.spec.clone());
        let models = (0..loops).map(load).collect::<Result<_, _>>().map_err(ServeError::from)?;
        let config = EngineConfig { max_queue: queue, ..EngineConfig::default() };
        let engine = Arc::new(load_model(bundle, onnxruntime, device, Some(precision), config, workers)?);
        Ok(Layers { models, batch, engine })
    }

    /// Steps of full batches in bare loops, one a worker: what the rest can come near to.
    pub fn step(&mut self, window: Duration) -> Result<Yield, BenchError> {
        self.loops(window, false)
    }

    /// The same with a draw from the logits of every row, which is fed to the next step.
    pub fn sample(&mut self, window: Duration) -> Result<Yield, BenchError> {
        self.loops(window, true)
    }

    fn loops(&mut self, window: Duration, draws: bool) -> Result<Yield, BenchError> {
        let (start, batch) = (Barrier::new(self.models.len()), self.batch);
        let stopwatch = Stopwatch::start();
        let num_chars = thread::scope(|scope| {
            let (start, stopwatch) = (&start, &stopwatch);
            let spawn = |model| {
                scope.spawn(move || {
                    let mut rows = Rows::new(model, batch);
                    start.wait();
                    rows.run(stopwatch.began + window, draws)
                })
            };
            let threads: Vec<_> = self.models.iter_mut().map(spawn).collect();
            let join = |thread: ScopedJoinHandle<'_, Result<u64, BenchError>>| {
                thread.join().map_err(|_| BenchError::Layer("a loop of steps panicked".to_owned()))?
            };
            threads.into_iter().map(join).sum::<Result<u64, BenchError>>()
        })?;
        Ok(stopwatch.stop(num_chars))
    }

    /// The engine with `num_streams` texts read by one thread of this process; a text that ends is replaced.
    pub fn engine(&self, num_streams: usize, window: Duration) -> Result<Yield, BenchError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.read(num_streams, window))
    }

    async fn read(&self, num_streams: usize, window: Duration) -> Result<Yield, BenchError> {
        let num_chars = Arc::new(AtomicU64::new(0));
        let mut texts = JoinSet::new();
        for _ in 0..num_streams {
            texts.spawn(read_texts(Arc::clone(&self.engine), Arc::clone(&num_chars)));
        }
        let count = async {
            tokio::time::sleep(WARM_UP).await;
            let (stopwatch, before) = (Stopwatch::start(), num_chars.load(Relaxed));
            tokio::time::sleep(window).await;
            stopwatch.stop(num_chars.load(Relaxed) - before)
        };
        tokio::select! {
            // Texts go on for ever; one that ends has failed.
            Some(ended) = texts.join_next() => {
                Err(BenchError::Layer(ended.unwrap_or_else(|error| error.to_string())))
            }
            counted = count => Ok(counted),
        }
    }
}

/// Text after text; returns what went wrong.
async fn read_texts(engine: Arc<Model>, num_chars: Arc<AtomicU64>) -> String {
    loop {
        let mut events = match engine.generate(request(), Caller::default()) {
            Ok(events) => events,
            Err(error) => return error.to_string(),
        };
        while let Some(event) = events.next().await {
            match event {
                Event::Chunk(chunk) => num_chars.fetch_add(u64::from(chunk.num_chars), Relaxed),
                Event::Failed(error) => return StreamError::to_string(&error),
                Event::Started(_) | Event::Finished(_) | Event::Scored(_) => 0,
            };
        }
    }
}

fn request() -> GenerateRequest {
    GenerateRequest {
        prompt: Prompt::Text(String::new()),
        sampling: SamplingParams::default(),
        sample_index: 0,
        stopping: Stopping { max_tokens: Some(MAX_TOKENS), ..Stopping::default() },
        output: Output::default(),
    }
}

/// One worker's batch outside the engine.
struct Rows<'a> {
    model: &'a mut OrtModel,
    state: StateRows,
    tokens: Vec<u32>,
    sampler: Sampler,
}

impl<'a> Rows<'a> {
    fn new(model: &'a mut OrtModel, batch: usize) -> Self {
        let (mut state, vocab_size) = (StateRows::new(model.spec(), batch), model.spec().vocab_size);
        (0..batch).for_each(|_| state.push_zero());
        let tokens = (0..batch).map(|row| (row % vocab_size) as u32).collect();
        Rows { model, state, tokens, sampler: Sampler::new(vocab_size) }
    }

    /// Characters stepped until then.
    fn run(&mut self, until: Instant, draws: bool) -> Result<u64, BenchError> {
        let params =
            SamplingParams::default().validate().map_err(|error| BenchError::Layer(error.to_string()))?;
        let mut num_steps = 0;
        while Instant::now() < until {
            let logits = self.model.step(&self.tokens, &mut self.state);
            let logits = logits.map_err(|error| BenchError::Layer(error.to_string()))?;
            if draws {
                let rows = logits.chunks_exact(self.sampler.vocab_size());
                for (row, (token, logits)) in self.tokens.iter_mut().zip(rows).enumerate() {
                    let place = params.place(num_steps, row as u32);
                    *token = draw(&mut self.sampler, logits, &params, place)?;
                }
            }
            num_steps += 1;
        }
        Ok(num_steps * self.tokens.len() as u64)
    }
}

struct Stopwatch {
    began: Instant,
    cpu_s: Option<f64>,
}

impl Stopwatch {
    fn start() -> Self {
        Stopwatch { began: Instant::now(), cpu_s: process_cpu_s() }
    }

    fn stop(&self, chars: u64) -> Yield {
        let cpu_s = process_cpu_s().zip(self.cpu_s).map(|(now, before)| now - before);
        Yield { chars, seconds: self.began.elapsed().as_secs_f64(), cpu_s }
    }
}

fn process_cpu_s() -> Option<f64> {
    usage(std::process::id()).map(|usage| usage.cpu_s)
}

fn draw(
    sampler: &mut Sampler,
    logits: &[f32],
    params: &ValidSampling,
    place: Place,
) -> Result<u32, BenchError> {
    match sampler.sample(logits, params, place, Context::default()) {
        Draw::Token(token) => Ok(token),
        other => Err(BenchError::Layer(format!("a draw gave {other:?}"))),
    }
}
