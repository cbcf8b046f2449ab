//! `SamplingParams`, `Sampler` over numpy rows, and the limits table.

use charrnn_core::limits::TABLE;
use charrnn_core::request::{SamplingParams as Params, Stopping};
use charrnn_core::sampler::{Draw, Sampler as Kernel};
use charrnn_core::{limits as bounds, philox};
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::error::{raise, OrRaise};

/// How characters are drawn and when the text ends; checked against the limits when it is made.
#[pyclass(frozen, eq, module = "charrnn._native")]
#[derive(PartialEq)]
pub(crate) struct SamplingParams {
    sampling: Params,
    stopping: Stopping,
}

impl SamplingParams {
    /// The two halves of a request that it fills.
    pub(crate) fn parts(&self) -> (Params, Stopping) {
        (self.sampling.clone(), self.stopping.clone())
    }
}

#[pymethods]
impl SamplingParams {
    #[new]
    #[pyo3(signature = (*, temperature=None, top_k=None, top_p=None, min_p=None, seed=None, max_tokens=None, stop=None, include_stop=false))]
    #[allow(clippy::too_many_arguments, reason = "keyword-only in Python")]
    fn new(
        temperature: Option<f64>,
        top_k: Option<i64>,
        top_p: Option<f64>,
        min_p: Option<f64>,
        seed: Option<Bound<'_, PyAny>>,
        max_tokens: Option<i64>,
        stop: Option<Bound<'_, PyAny>>,
        include_stop: bool,
    ) -> PyResult<Self> {
        let top_k = top_k.map(|k| whole(bounds::TOP_K, k)).transpose()?;
        let max_tokens = max_tokens.map(|n| whole(bounds::MAX_TOKENS, n)).transpose()?;
        let sampling = Params { temperature, top_k, top_p, min_p, seed: seed.map(parse_seed).transpose()? };
        let stop = stop.map_or(Ok(Vec::new()), strings)?;
        let stopping = Stopping { max_tokens, stop, include_stop };
        sampling.validate().or_raise()?;
        stopping.validate().or_raise()?;
        Ok(SamplingParams { sampling, stopping })
    }

    #[getter]
    fn temperature(&self) -> f64 {
        number(bounds::TEMPERATURE, self.sampling.temperature)
    }

    #[getter]
    fn top_k(&self) -> u32 {
        number(bounds::TOP_K, self.sampling.top_k.map(f64::from)) as u32
    }

    #[getter]
    fn top_p(&self) -> f64 {
        number(bounds::TOP_P, self.sampling.top_p)
    }

    #[getter]
    fn min_p(&self) -> f64 {
        number(bounds::MIN_P, self.sampling.min_p)
    }

    #[getter]
    fn seed(&self) -> Option<u64> {
        self.sampling.seed
    }

    #[getter]
    fn max_tokens(&self) -> u32 {
        number(bounds::MAX_TOKENS, self.stopping.max_tokens.map(f64::from)) as u32
    }

    #[getter]
    fn stop<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.stopping.stop)
    }

    #[getter]
    fn include_stop(&self) -> bool {
        self.stopping.include_stop
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let stop = self.stop(py)?.repr()?.to_string();
        let seed = self.seed().map_or("None".to_owned(), |seed| seed.to_string());
        let include_stop = if self.include_stop() { "True" } else { "False" };
        Ok(format!(
            "SamplingParams(temperature={:?}, top_k={}, top_p={:?}, min_p={:?}, seed={seed}, max_tokens={}, stop={stop}, include_stop={include_stop})",
            self.temperature(), self.top_k(), self.top_p(), self.min_p(), self.max_tokens(),
        ))
    }
}

/// A field as given, or the table's default.
fn number(limit: bounds::Limit, given: Option<f64>) -> f64 {
    given.or(limit.default).unwrap_or(limit.min)
}

/// A whole number of Python's, which may be far outside: the limit's own words are better than an overflow's.
fn whole(limit: bounds::Limit, value: i64) -> PyResult<u32> {
    limit.check(value as f64).or_raise()?;
    Ok(value as u32)
}

