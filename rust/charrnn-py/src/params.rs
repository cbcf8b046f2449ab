//! `SamplingParams`: checked against the limits table when it is made.

use std::collections::BTreeMap;

use charrnn_core::limits::{self, Limit};
use charrnn_core::params::{LogprobsMode, SamplingParams as Params, ValidSampling};
use charrnn_core::request::Stopping;
use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::arguments::{id_of, ids_of, refuse, text_of};
use crate::error::{raise, OrRaise};

/// How characters are drawn, what the text looks like and when it ends; checked against the limits when it is made.
#[pyclass(frozen, eq, module = "charrnn.sampler")]
pub(crate) struct SamplingParams {
    sampling: Params,
    stopping: Stopping,
    /// The same, resolved; its seed is drawn where none was given.
    valid: ValidSampling,
}

/// What is drawn is the same; a default that was given equals one that was not.
impl PartialEq for SamplingParams {
    fn eq(&self, other: &Self) -> bool {
        let whole =
            |it: &Self| (it.max_tokens(), it.min_tokens(), it.sampling.seed, it.valid.clone().with_seed(0));
        let texts =
            |it: &Self| (it.stopping.regex.clone(), it.utf8(), it.stopping.stop.clone(), it.include_stop());
        whole(self) == whole(other) && texts(self) == texts(other)
    }
}

impl SamplingParams {
    /// The two halves of a request that it fills.
    pub(crate) fn parts(&self) -> (Params, Stopping) {
        (self.sampling.clone(), self.stopping.clone())
    }

    /// How one symbol is drawn.
    pub(crate) fn valid(&self) -> &ValidSampling {
        &self.valid
    }

    /// Why a sampler without a vocabulary cannot follow it, if so.
    pub(crate) fn needs_vocabulary(&self) -> Option<&'static str> {
        match (&self.stopping.regex, self.stopping.utf8) {
            (Some(_), _) => Some("regex"),
            (None, true) => Some("utf8"),
            (None, false) => None,
        }
    }
}

#[pymethods]
impl SamplingParams {
    #[new]
    #[pyo3(signature = (*, temperature=None, top_k=None, top_p=None, min_p=None, typical_p=None,
        repetition_penalty=None, presence_penalty=None, frequency_penalty=None, penalty_window=None,
        no_repeat_ngram_size=None, logit_bias=None, allowed=None, regex=None, utf8=false, seed=None, logprobs=None,
        logprobs_mode="raw", max_tokens=None, min_tokens=None, stop=None, include_stop=false))]
    #[allow(clippy::too_many_arguments, reason = "keyword-only in Python")]
    fn new(
        temperature: Option<f64>,
        top_k: Option<Whole>,
        top_p: Option<f64>,
        min_p: Option<f64>,
        typical_p: Option<f64>,
        repetition_penalty: Option<f64>,
        presence_penalty: Option<f64>,
        frequency_penalty: Option<f64>,
        penalty_window: Option<Whole>,
        no_repeat_ngram_size: Option<Whole>,
        logit_bias: Option<Bound<'_, PyAny>>,
        allowed: Option<Bound<'_, PyAny>>,
        regex: Option<Bound<'_, PyAny>>,
        utf8: bool,
        seed: Option<Bound<'_, PyAny>>,
        logprobs: Option<Whole>,
        logprobs_mode: &str,
        max_tokens: Option<Whole>,
        min_tokens: Option<Whole>,
        stop: Option<Bound<'_, PyAny>>,
        include_stop: bool,
    ) -> PyResult<Self> {
        let sampling = Params {
            logit_bias: logit_bias.map_or(Ok(BTreeMap::new()), biases)?.into_iter().collect(),
            allowed: allowed.map(|ids| ids_of("allowed", &ids)).transpose()?,
            repetition_penalty,
            frequency_penalty,
            presence_penalty,
            penalty_window: whole(limits::PENALTY_WINDOW, penalty_window)?,
            no_repeat_ngram_size: whole(limits::NO_REPEAT_NGRAM_SIZE, no_repeat_ngram_size)?,
            temperature,
            top_k: whole(limits::TOP_K, top_k)?,
            top_p,
            min_p,
            typical_p,
            logprobs: whole(limits::LOGPROBS, logprobs)?,
            logprobs_mode: parse_mode(logprobs_mode)?,
            seed: seed.map(parse_seed).transpose()?,
        };
        let stopping = Stopping {
            max_tokens: whole(limits::MAX_TOKENS, max_tokens)?,
            min_tokens: whole(limits::MIN_TOKENS, min_tokens)?,
            regex: regex.map(|regex| text_of("regex", &regex)).transpose()?,
            utf8,
            stop: stop.map_or(Ok(Vec::new()), strings)?,
            include_stop,
        };
        stopping.validate().or_raise()?;
        let valid = sampling.validate().or_raise()?;
        Ok(SamplingParams { sampling, stopping, valid })
    }

    #[getter]
    fn temperature(&self) -> f64 {
        self.valid.temperature()
    }

    #[getter]
    fn top_k(&self) -> u32 {
        self.valid.top_k()
    }

    #[getter]
    fn top_p(&self) -> f64 {
        self.valid.top_p()
    }

    #[getter]
    fn min_p(&self) -> f64 {
        self.valid.min_p()
    }

    #[getter]
    fn typical_p(&self) -> f64 {
        self.valid.typical_p()
    }

    #[getter]
    fn repetition_penalty(&self) -> f64 {
        number(limits::REPETITION_PENALTY, self.sampling.repetition_penalty)
    }

    #[getter]
    fn presence_penalty(&self) -> f64 {
        number(limits::PRESENCE_PENALTY, self.sampling.presence_penalty)
    }

    #[getter]
    fn frequency_penalty(&self) -> f64 {
        number(limits::FREQUENCY_PENALTY, self.sampling.frequency_penalty)
    }

    #[getter]
    fn penalty_window(&self) -> u32 {
        number(limits::PENALTY_WINDOW, self.sampling.penalty_window.map(f64::from)) as u32
    }

    #[getter]
    fn no_repeat_ngram_size(&self) -> u32 {
        number(limits::NO_REPEAT_NGRAM_SIZE, self.sampling.no_repeat_ngram_size.map(f64::from)) as u32
    }

    #[getter]
    fn logit_bias<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let dict = PyDict::new(py);
        for (id, bias) in &self.sampling.logit_bias {
            dict.set_item(id, bias)?;
        }
        Ok((!dict.is_empty()).then_some(dict))
    }

    #[getter]
    fn allowed<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.sampling.allowed.as_ref().map(|ids| PyTuple::new(py, ids)).transpose()
    }

    #[getter]
    fn regex(&self) -> Option<&str> {
        self.stopping.regex.as_deref()
    }

    #[getter]
    fn utf8(&self) -> bool {
        self.stopping.utf8
    }

    #[getter]
    fn seed(&self) -> Option<u64> {
        self.sampling.seed
    }

    #[getter]
    fn logprobs(&self) -> Option<u32> {
        self.sampling.logprobs
    }

    #[getter]
    fn logprobs_mode(&self) -> &'static str {
        match self.sampling.logprobs_mode {
            LogprobsMode::Raw => "raw",
            LogprobsMode::Processed => "processed",
        }
    }

    #[getter]
    fn max_tokens(&self) -> u32 {
        number(limits::MAX_TOKENS, self.stopping.max_tokens.map(f64::from)) as u32
    }

    #[getter]
    fn min_tokens(&self) -> u32 {
        number(limits::MIN_TOKENS, self.stopping.min_tokens.map(f64::from)) as u32
    }

    #[getter]
    fn stop<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.stopping.stop)
    }

    #[getter]
    fn include_stop(&self) -> bool {
        self.stopping.include_stop
    }

    /// Every field, by name, as `SamplingParams(**fields)` takes it.
    fn fields<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(slf.py());
        for name in FIELDS {
            dict.set_item(name, slf.getattr(name)?)?;
        }
        Ok(dict)
    }

    /// Equal parameters have equal hashes.
    fn __hash__(slf: &Bound<'_, Self>) -> PyResult<isize> {
        Self::__repr__(slf)?.into_pyobject(slf.py())?.hash()
    }

    /// For pickle and copy.
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyDict>,))> {
        let rebuild = slf.py().import("charrnn.sampler")?.getattr("from_fields")?;
        Ok((rebuild, (Self::fields(slf)?,)))
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let mut parts = Vec::new();
        for (name, value) in Self::fields(slf)? {
            parts.push(format!("{name}={}", value.repr()?));
        }
        Ok(format!("SamplingParams({})", parts.join(", ")))
    }
}

