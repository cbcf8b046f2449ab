//! charrnn served: ONNX Runtime step models, the gRPC service over them, and streams in the same process.
//!
//! Protocol, loading and lifecycle live here; what a request may say, how it is scheduled and how characters are
//! drawn is `charrnn-core`'s. Decode threads compute; the few tokio threads only speak HTTP/2.

mod access;
mod admin;
mod auth;
mod check;
mod clients;
#[doc(hidden)]
pub mod codec;
mod denied;
mod error;
mod exposition;
mod gate;
mod greeting;
mod health;
mod incoming;
mod logs;
mod many;
mod metrics;
mod model;
mod models;
mod notify;
mod onnx;
pub mod pb;
mod process;
mod reload;
mod rest;
mod run;
mod score;
mod secrets;
mod server;
mod service;
mod stats;
mod status;
mod stream;
mod tell;
mod tls;
mod token;

pub use access::{Access, AccessOptions};
pub use check::{check_bundle, Checked};
pub use error::{GenerateError, ServeError};
pub use logs::{start_logging, LogFormat, Logging};
pub use model::{choose_precision, load_coder, load_model, Caller, Model, ModelInfo};
pub use onnx::{Device, OrtError, OrtModel, OrtRuntime, UnknownDevice};
pub use reload::{Load, Source};
pub use run::{default_workers, run_server, Addresses, ServeOptions, Signals};
pub use secrets::FileError;
pub use server::{serve, serve_with, Control, Listeners};
pub use stream::{EventStream, TimedOut};
pub use tls::TlsFiles;
pub use token::TokenKey;
