//! The pure heart of charrnn: vocabulary, sampler, slots, scheduler and engine.
//!
//! Knows no Python, no network, no async runtime and no ONNX: a model is anything that implements [`StepModel`].

pub mod coding;
pub mod compress;
pub mod constraint;
pub mod engine;
pub mod error;
pub mod event;
pub mod limits;
pub mod manifest;
pub mod meter;
pub mod model;
pub mod params;
pub mod philox;
pub mod prompt_cache;
pub mod request;
pub mod sampler;
mod scheduler;
mod slots;
pub mod snapshot;
pub mod state;
pub mod stop;
pub mod vocab;

pub use model::{ModelSpec, StateTensor, StepError, StepModel};
