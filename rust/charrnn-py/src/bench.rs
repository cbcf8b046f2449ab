//! `run_load` and `Layers`: load on a server, and what each layer beneath it costs.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use charrnn_bench::{run_load as run, BenchError, Layers as Inner, Plan, Tick, Yield};
use charrnn_serve::Device;
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;

use crate::engine::num_workers;
use crate::error::{raise, OrRaise};

/// Carries out a plan, a JSON object, and gives its report, another.
///
/// `look` gets the JSON of every second, and None about every 20 ms in between. False ends the run with the report
/// so far, as Ctrl-C does, and the second value says so; what it raises ends the run and is raised here. Before
/// there is anything to report, both are `KeyboardInterrupt`.
#[pyfunction]
#[pyo3(signature = (plan, look))]
pub(crate) fn run_load(py: Python<'_>, plan: &str, look: Py<PyAny>) -> PyResult<(String, bool)> {
    let plan: Plan = serde_json::from_str(plan).map_err(|error| raise("RequestError", error))?;
    let (mut is_stopped, mut raised) = (false, None);
    let on_look = |tick: Option<&Tick>| {
        let goes_on = tell(&look, tick).unwrap_or_else(|error| {
            raised.get_or_insert(error);
            false
        });
        is_stopped |= !goes_on;
        goes_on
    };
    let report = py.detach(|| run(plan, on_look));
    match (report, raised) {
        (_, Some(error)) if !error.is_instance_of::<PyKeyboardInterrupt>(py) => Err(error),
        (Err(BenchError::Stopped), raised) => {
            Err(raised.unwrap_or_else(|| PyKeyboardInterrupt::new_err("stopped before the load began")))
        }
        (report, _) => Ok((to_json(&report.or_raise()?)?, is_stopped)),
    }
}

fn tell(look: &Py<PyAny>, tick: Option<&Tick>) -> PyResult<bool> {
    Python::attach(|py| {
        py.check_signals()?;
        look.call1(py, (tick.map(to_json).transpose()?,))?.is_truthy(py)
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
    #[pyo3(signature = (*, bundle, onnxruntime, loops, batch, queue, device="cpu", precision=None, workers=None))]
    #[allow(clippy::too_many_arguments, reason = "keyword-only in Python")]
    fn new(
        py: Python<'_>,
        bundle: PathBuf,
        onnxruntime: PathBuf,
        loops: usize,
        batch: usize,
        queue: usize,
        device: &str,
        precision: Option<String>,
        workers: Option<usize>,
    ) -> PyResult<Self> {
        let workers = num_workers(workers)?;
        let place = (onnxruntime.as_path(), device.parse::<Device>().or_raise()?);
        let load = || Inner::load(&bundle, place, precision.as_deref(), (loops, batch), (workers, queue));
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
