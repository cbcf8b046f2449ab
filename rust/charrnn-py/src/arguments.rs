//! Arguments of Python's that are refused in the words of `charrnn.errors`: field, value, limit.

use std::ops::RangeInclusive;

use numpy::ndarray::Dimension;
use numpy::{
    PyArray, PyArray1, PyArrayDescrMethods, PyArrayMethods, PyReadonlyArray, PyReadonlyArray1,
    PyUntypedArray, PyUntypedArrayMethods,
};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::error::raise;

pub(crate) fn refuse(message: String) -> PyErr {
    raise("RequestError", message)
}

/// A whole number of `limits`.
pub(crate) fn whole_of(name: &str, value: &Bound<'_, PyAny>, limits: RangeInclusive<u64>) -> PyResult<u64> {
    match value.extract() {
        Ok(number) if limits.contains(&number) => Ok(number),
        _ => {
            let (least, most) = limits.into_inner();
            let given = value.repr()?;
            Err(refuse(format!("{name} is {given}; it must be a whole number of {least} to {most}")))
        }
    }
}

/// Token ids, of any iterable.
pub(crate) fn ids_of(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    let Ok(items) = value.try_iter() else {
        return Err(refuse(format!("{name} is {}; give a list of token ids", value.repr()?)));
    };
    items.map(|item| id_of(name, &item?)).collect()
}

pub(crate) fn id_of(name: &str, id: &Bound<'_, PyAny>) -> PyResult<u32> {
    Ok(whole_of(&format!("an id of {name}"), id, 0..=u64::from(u32::MAX))? as u32)
}

/// A string that is text: Python's may hold halves of surrogate pairs.
pub(crate) fn text_of(name: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    value.extract().or_else(|_| {
        let must = match value.is_instance_of::<PyString>() {
            true => "it holds half of a surrogate pair, which is no character",
            false => "it must be a string",
        };
        Err(refuse(format!("{name} is {}; {must}", value.repr()?)))
    })
}

/// Logits, in place where that is possible, else through `charrnn.sampler.as_logits`, which converts.
pub(crate) fn logits_of<'py, D: Dimension>(
    logits: &Bound<'py, PyAny>,
    num_dimensions: usize,
) -> PyResult<PyReadonlyArray<'py, f32, D>> {
    if let Some(array) = in_place::<f32, D>(logits) {
        return borrowed("logits", array);
    }
    let module = logits.py().import("charrnn.sampler")?;
    let converted = module.getattr("as_logits")?.call1((logits, num_dimensions))?;
    borrowed("logits", converted.cast()?)
}

/// Whole numbers, one a row, in place if they are of that type already.
pub(crate) fn numbers_of<'py, T: numpy::Element>(
    name: &str,
    value: &Bound<'py, PyAny>,
) -> PyResult<PyReadonlyArray1<'py, T>> {
    if let Some(array) = in_place(value) {
        return borrowed(name, array);
    }
    let module = value.py().import("charrnn.sampler")?;
    let converted = module.getattr("as_numbers")?.call1((name, value, T::get_dtype(value.py())))?;
    borrowed(name, converted.cast::<PyArray1<T>>()?)
}

/// An array that Rust can read as a slice: of that very type, as a subclass might hide a mask; packed; aligned.
fn in_place<'a, 'py, T: numpy::Element, D: Dimension>(
    value: &'a Bound<'py, PyAny>,
) -> Option<&'a Bound<'py, PyArray<T, D>>> {
    let array = value.cast::<PyArray<T, D>>().ok()?;
    let is_plain = array.is_exact_instance_of::<PyUntypedArray>() && array.is_c_contiguous();
    let alignment = array.dtype().alignment();
    (is_plain && (array.data() as usize).is_multiple_of(alignment)).then_some(array)
}

fn borrowed<'py, T: numpy::Element, D: Dimension>(
    name: &str,
    array: &Bound<'py, PyArray<T, D>>,
) -> PyResult<PyReadonlyArray<'py, T, D>> {
    array.try_readonly().map_err(|_| refuse(format!("{name} are being written by another call; give a copy")))
}

/// The tokens drawn so far, a sequence a row; through `charrnn.sampler.as_history` where it is no list of lists.
pub(crate) fn history_of(history: &Bound<'_, PyAny>) -> PyResult<Vec<Vec<u32>>> {
    history.extract().or_else(|_| {
        let module = history.py().import("charrnn.sampler")?;
        module.getattr("as_history")?.call1((history,))?.extract()
    })
}
