//! The arithmetic coder over rows of logits, and files through it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use charrnn_core::coding::{Decoder, Encoder};
use charrnn_core::compress as files;
use charrnn_core::compress::{Coder, CompressError, Report};
use charrnn_core::sampler::Sampler;
use charrnn_serve::load_coder;
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::arguments::{logits_of, refuse, whole_of};
use crate::engine::num_workers;
use crate::error::OrRaise;
use crate::sampler::vocab_size_of;

/// Turns tokens into bytes, each at the cost of what a row of logits says of it.
#[pyclass(frozen, module = "charrnn._native")]
pub(crate) struct ArithmeticEncoder(Mutex<(Sampler, Option<Encoder>)>);

#[pymethods]
impl ArithmeticEncoder {
    #[new]
    fn new(vocab_size: &Bound<'_, PyAny>) -> PyResult<Self> {
        let sampler = Sampler::new(vocab_size_of(vocab_size)?);
        Ok(ArithmeticEncoder(Mutex::new((sampler, Some(Encoder::default())))))
    }

    /// Append `token` under `logits`, `(V,)`, whatever `Sampler.sample` takes as a row.
    ///
    /// A token whose weight is 0, 2^-46 of the most likely one's and less, cannot be coded and is refused; so is
    /// every token after `finish`.
    fn encode(&self, logits: &Bound<'_, PyAny>, token: &Bound<'_, PyAny>) -> PyResult<()> {
        let logits: PyReadonlyArray1<'_, f32> = logits_of(logits, 1)?;
        let (sampler, encoder) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let encoder = encoder.as_mut().ok_or_else(finished)?;
        let logits = row(sampler, &logits)?;
        let token = whole_of("token", token, 0..=logits.len() as u64 - 1)? as u32;
        let share = sampler.distribution(logits).ok_or_else(no_distribution)?.share(token);
        let share =
            share.ok_or_else(|| refuse(format!("token {token} is too unlikely to code: its weight is 0")))?;
        encoder.encode(share);
        Ok(())
    }

    /// The bytes of all tokens, once: the encoder takes no more.
    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let (_, encoder) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut encoder = encoder.take().ok_or_else(finished)?;
        Ok(PyBytes::new(py, &encoder.finish()))
    }
}

fn finished() -> PyErr {
    refuse("the encoder is finished; make a new one for more tokens".to_owned())
}

/// Turns bytes back into tokens, handed the same rows of logits.
#[pyclass(frozen, module = "charrnn._native")]
pub(crate) struct ArithmeticDecoder(Mutex<(Sampler, Decoder)>);

#[pymethods]
impl ArithmeticDecoder {
    #[new]
    fn new(vocab_size: &Bound<'_, PyAny>, data: Vec<u8>) -> PyResult<Self> {
        let sampler = Sampler::new(vocab_size_of(vocab_size)?);
        Ok(ArithmeticDecoder(Mutex::new((sampler, Decoder::new(data)))))
    }

    /// The next token under `logits`, `(V,)`, whatever `Sampler.sample` takes as a row.
    ///
    /// Past the end tokens are arbitrary and no error: the caller knows how many there are.
    fn decode(&self, logits: &Bound<'_, PyAny>) -> PyResult<u32> {
        let logits: PyReadonlyArray1<'_, f32> = logits_of(logits, 1)?;
        let (sampler, decoder) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let logits = row(sampler, &logits)?;
        let distribution = sampler.distribution(logits).ok_or_else(no_distribution)?;
        let token = distribution.symbol_at(decoder.target(distribution.total()));
        distribution.share(token).into_iter().for_each(|share| decoder.consume(share));
        Ok(token)
    }
}

fn row<'a>(sampler: &Sampler, logits: &'a PyReadonlyArray1<'_, f32>) -> PyResult<&'a [f32]> {
    let logits = logits.as_slice()?;
    match logits.len() == sampler.vocab_size() {
        true => Ok(logits),
        false => {
            Err(refuse(format!("logits have length {}; expected {}", logits.len(), sampler.vocab_size())))
        }
    }
}

