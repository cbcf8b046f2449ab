//! The server over real sockets, with a model that needs neither weights nor ONNX Runtime.

mod access;
mod admin;
mod cache;
mod cancel;
mod deadline;
mod failure;
mod harness;
mod health;
mod many;
mod metrics;
mod overload;
mod reflection;
mod refusals;
mod resume;
mod score;
mod shutdown;
mod slow_reader;
mod stats;
mod streaming;
mod swap;
