//! Why a server does not start or run, and why a request is refused.

use std::io;

use charrnn_core::engine::SubmitError;
use charrnn_core::error::{BundleError, RequestError};

use crate::onnx::{Device, OrtError};
use crate::secrets::FileError;

/// Why a server or an in-process engine does not start or run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The exported model is damaged or not one.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// ONNX Runtime or the model's graph does not load.
    #[error(transparent)]
    Ort(#[from] OrtError),
    /// The model does not compute what it should.
    #[error("step graph {graph}: {reason}; export it again, or serve it on another device")]
    Check {
        /// What it is called.
        graph: String,
        /// What was found.
        reason: String,
    },
    /// A device for fp32 only.
    #[error("device {0} computes fp32 only; leave out --precision int8, or take --device cpu")]
    Int8(Device),
    /// Nothing to serve.
    #[error("no model to serve; give at least one bundle")]
    NoModels,
    /// Requests could not say which one they mean.
    #[error("two bundles name their model {0:?}; serve one of them or export the other under another name")]
    DuplicateModel(String),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}{}", bind_advice(source))]
    Bind {
        /// As given.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// Certificates, keys or tokens are not right.
    #[error(transparent)]
    Access(#[from] FileError),
    /// The system gave no threads or sockets.
    #[error("server cannot run: {0}")]
    Io(#[from] io::Error),
    /// A decode thread panicked twice.
    #[error("model {0:?} lost a decode thread, which panicked twice; the log has the messages")]
    Broken(String),
    /// The transport gave up.
    #[error("server stopped: {0}")]
    Transport(#[from] tonic::transport::Error),
}

fn bind_advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => "; stop the program that holds the port or choose another",
        io::ErrorKind::AddrNotAvailable => "; give an address of this machine",
        io::ErrorKind::InvalidInput => "; give HOST:PORT, for instance 127.0.0.1:50051",
        _ => "",
    }
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// Something in it is out of range.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The engine takes none now.
    #[error(transparent)]
    Submit(#[from] SubmitError),
}
