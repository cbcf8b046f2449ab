//! `open_bundle`: check an exported model and hand its manifest over.

use std::path::PathBuf;

use charrnn_core::manifest::Bundle;
use pyo3::prelude::*;

use crate::error::OrRaise;

/// The manifest of the bundle at `path` as JSON and its digest, once every file's sha256 has been checked.
#[pyfunction]
pub(crate) fn open_bundle(py: Python<'_>, path: PathBuf) -> PyResult<(String, String)> {
    py.detach(|| {
        let bundle = Bundle::open(&path).or_raise()?;
        bundle.verify_all().or_raise()?;
        Ok((bundle.manifest_json().to_owned(), bundle.digest))
    })
}
