//! `Model`: a loaded bundle with the engine that runs it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use charrnn_core::compress::Coder;
use charrnn_core::engine::{Engine, EngineConfig, SubmitError};
use charrnn_core::manifest::Bundle;
use charrnn_core::meter::Stats;
use charrnn_core::request::{GenerateRequest, ScoreRequest, ValidRequest};
use charrnn_core::vocab::Vocab;
use charrnn_core::StepModel;

use crate::check::check_rows;
use crate::error::{GenerateError, ServeError};
use crate::onnx::{Device, OrtError, OrtModel, OrtRuntime};
use crate::stream::{channel, EventStream};

/// What a client may know of a model.
#[derive(Clone, Debug)]
pub struct ModelInfo {
    /// The name requests ask for.
    pub name: String,
    /// Tells models of one name apart: the manifest's, or the first digits of `digest`.
    pub version: String,
    /// sha256 of the bundle's manifest, in hexadecimal.
    pub digest: String,
    /// `lstm`, `gru` or `rnn`.
    pub cell: String,
    /// Recurrent layers.
    pub num_layers: u32,
    /// Units a layer.
    pub hidden_size: u32,
    /// `fp32` or `int8`.
    pub precision: String,
    /// What computes its steps: another computes other last digits.
    pub device: Device,
    /// Bytes of state a stream holds.
    pub state_bytes: u64,
    /// Bits per character on the validation split, if known.
    pub bpc: Option<f64>,
    /// The symbols.
    pub vocab: Arc<Vocab>,
    /// What an empty prompt feeds.
    pub start_token: u32,
    /// What ends a text, for a model of documents.
    pub end_token: Option<u32>,
}

/// What is known of who asks. By default nobody in particular, who waits as long as it takes.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// Waiting requests of different clients are taken in turn.
    pub client: Arc<str>,
    /// When nobody wants more of the text.
    pub deadline: Option<Instant>,
}

/// A model ready to generate; a clone is the same one. Dropping the last ends its streams and joins its threads.
#[derive(Clone)]
pub struct Model {
    info: Arc<ModelInfo>,
    engine: Arc<Engine>,
}

impl Model {
    /// Starts one decode thread for each of `workers`, which must be copies of one model.
    pub fn new(info: ModelInfo, workers: Vec<Box<dyn StepModel>>, config: EngineConfig) -> Self {
        let engine = Engine::start(workers, Arc::clone(&info.vocab), config);
        Model { info: Arc::new(info), engine: Arc::new(engine) }
    }

    /// What a client may know of it.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The same, to keep without keeping the model.
    pub(crate) fn info_shared(&self) -> Arc<ModelInfo> {
        Arc::clone(&self.info)
    }

    /// Whether the other is a clone of this one.
    pub(crate) fn is_same(&self, other: &Model) -> bool {
        Arc::ptr_eq(&self.engine, &other.engine)
    }

    /// Checks and admits a request; its events come through the stream, until the caller's deadline at most.
    pub fn generate(&self, request: GenerateRequest, caller: Caller) -> Result<EventStream, GenerateError> {
        let info = &self.info;
        self.submit(request.validate(&info.vocab, info.start_token, info.end_token)?, caller)
    }

    /// The same for a text to score: the stream ends with `Scored`, or at the deadline with `Finished`.
    pub fn score(&self, request: ScoreRequest, caller: Caller) -> Result<EventStream, GenerateError> {
        let info = &self.info;
        self.submit(request.validate(&info.vocab, info.start_token, info.end_token)?, caller)
    }

    /// Why a request is turned away just now, whatever it says, if there is no room; counted as if it had been read.
    pub(crate) fn turn_away(&self, client: &Arc<str>) -> Option<SubmitError> {
        self.engine.turn_away(client)
    }

    fn submit(&self, request: ValidRequest, caller: Caller) -> Result<EventStream, GenerateError> {
        let (sink, stream) = channel();
        let request = request.until(caller.deadline).of(caller.client);
        self.engine.submit(request, Box::new(sink))?;
        Ok(stream)
    }

    /// Streams that hold a slot.
    pub fn num_running(&self) -> usize {
        self.engine.num_running()
    }

    /// Streams that wait for a slot.
    pub fn num_waiting(&self) -> usize {
        self.engine.num_waiting()
    }

    /// Whether a decode thread of it is lost.
    pub(crate) fn is_broken(&self) -> bool {
        self.engine.is_broken()
    }

    /// What it has done so far and is doing.
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// Refuses requests from now on.
    pub fn stop_admission(&self) {
        self.engine.stop_admission();
    }

