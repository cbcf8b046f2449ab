//! `Engine` and its `EventStream`: generation in this process.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use charrnn_core::engine::EngineConfig;
use charrnn_core::event::{Event, FinishReason, StreamError, Symbols, Timing};
use charrnn_core::request::{GenerateRequest, Output, Prompt, ScoreRequest};
use charrnn_serve::{load_model, Caller, Device, EventStream as Events, Model};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use pyo3::IntoPyObjectExt;

use crate::arguments::{ids_of, text_of};
use crate::error::{raise, OrRaise};
use crate::params::SamplingParams;

/// How often a waiting reader looks for Ctrl-C.
pub(crate) const SIGNAL_POLL: Duration = Duration::from_millis(50);

/// Workers a core that may be asked for: more only take turns, and each holds the model's weights once more.
const MAX_WORKERS_PER_CORE: usize = 4;

/// The decode workers that a server or an engine has: as many as asked for, or one per core that this process may use.
#[pyfunction]
pub(crate) fn num_workers(asked: Option<usize>) -> PyResult<usize> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (workers, most) = (asked.unwrap_or(cores), cores * MAX_WORKERS_PER_CORE);
    match (1..=most).contains(&workers) {
        true => Ok(workers),
        false => {
            let limit = format!("it must be 1 to {most}, {MAX_WORKERS_PER_CORE} for each of {cores} cores");
            Err(raise("RequestError", format!("workers is {workers}; {limit}")))
        }
    }
}

/// The shape of an engine, checked: a worker steps at least one stream.
pub(crate) fn engine_config(max_streams: usize, max_queue: usize) -> PyResult<EngineConfig> {
    if max_streams == 0 || max_streams > 4096 {
        return Err(raise("RequestError", format!("max_streams is {max_streams}; it must be 1 to 4096")));
    }
    Ok(EngineConfig { max_streams, max_queue, ..EngineConfig::default() })
}

/// Decode workers over one bundle.
#[pyclass(frozen, module = "charrnn._native")]
pub(crate) struct Engine {
    /// Behind a lock only so that `close` can drop it; taken once a request.
    model: Mutex<Option<Arc<Model>>>,
    pid: u32,
}

impl Drop for Engine {
    /// A fork has none of the threads that dropping the model would join.
    fn drop(&mut self) {
        if self.pid != std::process::id() {
            std::mem::forget(self.model.get_mut().map(Option::take));
        }
    }
}

impl Engine {
    fn live(&self) -> PyResult<Arc<Model>> {
        let model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        model.clone().ok_or_else(|| raise("CharrnnError", "the engine is closed"))
    }
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (*, bundle, onnxruntime, device="cpu", precision=None, workers=None, max_streams=64, max_queue=1024))]
    #[allow(clippy::too_many_arguments, reason = "keyword-only in Python")]
    fn new(
        py: Python<'_>,
        bundle: PathBuf,
        onnxruntime: PathBuf,
        device: &str,
        precision: Option<String>,
        workers: Option<usize>,
        max_streams: usize,
        max_queue: usize,
    ) -> PyResult<Self> {
        let (workers, config) = (num_workers(workers)?, engine_config(max_streams, max_queue)?);
        let device = device.parse::<Device>().or_raise()?;
        let load = || load_model(&bundle, &onnxruntime, device, precision.as_deref(), config, workers);
        let model = py.detach(load).or_raise()?;
        Ok(Engine { model: Mutex::new(Some(Arc::new(model))), pid: std::process::id() })
    }

    /// What is known of the model: name, digest, precision, state_bytes.
    #[getter]
    fn model<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let model = self.live()?;
        let (info, dict) = (model.info(), PyDict::new(py));
        dict.set_item("name", &info.name)?;
        dict.set_item("digest", &info.digest)?;
        dict.set_item("precision", &info.precision)?;
        dict.set_item("state_bytes", info.state_bytes)?;
        Ok(dict)
    }

    /// Starts one text.
    #[pyo3(signature = (*, prompt, params, sample_index=0, chunk_chars=None, max_chunk_delay_ms=None,
        ids=false, logprobs=false, top_logprobs=None, echo_prompt=false))]
    #[allow(clippy::too_many_arguments, reason = "keyword-only in Python")]
    fn generate(
        &self,
        py: Python<'_>,
        prompt: String,
        params: &SamplingParams,
        sample_index: u32,
        chunk_chars: Option<u32>,
        max_chunk_delay_ms: Option<u32>,
        ids: bool,
        logprobs: bool,
        top_logprobs: Option<u32>,
        echo_prompt: bool,
    ) -> PyResult<EventStream> {
        let snapshot = false;
        let output =
            Output { chunk_chars, max_chunk_delay_ms, ids, logprobs, top_logprobs, echo_prompt, snapshot };
        let (sampling, stopping) = params.parts();
        let request =
            GenerateRequest { prompt: Prompt::Text(prompt), sampling, sample_index, stopping, output };
        let model = self.live()?;
        let events = py.detach(|| model.generate(request, Caller::default())).or_raise()?;
        Ok(EventStream { events: Mutex::new(Some(events)) })
    }

    /// Reads one text; the last event says how likely it was.
    #[pyo3(signature = (*, text, prompt, per_symbol, top_logprobs=None))]
    fn score(
        &self,
        py: Python<'_>,
        text: &Bound<'_, PyAny>,
        prompt: &Bound<'_, PyAny>,
        per_symbol: bool,
        top_logprobs: Option<u32>,
    ) -> PyResult<EventStream> {
        let text = match text.is_instance_of::<PyString>() {
            true => Prompt::Text(text_of("text", text)?),
            false => Prompt::Ids(ids_of("text", text)?),
        };
        let prompt = text_of("prompt", prompt)?;
        let request = ScoreRequest { prompt, text, per_symbol, top_logprobs };
        let model = self.live()?;
        let events = py.detach(|| model.score(request, Caller::default())).or_raise()?;
        Ok(EventStream { events: Mutex::new(Some(events)) })
    }

    /// Ends every text and joins the workers.
    fn close(&self, py: Python<'_>) {
        if self.pid == std::process::id() {
            let model = self.model.lock().unwrap_or_else(PoisonError::into_inner).take();
            py.detach(|| drop(model));
        }
    }
}

