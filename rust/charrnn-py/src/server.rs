//! `serve`: the gRPC server, run until a signal says stop.

use std::path::PathBuf;
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use charrnn_serve::{run_server, AccessOptions, Addresses, ServeError, ServeOptions, Signals, TlsFiles};
use pyo3::prelude::*;
use tokio::sync::{oneshot, Notify};

use crate::engine::{engine_config, num_workers, SIGNAL_POLL};
use crate::error::{raise, OrRaise};

/// What the server's thread tells Python's.
enum Notice {
    Ready(Addresses),
    Ended(Result<(), ServeError>),
}

/// Has a running server read its files again, from any thread.
#[pyclass(frozen, module = "charrnn._native")]
#[derive(Default)]
pub(crate) struct Reload(Arc<Notify>);

#[pymethods]
impl Reload {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Returns at once; what comes while files are being read is done after.
    fn trigger(&self) {
        self.0.notify_one();
    }
}

/// Serves bundles until a signal raises in Python, then lets streams finish; a second signal ends it at once.
#[pyfunction]
#[pyo3(signature = (*, bundles, onnxruntime, listen, metrics, workers, max_streams, max_queue, precision, drain_timeout_s, access, reload, on_ready))]
#[allow(clippy::too_many_arguments, reason = "keyword-only in Python")]
pub(crate) fn serve(
    py: Python<'_>,
    bundles: Vec<PathBuf>,
    onnxruntime: PathBuf,
    listen: String,
    metrics: Option<String>,
    workers: Option<usize>,
    max_streams: usize,
    max_queue: usize,
    precision: Option<String>,
    drain_timeout_s: f64,
    access: AccessFiles,
    reload: &Reload,
    on_ready: Py<PyAny>,
) -> PyResult<()> {
    let seconds = |_| format!("drain_timeout_s is {drain_timeout_s}; it must be 0 or more seconds");
    let drain_timeout = Duration::try_from_secs_f64(drain_timeout_s)
        .map_err(|error| raise("RequestError", seconds(error)))?;
    let (engine, workers) = (engine_config(max_streams, max_queue)?, Some(num_workers(workers)?));
    let (dylib, access) = (onnxruntime, to_access(access));
    let options =
        ServeOptions { bundles, dylib, listen, metrics, workers, precision, engine, drain_timeout, access };
    let (stops, notices) = start(options, Arc::clone(&reload.0));
    watch(py, stops, &notices, &on_ready)
}

/// Certificate and key, authorities of clients, tokens, and texts that one client may have under way.
type AccessFiles = (Option<(PathBuf, PathBuf)>, Option<PathBuf>, Option<PathBuf>, Option<usize>);

fn to_access((pair, client_ca, token_file, max_streams_per_client): AccessFiles) -> AccessOptions {
    let tls = pair.map(|(cert, key)| TlsFiles { cert, key, client_ca });
    AccessOptions { tls, token_file, max_streams_per_client }
}

/// Runs the server on a thread of its own: Python's main thread has to stay free for signals.
fn start(options: ServeOptions, reload: Arc<Notify>) -> (Vec<oneshot::Sender<()>>, Mutex<Receiver<Notice>>) {
    let ((stop, stopped), (abort, aborted)) = (oneshot::channel(), oneshot::channel());
    let (sender, notices) = channel();
    thread::spawn(move || {
        let ready = |addresses| drop(sender.send(Notice::Ready(addresses)));
        let ended = run_server(&options, ready, Signals { stop: stopped, abort: aborted, reload });
        drop(sender.send(Notice::Ended(ended)));
    });
    (vec![abort, stop], Mutex::new(notices))
}

/// Waits for the end. The first signal stops the server, the second aborts its streams, a third ends the wait.
///
/// To return with decode threads running would let the process take ONNX Runtime down beneath them.
fn watch(
    py: Python<'_>,
    mut stops: Vec<oneshot::Sender<()>>,
    notices: &Mutex<Receiver<Notice>>,
    on_ready: &Py<PyAny>,
) -> PyResult<()> {
    let mut impatient = None;
    let wait = || notices.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(SIGNAL_POLL);
    loop {
        match py.detach(wait) {
            Ok(Notice::Ready(Addresses { listen, metrics })) => {
                let metrics = metrics.map(|address| address.to_string());
                on_ready.call1(py, (listen.to_string(), metrics))?;
            }
            Ok(Notice::Ended(result)) => return impatient.map_or_else(|| result.or_raise(), Err),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(raise("ServerError", "the server's thread died"))
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Err(signal) = py.check_signals() {
            match stops.pop() {
                Some(stop) => drop(stop.send(())),
                None => return Err(signal),
            }
            if stops.is_empty() {
                impatient = Some(signal);
            }
        }
    }
}