fn no_distribution() -> PyErr {
    refuse("logits hold NaN or exclude every token".to_owned())
}

/// Bytes, symbols, escaped symbols, bytes compressed, bytes of them that code symbols.
type Counts = (u64, u64, u64, u64, u64);

fn counts(report: &Report) -> Counts {
    (report.num_bytes, report.num_symbols, report.num_escaped, report.num_compressed, report.num_coded)
}

fn load(
    py: Python<'_>,
    bundle: &Path,
    onnxruntime: &Path,
    precision: Option<&str>,
    workers: Option<usize>,
) -> PyResult<Coder> {
    let workers = num_workers(workers)?;
    py.detach(|| load_coder(bundle, onnxruntime, precision, workers)).or_raise()
}

/// Runs `work` without the GIL; its watch tells `on_progress` of the bytes done, and stops at what that or a signal raises.
fn watched<T: Send>(
    py: Python<'_>,
    on_progress: &Py<PyAny>,
    work: impl FnOnce(&mut dyn FnMut(u64) -> bool) -> Result<T, CompressError> + Send,
) -> PyResult<T> {
    let mut raised = None;
    let mut watch = |num_bytes: u64| {
        // Asked again until the workers have stopped: the first that was raised is what is told.
        if raised.is_none() {
            let told = Python::attach(|py| {
                py.check_signals()?;
                on_progress.call1(py, (num_bytes,)).map(drop)
            });
            raised = told.err();
        }
        raised.is_none()
    };
    let result = py.detach(|| work(&mut watch));
    match raised {
        Some(error) => Err(error),
        None => result.or_raise(),
    }
}

/// Compresses `source` into `target`, which is replaced.
#[pyfunction]
#[pyo3(signature = (*, source, target, bundle, onnxruntime, precision, workers, on_progress))]
#[allow(clippy::too_many_arguments, reason = "keyword-only in Python")]
pub(crate) fn compress(
    py: Python<'_>,
    source: PathBuf,
    target: PathBuf,
    bundle: PathBuf,
    onnxruntime: PathBuf,
    precision: Option<String>,
    workers: Option<usize>,
    on_progress: Py<PyAny>,
) -> PyResult<Counts> {
    let mut coder = load(py, &bundle, &onnxruntime, precision.as_deref(), workers)?;
    watched(py, &on_progress, move |watch| files::compress(&mut coder, &source, &target, watch))
        .map(|report| counts(&report))
}

/// Restores into `target`, which is replaced, what `compress` made; the precision is the file's.
#[pyfunction]
#[pyo3(signature = (*, source, target, bundle, onnxruntime, workers, on_progress))]
pub(crate) fn decompress(
    py: Python<'_>,
    source: PathBuf,
    target: PathBuf,
    bundle: PathBuf,
    onnxruntime: PathBuf,
    workers: Option<usize>,
    on_progress: Py<PyAny>,
) -> PyResult<Counts> {
    let precision = files::precision_of(&source).or_raise()?;
    let mut coder = load(py, &bundle, &onnxruntime, Some(&precision), workers)?;
    watched(py, &on_progress, move |watch| files::decompress(&mut coder, &source, &target, watch))
        .map(|report| counts(&report))
}

/// Bits of information in `source` under the model, and the counts of `compress`.
#[pyfunction]
#[pyo3(signature = (*, source, bundle, onnxruntime, precision, workers, on_progress))]
pub(crate) fn measure(
    py: Python<'_>,
    source: PathBuf,
    bundle: PathBuf,
    onnxruntime: PathBuf,
    precision: Option<String>,
    workers: Option<usize>,
    on_progress: Py<PyAny>,
) -> PyResult<(f64, Counts)> {
    let mut coder = load(py, &bundle, &onnxruntime, precision.as_deref(), workers)?;
    watched(py, &on_progress, move |watch| files::measure(&mut coder, &source, watch))
        .map(|(bits, report)| (bits, counts(&report)))
}