/// The events of one text; dropping it cancels the text.
#[pyclass(frozen, module = "charrnn._native")]
pub(crate) struct EventStream {
    events: Mutex<Option<Events>>,
}

#[pymethods]
impl EventStream {
    /// Waits for the next event; `None` after the last, or once closed.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        loop {
            let polled = py.detach(|| {
                let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
                events.as_mut().map_or(Ok(None), |events| events.next_timeout(SIGNAL_POLL))
            });
            match polled {
                Ok(event) => return event.map(|event| to_python(py, event)).transpose(),
                Err(_timed_out) => py.check_signals()?,
            }
        }
    }

    /// Cancels the text.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.events.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

fn to_python(py: Python<'_>, event: Event) -> PyResult<Bound<'_, PyAny>> {
    match event {
        Event::Started(e) => ("started", e.seed, e.num_prompt_tokens).into_bound_py_any(py),
        Event::Chunk(e) => ("chunk", e.text, e.num_chars, e.offset, e.symbols.map(|symbols| told(*symbols)))
            .into_bound_py_any(py),
        Event::Finished(e) => {
            let timing = timing(&e.timing);
            ("finished", reason(e.reason), e.matched_stop, e.num_chars, timing).into_bound_py_any(py)
        }
        Event::Scored(e) => {
            ("scored", e.num_symbols, e.nats, e.symbols.map(|symbols| told(*symbols))).into_bound_py_any(py)
        }
        // In this process there is no server to send the request to again.
        Event::Failed(StreamError::Stopping) => {
            Err(raise("CharrnnError", "the engine was closed before the text was complete"))
        }
        Event::Failed(error) => Err(raise("ServerError", error)),
    }
}

type Told = (Vec<u32>, Vec<f32>, Vec<Vec<(u32, f32)>>);

fn told(symbols: Symbols) -> Told {
    let top = symbols.tops().map(<[_]>::to_vec).collect();
    (symbols.ids, symbols.logprobs, top)
}

fn reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        FinishReason::Stop => "stop",
        FinishReason::Match => "match",
        FinishReason::End => "end",
        FinishReason::Deadline => "deadline",
        FinishReason::Drained => "drained",
        FinishReason::Stalled => "stalled",
    }
}

fn timing(timing: &Timing) -> (u64, u64, u64, u64, f64) {
    let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    (us(timing.queue), us(timing.first_char), us(timing.total), timing.num_steps, timing.mean_batch)
}
