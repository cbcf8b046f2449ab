//! `Sampler` over rows of logits: numpy in without a copy, numpy out.

use std::sync::{Mutex, PoisonError};

use charrnn_core::limits::TABLE;
use charrnn_core::params::ValidSampling;
use charrnn_core::philox;
use charrnn_core::sampler::{Context, Draw, Place, Sampler as Kernel};
use numpy::ndarray::Dimension;
use numpy::{
    Element, PyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2,
    PyReadwriteArray, PyReadwriteArray1, PyReadwriteArray2, PyUntypedArrayMethods,
};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arguments::{history_of, logits_of, numbers_of, refuse, whole_of};
use crate::error::OrRaise;
use crate::params::SamplingParams;

/// Logits from which on a call takes long enough for other Python threads to run: some 50 microseconds.
const DETACH_FROM: usize = 1 << 15;
const MAX_VOCAB: usize = 1 << 17;
/// Results in an array of a call, 1 GiB of them.
const MAX_ROOM: u64 = 1 << 28;

/// What `Sampler.sample` gives: a row each.
#[pyclass(frozen, get_all, module = "charrnn._native")]
pub(crate) struct SampleOutput {
    /// `(B,)` int32; -1 where the status is not 0.
    tokens: Py<PyArray1<i32>>,
    /// `(B,)` float32, natural logarithm of the drawn token's probability; NaN where the row's `SamplingParams` have
    /// no `logprobs` (0 asks for it without alternatives) or the status is not 0.
    logprobs: Py<PyArray1<f32>>,
    /// `(B,)` uint8; 0 drawn, 1 the row holds NaN, 2 nothing is left to draw.
    status: Py<PyArray1<u8>>,
    /// `(B, K)` int32, the K most likely tokens, -1 where a row asked for fewer; None for K = 0.
    top_tokens: Option<Py<PyArray2<i32>>>,
    /// `(B, K)` float32, theirs.
    top_logprobs: Option<Py<PyArray2<f32>>>,
}

#[pymethods]
impl SampleOutput {
    /// Room for `batch_size` rows with `num_top` alternatives each.
    #[new]
    #[pyo3(signature = (batch_size, num_top=None), text_signature = "(batch_size, num_top=0)")]
    fn new(batch_size: &Bound<'_, PyAny>, num_top: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let py = batch_size.py();
        let rows = whole_of("batch_size", batch_size, 0..=MAX_ROOM)?;
        let num_top = num_top.map_or(Ok(0), |num_top| whole_of("num_top", num_top, 0..=MAX_VOCAB as u64))?;
        if rows * num_top.max(1) > MAX_ROOM {
            let most = MAX_ROOM / num_top;
            return Err(refuse(format!(
                "batch_size is {rows}; with {num_top} alternatives it must be at most {most}"
            )));
        }
        Ok(SampleOutput::zeros(py, rows as usize, num_top as usize))
    }
}

impl SampleOutput {
    fn zeros(py: Python<'_>, batch_size: usize, num_top: usize) -> Self {
        let top = [batch_size, num_top];
        SampleOutput {
            tokens: PyArray1::zeros(py, batch_size, false).unbind(),
            logprobs: PyArray1::zeros(py, batch_size, false).unbind(),
            status: PyArray1::zeros(py, batch_size, false).unbind(),
            top_tokens: (num_top > 0).then(|| PyArray2::zeros(py, top, false).unbind()),
            top_logprobs: (num_top > 0).then(|| PyArray2::zeros(py, top, false).unbind()),
        }
    }
}

/// Draws one token a row of logits. Any number of threads may use one sampler.
#[pyclass(frozen, module = "charrnn._native")]
pub(crate) struct Sampler {
    #[pyo3(get)]
    vocab_size: usize,
    /// Kernels with their scratch memory, as many as have been needed at once.
    idle: Mutex<Vec<Kernel>>,
}

