//! `charrnn._native`: what Python sees of the Rust crates.
//!
//! Converts, detaches the GIL, maps errors, documents; decides nothing.

mod arguments;
mod bench;
mod bundle;
mod coding;
mod engine;
mod error;
mod params;
mod sampler;
mod server;
mod vocab;

/// The Rust core of charrnn. Its pleasant faces are the modules of the package.
#[pyo3::pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use crate::bench::{run_load, Layers};
    #[pymodule_export]
    use crate::bundle::open_bundle;
    #[pymodule_export]
    use crate::coding::{compress, decompress, measure, ArithmeticDecoder, ArithmeticEncoder};
    #[pymodule_export]
    use crate::engine::{num_workers, Engine, EventStream};
    #[pymodule_export]
    use crate::params::SamplingParams;
    #[pymodule_export]
    use crate::sampler::{limits, philox4x32, SampleOutput, Sampler};
    #[pymodule_export]
    use crate::server::{check_served, serve, Reload};
    #[pymodule_export]
    use crate::vocab::Vocab;
}
