//! `run_load` and `Layers`: load on a server, and what each layer beneath it costs.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use charrnn_bench::{run_load as run, BenchError, Layers as Inner, Plan, Tick, Yield};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;

use crate::engine::num_workers;
use crate::error::{raise, OrRaise};

/// Carries out a plan, a JSON object, and gives its report, another.
///
/// `on_tick` gets the JSON of every second. What it raises ends the run and is raised here, but for Ctrl-C, which
/// ends the run with the report so far; the second value says so.
#[pyfunction]
#[pyo3(signature = (plan, on_tick))]
pub(crate) fn run_load(py: Python<'_>, plan: &str, on_tick: Py<PyAny>) -> PyResult<(String, bool)> {
    let plan: Plan = serde_json::from_str(plan).map_err(|error| raise("RequestError", error))?;
    let mut raised = None;
    let tick = |tick: &Tick| match tell(&on_tick, tick) {
        Ok(()) => true,
        Err(error) => {
            raised.get_or_insert(error);
            false
        }
    };
    let report = py.detach(|| run(plan, tick)).or_raise()?;
    let interrupted = match raised {
        Some(error) if !error.is_instance_of::<PyKeyboardInterrupt>(py) => return Err(error),
        other => other.is_some(),
    };
    Ok((to_json(&report)?, interrupted))
}

fn tell(on_tick: &Py<PyAny>, tick: &Tick) -> PyResult<()> {
    Python::attach(|py| {
        py.check_signals()?;
        on_tick.call1(py, (to_json(tick)?,)).map(drop)
    })
}

fn to_json(value: &impl serde::Serialize) -> PyResult<String> {
    serde_json::to_string(value).map_err(|error| raise("CharrnnError", error))
}

/// A bundle loaded for bare loops and for an engine. Every method measures for `seconds` and returns characters,
/// seconds and processor seconds.
#[pyclass(frozen, module = "charrnn._native")]
pub(crate) struct Layers(Mutex<Inner>);

type Measured = (u64, f64, Option<f64>);

impl Layers {
    fn measure(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Inner) -> Result<Yield, BenchError> + Send,
    ) -> PyResult<Measured> {
        let run = || work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let measured = py.detach(run).or_raise()?;
        Ok((measured.chars, measured.seconds, measured.cpu_s))
    }
}

#[pymethods]
impl Layers {
    #[new]
    #[pyo3(signature = (*, bundle, onnxruntime, loops, batch, precision=None, workers=None))]
    #[allow(clippy::too_many_arguments, reason = "keyword-only in Python")]
    fn new(
        py: Python<'_>,
        bundle: PathBuf,
        onnxruntime: PathBuf,
        loops: usize,
        batch: usize,
        precision: Option<String>,
        workers: Option<usize>,
    ) -> PyResult<Self> {
        let workers = num_workers(workers)?;
        let load = || Inner::load(&bundle, &onnxruntime, precision.as_deref(), (loops, batch), workers);
        Ok(Layers(Mutex::new(py.detach(load).or_raise()?)))
    }

    /// Steps of full batches, one loop a worker.
    fn step(&self, py: Python<'_>, seconds: f64) -> PyResult<Measured> {
        self.measure(py, |layers| layers.step(Duration::from_secs_f64(seconds)))
    }

    /// The same with a draw from the logits of every row.
    fn sample(&self, py: Python<'_>, seconds: f64) -> PyResult<Measured> {
        self.measure(py, |layers| layers.sample(Duration::from_secs_f64(seconds)))
    }

    /// The engine with so many texts, read in this process.
    fn engine(&self, py: Python<'_>, streams: usize, seconds: f64) -> PyResult<Measured> {
        self.measure(py, |layers| layers.engine(streams, Duration::from_secs_f64(seconds)))
    }
}