#[pymethods]
impl Sampler {
    #[new]
    fn new(vocab_size: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Sampler { vocab_size: vocab_size_of(vocab_size)?, idle: Mutex::default() })
    }

    /// Tokens of `logits`, `(B, V)`: row r with seed `seeds[r]` at `positions[r]` of stream `streams[r]`.
    ///
    /// `params` is for all rows or a list of one a row; `seeds` stand in place of their `seed`, and what ends a text
    /// (`stop`, `min_tokens`, `max_tokens`) is the caller's. `history` holds the tokens drawn so far, a sequence a row.
    /// Log-probabilities are NaN unless the parameters have `logprobs`.
    /// float32 in C order, numpy's or DLPack's in CPU memory, is read in place; anything else is converted.
    #[pyo3(signature = (logits, params, *, seeds, positions, streams=None, history=None, out=None))]
    #[allow(clippy::too_many_arguments, reason = "keyword-only in Python")]
    fn sample<'py>(
        &self,
        py: Python<'py>,
        logits: &Bound<'py, PyAny>,
        params: &Bound<'py, PyAny>,
        seeds: &Bound<'py, PyAny>,
        positions: &Bound<'py, PyAny>,
        streams: Option<&Bound<'py, PyAny>>,
        history: Option<&Bound<'py, PyAny>>,
        out: Option<Bound<'py, SampleOutput>>,
    ) -> PyResult<Bound<'py, SampleOutput>> {
        let logits: PyReadonlyArray2<'py, f32> = logits_of(logits, 2)?;
        let (batch_size, width) = (logits.shape()[0], logits.shape()[1]);
        if width != self.vocab_size {
            let size = self.vocab_size;
            return Err(refuse(format!("logits are ({batch_size}, {width}); expected (B, {size})")));
        }
        let (seeds, positions) =
            (numbers_of::<u64>("seeds", seeds)?, numbers_of::<u64>("positions", positions)?);
        let streams = streams.map(|streams| numbers_of::<u32>("streams", streams)).transpose()?;
        let history = history.map(history_of).transpose()?;
        let given = Params::of(params)?;
        let rows = Rows {
            logits: logits.as_slice()?,
            width,
            params: given.valid(self.vocab_size)?,
            seeds: seeds.as_slice()?,
            positions: positions.as_slice()?,
            streams: streams.as_ref().map(PyReadonlyArray1::as_slice).transpose()?,
            history: history.as_deref(),
        };
        rows.check(batch_size)?;
        let num_top = rows.num_top();
        let out = out.map_or_else(|| Bound::new(py, SampleOutput::zeros(py, batch_size, num_top)), Ok)?;
        let mut room = Room::of(&out, batch_size, num_top)?;
        let mut kernel = self.lease();
        let results = room.results()?;
        match rows.logits.len() < DETACH_FROM {
            true => rows.draw(&mut kernel, results),
            false => py.detach(|| rows.draw(&mut kernel, results)),
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(kernel);
        drop(room);
        Ok(out)
    }
}

pub(crate) fn vocab_size_of(value: &Bound<'_, PyAny>) -> PyResult<usize> {
    Ok(whole_of("vocab_size", value, 1..=MAX_VOCAB as u64)? as usize)
}

impl Sampler {
    fn lease(&self) -> Kernel {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(|| Kernel::new(self.vocab_size))
    }
}