const FIELDS: [&str; 21] = [
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "penalty_window",
    "no_repeat_ngram_size",
    "logit_bias",
    "allowed",
    "regex",
    "utf8",
    "seed",
    "logprobs",
    "logprobs_mode",
    "max_tokens",
    "min_tokens",
    "stop",
    "include_stop",
];

/// A field as given, or the table's default.
fn number(limit: Limit, given: Option<f64>) -> f64 {
    given.or(limit.default).unwrap_or(limit.min)
}

/// A whole number of Python's, however large: the limit's own words are better than an overflow's.
struct Whole(f64);

impl<'py> FromPyObject<'_, 'py> for Whole {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        match value.extract::<i64>() {
            Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => value.extract().map(Whole),
            whole => whole.map(|whole| Whole(whole as f64)),
        }
    }
}

fn whole(limit: Limit, value: Option<Whole>) -> PyResult<Option<u32>> {
    value.map(|Whole(value)| limit.check(value).or_raise().map(|()| value as u32)).transpose()
}

fn parse_mode(mode: &str) -> PyResult<LogprobsMode> {
    match mode {
        "raw" => Ok(LogprobsMode::Raw),
        "processed" => Ok(LogprobsMode::Processed),
        _ => Err(raise(
            "RequestError",
            format!("logprobs_mode is {mode:?}; it must be \"raw\" or \"processed\""),
        )),
    }
}

fn parse_seed(seed: Bound<'_, PyAny>) -> PyResult<u64> {
    let refuse =
        |_| raise("RequestError", format!("seed is {seed}; it must be a whole number of 0 to 2^64 - 1"));
    seed.extract().map_err(refuse)
}

fn biases(value: Bound<'_, PyAny>) -> PyResult<BTreeMap<u32, f64>> {
    let Ok(items) = value.call_method0("items") else {
        return Err(refuse(format!("logit_bias is {}; give a dict of token ids and numbers", value.repr()?)));
    };
    let one = |item: PyResult<Bound<'_, PyAny>>| {
        let (id, bias): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item?.extract()?;
        let id = id_of("logit_bias", &id)?;
        let bias = bias.extract().or_else(|_| {
            Err(refuse(format!("logit_bias of id {id} is {}; it must be a number", bias.repr()?)))
        })?;
        Ok((id, bias))
    };
    items.try_iter()?.map(one).collect()
}

/// A list or tuple of strings. A lone string is refused: it would silently be read as its characters.
fn strings(value: Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    if value.is_instance_of::<PyString>() {
        return Err(refuse(format!("stop is the string {}; give a list of strings", value.repr()?)));
    }
    let Ok(items) = value.try_iter() else {
        return Err(refuse(format!("stop is {}; give a list of strings", value.repr()?)));
    };
    items.map(|item| text_of("a string of stop", &item?)).collect()
}
