//! `Vocab`: text to token ids and back, over numpy arrays.

use charrnn_core::vocab::{self, Unit};
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;

use crate::error::{raise, OrRaise};

/// The symbols a model knows, in order of their token ids.
#[pyclass(frozen, module = "charrnn._native")]
pub(crate) struct Vocab(vocab::Vocab);

#[pymethods]
impl Vocab {
    #[new]
    fn new(symbols: Vec<u32>, unit: &str) -> PyResult<Self> {
        vocab::Vocab::new(parse_unit(unit)?, symbols).or_raise().map(Vocab)
    }

    /// Token ids of a text, `(N,)` uint32.
    fn encode<'py>(&self, py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyArray1<u32>>> {
        let token_ids = py.detach(|| self.0.encode(text)).or_raise()?;
        Ok(token_ids.into_pyarray(py))
    }

    /// Token ids of raw bytes, `(N,)` uint32; for byte vocabularies.
    fn encode_bytes<'py>(&self, py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyArray1<u32>>> {
        let token_ids = py.detach(|| self.0.encode_bytes(data)).or_raise()?;
        Ok(token_ids.into_pyarray(py))
    }

    /// The text of token ids, `(N,)` uint32.
    fn decode(&self, py: Python<'_>, token_ids: PyReadonlyArray1<'_, u32>) -> PyResult<String> {
        let token_ids = token_ids.as_array().to_vec();
        let size = self.0.size();
        if let Some(position) = token_ids.iter().position(|&id| id as usize >= size) {
            let id = token_ids[position];
            return Err(raise(
                "RequestError",
                format!("token id {id} at position {position} is not below {size}"),
            ));
        }
        Ok(py.detach(|| self.0.decode(&token_ids)))
    }

    #[getter]
    fn symbols(&self) -> Vec<u32> {
        self.0.symbols().to_vec()
    }

    #[getter]
    fn unit(&self) -> &'static str {
        match self.0.unit() {
            Unit::Char => "char",
            Unit::Byte => "byte",
        }
    }

    fn __len__(&self) -> usize {
        self.0.size()
    }
}

fn parse_unit(unit: &str) -> PyResult<Unit> {
    match unit {
        "char" => Ok(Unit::Char),
        "byte" => Ok(Unit::Byte),
        other => Err(raise("RequestError", format!("unit is {other:?}; it must be \"char\" or \"byte\""))),
    }
}
