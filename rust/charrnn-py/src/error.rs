//! One adapter from the crates' errors to the exception tree of `charrnn.errors`.

use std::fmt::Display;

use charrnn_bench::BenchError;
use charrnn_core::compress::CompressError;
use charrnn_core::engine::SubmitError;
use charrnn_core::error::{BundleError, RequestError};
use charrnn_core::vocab::{UnknownSymbol, VocabError};
use charrnn_serve::{GenerateError, OrtError, ServeError, UnknownDevice};
use pyo3::prelude::*;

/// The class of `charrnn.errors` that `name` says, with one line of text.
pub(crate) fn raise(class: &str, message: impl Display) -> PyErr {
    Python::attach(|py| {
        let build = || {
            let class = py.import("charrnn.errors")?.getattr(class)?;
            class.call1((message.to_string(),))
        };
        build().map_or_else(|error| error, PyErr::from_value)
    })
}

/// `?` with a place in the exception tree.
pub(crate) trait OrRaise<T> {
    fn or_raise(self) -> PyResult<T>;
}

impl<T, E: IntoPy> OrRaise<T> for Result<T, E> {
    fn or_raise(self) -> PyResult<T> {
        self.map_err(|error| raise(error.class(), error))
    }
}

/// An error of the crates and the class that stands for it in Python.
pub(crate) trait IntoPy: Display {
    fn class(&self) -> &'static str;
}

impl IntoPy for RequestError {
    fn class(&self) -> &'static str {
        "RequestError"
    }
}

impl IntoPy for UnknownSymbol {
    fn class(&self) -> &'static str {
        "RequestError"
    }
}

impl IntoPy for UnknownDevice {
    fn class(&self) -> &'static str {
        "RequestError"
    }
}

impl IntoPy for VocabError {
    fn class(&self) -> &'static str {
        "RequestError"
    }
}

impl IntoPy for BundleError {
    fn class(&self) -> &'static str {
        "BundleError"
    }
}

impl IntoPy for CompressError {
    fn class(&self) -> &'static str {
        match self {
            CompressError::Io { .. }
            | CompressError::Changed(_)
            | CompressError::Foreign { .. }
            | CompressError::OtherModel { .. }
            | CompressError::Damaged { .. } => "DataError",
            CompressError::Model(_) | CompressError::Logits => "BundleError",
            CompressError::Stopped => "CharrnnError",
        }
    }
}

impl IntoPy for GenerateError {
    fn class(&self) -> &'static str {
        match self {
            GenerateError::Request(_) => "RequestError",
            GenerateError::Submit(SubmitError::QueueFull { .. }) => "ServerBusyError",
            GenerateError::Submit(SubmitError::Stopping) => "ServerUnavailableError",
        }
    }
}

impl IntoPy for ServeError {
    fn class(&self) -> &'static str {
        match self {
            ServeError::Bundle(_) | ServeError::Check { .. } => "BundleError",
            ServeError::Ort(OrtError::Device { .. }) => "ConfigError",
            ServeError::Access(_) | ServeError::Bind { .. } => "ConfigError",
            ServeError::NoModels | ServeError::DuplicateModel(_) | ServeError::Int8(_) => "RequestError",
            ServeError::Broken(_) => "EngineError",
            ServeError::Ort(_) | ServeError::Io(_) | ServeError::Transport(_) => "CharrnnError",
        }
    }
}

impl IntoPy for BenchError {
    fn class(&self) -> &'static str {
        match self {
            BenchError::Plan(_) => "RequestError",
            BenchError::Unreachable { .. } => "ServerUnavailableError",
            BenchError::Refused { is_its_fault: true, .. } => "RequestError",
            BenchError::Solo(_) | BenchError::Foreign { .. } | BenchError::Refused { .. } => "ServerError",
            BenchError::Write { .. } => "DataError",
            BenchError::Serve(error) => error.class(),
            BenchError::Io(_) | BenchError::Layer(_) | BenchError::Stopped => "CharrnnError",
        }
    }
}