    /// Ends every stream at its next step.
    pub fn abort(&self) {
        self.engine.abort();
    }

    /// Blocks until no stream is live, at most `timeout`; requests are still taken.
    pub(crate) fn wait_until_empty(&self, timeout: Duration) -> bool {
        self.engine.wait_until_empty(timeout)
    }

    /// Blocks until every stream has ended; those left after `timeout` are made to. Whether none was left.
    pub fn drain(&self, timeout: Duration) -> bool {
        self.engine.drain(timeout)
    }
}

/// Opens the bundle at `dir`, checks the hash of the graph of `precision` (default: int8 if there is one and `device` is
/// the CPU), loads it onto `device` once per worker and runs first steps.
pub fn load_model(
    dir: &Path,
    dylib: &Path,
    device: Device,
    precision: Option<&str>,
    config: EngineConfig,
    workers: usize,
) -> Result<Model, ServeError> {
    let bundle = Bundle::open(dir)?;
    let precision = choose_precision(&bundle, device, precision)?;
    let batch = config.max_streams.max(1);
    let mut models = load_graphs(&bundle, dir, (dylib, device), precision, &[1, batch], workers)?;
    if device != Device::Cpu {
        check_rows(models[0].as_mut(), batch).map_err(|reason| unlike_alone(precision, dir, reason))?;
    }
    Ok(Model::new(model_info(&bundle, device, precision), models, config))
}

/// The same to compress files with, which no engine does.
pub fn load_coder(
    dir: &Path,
    dylib: &Path,
    precision: Option<&str>,
    workers: usize,
) -> Result<Coder, ServeError> {
    let bundle = Bundle::open(dir)?;
    let precision = precision.unwrap_or(bundle.default_precision());
    let models = load_graphs(&bundle, dir, (dylib, Device::Cpu), precision, &[], workers)?;
    Ok(Coder {
        models,
        vocab: Arc::clone(&bundle.vocab),
        start_token: bundle.start_token,
        end_token: bundle.end_token,
        digest: bundle.digest.clone(),
        precision: precision.to_owned(),
    })
}

/// The one asked for, if `device` computes it. int8 has not been seen to compute on a GPU.
pub fn choose_precision<'a>(
    bundle: &'a Bundle,
    device: Device,
    asked: Option<&'a str>,
) -> Result<&'a str, ServeError> {
    match (device, asked) {
        (Device::Cuda(_), Some("int8")) => Err(ServeError::Int8(device)),
        (Device::Cuda(_), asked) => Ok(asked.unwrap_or("fp32")),
        (Device::Cpu, asked) => Ok(asked.unwrap_or(bundle.default_precision())),
    }
}

/// On the CPUs that were tried rows never depend on their neighbours, and tests hold that; a GPU has to show it.
pub(crate) fn unlike_alone(precision: &str, dir: &Path, reason: String) -> ServeError {
    ServeError::Check { graph: format!("{precision} of {}", dir.display()), reason }
}

pub(crate) fn load_graphs(
    bundle: &Bundle,
    dir: &Path,
    (dylib, device): (&Path, Device),
    precision: &str,
    warm_batches: &[usize],
    workers: usize,
) -> Result<Vec<Box<dyn StepModel>>, ServeError> {
    let bytes = bundle.read(precision)?;
    let runtime = OrtRuntime::load(dylib)?;
    let name = format!("{precision} of {}", dir.display());
    let load = |_| -> Result<Box<dyn StepModel>, OrtError> {
        let mut model = OrtModel::load(runtime, device, &name, &bytes, bundle.spec.clone())?;
        let failed = |source| OrtError::WarmUp { graph: name.clone(), source };
        model.warm_up(warm_batches).map_err(failed)?;
        Ok(Box::new(model))
    };
    Ok((0..workers.max(1)).map(load).collect::<Result<_, _>>()?)
}

pub(crate) fn model_info(bundle: &Bundle, device: Device, precision: &str) -> ModelInfo {
    let manifest = &bundle.manifest;
    ModelInfo {
        name: manifest.name.clone(),
        version: bundle.version().to_owned(),
        digest: bundle.digest.clone(),
        cell: manifest.cell.clone(),
        num_layers: manifest.num_layers,
        hidden_size: manifest.hidden_size,
        precision: precision.to_owned(),
        device,
        state_bytes: (bundle.spec.state_len() * size_of::<f32>()) as u64,
        bpc: manifest.precisions.get(precision).and_then(|entry| entry.bpc),
        vocab: Arc::clone(&bundle.vocab),
        start_token: bundle.start_token,
        end_token: bundle.end_token,
    }
}
