//! charrnn served: ONNX Runtime step models, the gRPC service over them, and streams in the same process.
//!
//! Protocol, loading and lifecycle live here; what a request may say, how it is scheduled and how characters are
//! drawn is `charrnn-core`'s. Decode threads compute; the few tokio threads only speak HTTP/2.

#[doc(hidden)]
pub mod codec;
mod error;
mod exposition;
mod many;
mod metrics;
mod model;
mod onnx;
pub mod pb;
mod process;
mod run;
mod server;
mod service;
mod stats;
mod status;
mod stream;

pub use error::{GenerateError, ServeError};
pub use model::{load_coder, load_model, Model, ModelInfo};
pub use onnx::{OrtError, OrtModel, OrtRuntime};
pub use run::{default_workers, run_server, Addresses, ServeOptions};
pub use server::{serve, Listeners};
pub use stream::{EventStream, TimedOut};
