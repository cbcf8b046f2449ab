//! What ends a run before it has a report.

use std::path::PathBuf;

/// One line: what, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The plan says something that cannot be done.
    #[error("{0}")]
    Plan(String),
    /// Nobody answers.
    #[error("no server answers at {address}: {reason}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
    /// Somebody answers who is no server of charrnn.
    #[error("what answers at {address} is no charrnn server: {found}")]
    Foreign {
        /// Where.
        address: String,
        /// What is there.
        found: String,
    },
    /// The server takes no request like the plan's.
    #[error("the server at {address} refuses the first request: {said}")]
    Refused {
        /// Where.
        address: String,
        /// Why.
        said: String,
        /// Whether the request is at fault, and not who sends it.
        is_its_fault: bool,
    },
    /// It was to end before it had begun.
    #[error("stopped before the load began")]
    Stopped,
    /// A text that runs alone did not end as it should, so there is nothing to compare with.
    #[error("the text that others were to be compared with failed: {0}")]
    Solo(String),
    /// The table of requests could not be written.
    #[error("{path}: {source}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The model could not be loaded or stepped.
    #[error(transparent)]
    Serve(#[from] charrnn_serve::ServeError),
    /// Threads or sockets could not be had.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The layers could not be measured.
    #[error("{0}")]
    Layer(String),
}