/// The parameters of a call, kept alive.
enum Params<'py> {
    All(PyRef<'py, SamplingParams>),
    Each(Vec<PyRef<'py, SamplingParams>>),
}

impl<'py> Params<'py> {
    fn of(params: &Bound<'py, PyAny>) -> PyResult<Self> {
        match params.cast::<SamplingParams>() {
            Ok(all) => Ok(Params::All(all.borrow())),
            Err(_) => {
                let items = params.try_iter().ok().filter(|_| !params.is_instance_of::<PyDict>());
                let items = items.ok_or_else(|| not_params("params", params))?;
                let one = |(row, item): (usize, PyResult<Bound<'py, PyAny>>)| {
                    let item = item?;
                    let params = item.cast::<SamplingParams>();
                    Ok(params.map_err(|_| not_params(&format!("params[{row}]"), &item))?.borrow())
                };
                Ok(Params::Each(items.enumerate().map(one).collect::<PyResult<_>>()?))
            }
        }
    }

    /// The same without Python, checked against the vocabulary.
    fn valid(&self, vocab_size: usize) -> PyResult<RowParams<'_>> {
        let check = |params: &'_ PyRef<'py, SamplingParams>| -> PyResult<()> {
            if let Some(field) = params.needs_vocabulary() {
                return Err(refuse(format!(
                    "{field} needs a vocabulary, which a sampler has not; use Engine"
                )));
            }
            params.valid().check_ids(vocab_size).or_raise()
        };
        match self {
            Params::All(all) => check(all).map(|()| RowParams::All(all.valid())),
            Params::Each(each) => {
                each.iter().try_for_each(check)?;
                Ok(RowParams::Each(each.iter().map(|params| params.valid()).collect()))
            }
        }
    }
}

fn not_params(name: &str, value: &Bound<'_, PyAny>) -> PyErr {
    let kind = value.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string());
    refuse(format!("{name} is of type {kind}; give SamplingParams, or a list of one a row"))
}

enum RowParams<'a> {
    All(&'a ValidSampling),
    Each(Vec<&'a ValidSampling>),
}

/// What is drawn from.
struct Rows<'a> {
    /// `(B, V)`
    logits: &'a [f32],
    width: usize,
    params: RowParams<'a>,
    seeds: &'a [u64],
    positions: &'a [u64],
    streams: Option<&'a [u32]>,
    history: Option<&'a [Vec<u32>]>,
}

impl Rows<'_> {
    fn check(&self, batch_size: usize) -> PyResult<()> {
        let num_params = match &self.params {
            RowParams::All(_) => batch_size,
            RowParams::Each(each) => each.len(),
        };
        let lengths = [
            ("params", num_params),
            ("seeds", self.seeds.len()),
            ("positions", self.positions.len()),
            ("streams", self.streams.map_or(batch_size, <[u32]>::len)),
            ("history", self.history.map_or(batch_size, <[Vec<u32>]>::len)),
        ];
        if let Some((name, length)) = lengths.into_iter().find(|&(_, length)| length != batch_size) {
            return Err(refuse(format!("{name} has length {length}; logits have {batch_size} rows")));
        }
        let mut drawn = self.history.into_iter().flatten().flatten();
        match drawn.find(|&&token| token as usize >= self.width) {
            Some(token) => Err(refuse(format!("history: token {token} is not below {}", self.width))),
            None => Ok(()),
        }
    }

    fn params(&self, row: usize) -> &ValidSampling {
        match &self.params {
            RowParams::All(all) => all,
            RowParams::Each(each) => each[row],
        }
    }

    fn num_top(&self) -> usize {
        let num = |params: &ValidSampling| params.logprobs().unwrap_or(0) as usize;
        let most = match &self.params {
            RowParams::All(all) => num(all),
            RowParams::Each(each) => each.iter().map(|params| num(params)).max().unwrap_or(0),
        };
        most.min(self.width)
    }

    fn draw(&self, kernel: &mut Kernel, mut results: Results<'_>) {
        for (row, logits) in self.logits.chunks_exact(self.width).enumerate() {
            let (params, stream) = (self.params(row), self.streams.map_or(0, |streams| streams[row]));
            let place = Place { seed: self.seeds[row], position: self.positions[row], stream };
            let history = self.history.map_or(&[][..], |history| &history[row]);
            let draw = kernel.sample(logits, params, place, Context { history, mask: None });
            results.put(row, draw);
            if let (Draw::Token(token), Some(_)) = (draw, params.logprobs()) {
                results.put_logprobs(row, kernel, logits, params, token);
            }
        }
    }
}