fn parse_seed(seed: Bound<'_, PyAny>) -> PyResult<u64> {
    let refuse =
        |_| raise("RequestError", format!("seed is {seed}; it must be a whole number of 0 to 2^64 - 1"));
    seed.extract().map_err(refuse)
}

/// A list or tuple of strings. A lone string is refused: it would silently be read as its characters.
fn strings(value: Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    match value.extract::<String>() {
        Ok(lone) => {
            Err(raise("RequestError", format!("stop is the string {lone:?}; give a list of strings")))
        }
        Err(_) => value.try_iter()?.map(|item| item?.extract()).collect(),
    }
}

/// What `Sampler.sample` gives: a token and a status a row.
#[pyclass(frozen, get_all, module = "charrnn._native")]
pub(crate) struct SampleOutput {
    /// `(B,)` int32; -1 where the status is not 0.
    tokens: Py<PyArray1<i32>>,
    /// `(B,)` uint8; 0 drawn, 1 the row holds NaN, 2 the row is all minus infinity.
    status: Py<PyArray1<u8>>,
}

/// Draws one token a row of logits.
#[pyclass(frozen, module = "charrnn._native")]
pub(crate) struct Sampler {
    #[pyo3(get)]
    vocab_size: usize,
}

#[pymethods]
impl Sampler {
    #[new]
    fn new(vocab_size: usize) -> PyResult<Self> {
        match vocab_size {
            1..=131_072 => Ok(Sampler { vocab_size }),
            _ => Err(raise("RequestError", format!("vocab_size is {vocab_size}; it must be 1 to 131072"))),
        }
    }

    /// Tokens of `logits`, `(B, V)` float32: row r with seed `seeds[r]` at `positions[r]`.
    #[pyo3(signature = (logits, params, *, seeds, positions))]
    fn sample(
        &self,
        py: Python<'_>,
        logits: PyReadonlyArray2<'_, f32>,
        params: &SamplingParams,
        seeds: PyReadonlyArray1<'_, u64>,
        positions: PyReadonlyArray1<'_, u64>,
    ) -> PyResult<SampleOutput> {
        let (seeds, positions) = (seeds.as_array(), positions.as_array());
        let (rows, width) = (logits.shape()[0], logits.shape()[1]);
        if width != self.vocab_size || seeds.len() != rows || positions.len() != rows {
            let expected = format!("(B, {}), (B,) and (B,)", self.vocab_size);
            let found = format!("({rows}, {width}), ({},) and ({},)", seeds.len(), positions.len());
            return Err(raise(
                "RequestError",
                format!("logits, seeds, positions are {found}; expected {expected}"),
            ));
        }
        let (params, logits) = (params.sampling.validate().or_raise()?, logits.as_array());
        let mut kernel = Kernel::new(self.vocab_size);
        let mut row = vec![0.0; width];
        let (mut tokens, mut status) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
        for r in 0..rows {
            row.iter_mut().zip(logits.row(r)).for_each(|(to, from)| *to = *from);
            let (token, code) = outcome(kernel.sample(&row, &params.with_seed(seeds[r]), positions[r], 0));
            tokens.push(token);
            status.push(code);
        }
        Ok(SampleOutput {
            tokens: tokens.into_pyarray(py).unbind(),
            status: status.into_pyarray(py).unbind(),
        })
    }
}

fn outcome(draw: Draw) -> (i32, u8) {
    match draw {
        Draw::Token(token) => (token as i32, 0),
        Draw::InvalidLogits => (-1, 1),
        Draw::NoCandidates => (-1, 2),
    }
}

/// Every limit of a request: name, smallest, largest, default, meaning.
#[pyfunction]
pub(crate) fn limits() -> Vec<(&'static str, f64, f64, Option<f64>, &'static str)> {
    TABLE.iter().map(|limit| (limit.name, limit.min, limit.max, limit.default, limit.meaning)).collect()
}

/// Philox4x32-10 (Salmon et al. 2011): four words of random bits for a counter and a key.
#[pyfunction]
pub(crate) fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> (u32, u32, u32, u32) {
    philox::philox4x32(counter, key).into()
}
