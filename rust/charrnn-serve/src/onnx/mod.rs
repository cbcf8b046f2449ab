//! The step model that ONNX Runtime computes.
//!
//! Knows graphs and tensors; knows no requests, streams or sockets.

mod device;
mod graph;
mod model;
mod runtime;
mod value;

use std::path::PathBuf;

use charrnn_core::StepError;

pub use device::{Device, UnknownDevice};
pub use model::OrtModel;
pub use runtime::OrtRuntime;

/// Why ONNX Runtime or a model file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OrtError {
    /// The shared library is missing, foreign or too old.
    #[error("ONNX Runtime library {path} cannot be loaded: {reason}")]
    Library {
        /// As given.
        path: PathBuf,
        /// What the loader says.
        reason: String,
    },
    /// A process holds one ONNX Runtime for good.
    #[error("ONNX Runtime is already loaded from {loaded}; a process holds only one, so not also {asked}")]
    OtherLibrary {
        /// In use.
        loaded: PathBuf,
        /// As given.
        asked: PathBuf,
    },
    /// The device asked for is not there, or ONNX Runtime cannot use it.
    #[error("device {device} cannot be used: {reason}; see that the GPU's driver and onnxruntime-gpu with its CUDA libraries are installed, or take --device cpu")]
    Device {
        /// As asked for.
        device: Device,
        /// What ONNX Runtime says.
        reason: String,
    },
    /// No ONNX graph that this ONNX Runtime runs.
    #[error("step graph {graph} cannot be loaded: {reason}")]
    Load {
        /// What it was called.
        graph: String,
        /// What ONNX Runtime says.
        reason: String,
    },
    /// Not the step graph of the model's shapes.
    #[error("step graph {graph} does not fit its manifest: {problem}")]
    Graph {
        /// What it was called.
        graph: String,
        /// What was found and what is expected.
        problem: String,
    },
    /// The first steps, run at load, failed.
    #[error("step graph {graph} loads but does not run: {source}")]
    WarmUp {
        /// What it was called.
        graph: String,
        /// What ONNX Runtime says.
        source: StepError,
    },
}