/// The arrays of an output, borrowed.
struct Room<'py> {
    tokens: PyReadwriteArray1<'py, i32>,
    logprobs: PyReadwriteArray1<'py, f32>,
    status: PyReadwriteArray1<'py, u8>,
    top: Option<(PyReadwriteArray2<'py, i32>, PyReadwriteArray2<'py, f32>)>,
    num_top: usize,
}

impl<'py> Room<'py> {
    fn of(out: &Bound<'py, SampleOutput>, batch_size: usize, num_top: usize) -> PyResult<Self> {
        let (py, out) = (out.py(), out.get());
        let tokens = writable(out.tokens.bind(py))?;
        let top = match (&out.top_tokens, &out.top_logprobs) {
            (Some(tokens), Some(logprobs)) => {
                Some((writable(tokens.bind(py))?, writable(logprobs.bind(py))?))
            }
            _ => None,
        };
        let room = top.as_ref().map_or(0, |(tokens, _)| tokens.shape()[1]);
        if tokens.len() != batch_size || room < num_top {
            let (has, needs) = (tokens.len(), format!("{batch_size} rows with {num_top} alternatives"));
            return Err(refuse(format!(
                "out has room for {has} rows with {room} alternatives; needed are {needs}"
            )));
        }
        let (logprobs, status) = (writable(out.logprobs.bind(py))?, writable(out.status.bind(py))?);
        Ok(Room { tokens, logprobs, status, top, num_top: room })
    }

    fn results(&mut self) -> PyResult<Results<'_>> {
        let top = match &mut self.top {
            Some((tokens, logprobs)) => Some((tokens.as_slice_mut()?, logprobs.as_slice_mut()?)),
            None => None,
        };
        Ok(Results {
            tokens: self.tokens.as_slice_mut()?,
            logprobs: self.logprobs.as_slice_mut()?,
            status: self.status.as_slice_mut()?,
            top,
            num_top: self.num_top,
        })
    }
}

fn writable<'py, T: Element, D: Dimension>(
    array: &Bound<'py, PyArray<T, D>>,
) -> PyResult<PyReadwriteArray<'py, T, D>> {
    let refused = |error| {
        refuse(format!("out cannot be written: {error}; give each call at a time a SampleOutput of its own"))
    };
    array.try_readwrite().map_err(refused)
}

/// Where the draws go.
struct Results<'a> {
    tokens: &'a mut [i32],
    logprobs: &'a mut [f32],
    status: &'a mut [u8],
    /// `(B, K)` both.
    top: Option<(&'a mut [i32], &'a mut [f32])>,
    num_top: usize,
}

impl Results<'_> {
    fn put(&mut self, row: usize, draw: Draw) {
        (self.tokens[row], self.status[row]) = match draw {
            Draw::Token(token) => (token as i32, 0),
            Draw::InvalidLogits => (-1, 1),
            Draw::NoCandidates => (-1, 2),
        };
        self.logprobs[row] = f32::NAN;
        if let Some((tokens, logprobs)) = &mut self.top {
            let columns = row * self.num_top..(row + 1) * self.num_top;
            tokens[columns.clone()].fill(-1);
            logprobs[columns].fill(f32::NAN);
        }
    }

    fn put_logprobs(
        &mut self,
        row: usize,
        kernel: &mut Kernel,
        logits: &[f32],
        params: &ValidSampling,
        token: u32,
    ) {
        let Some(found) = kernel.logprobs(logits, params, token) else { return };
        self.logprobs[row] = found.token;
        if let Some((tokens, logprobs)) = &mut self.top {
            for (column, (token, logprob)) in (row * self.num_top..).zip(found.top) {
                (tokens[column], logprobs[column]) = (token as i32, logprob);
            }
        }
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
