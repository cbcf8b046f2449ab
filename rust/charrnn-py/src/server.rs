//! `serve`: the gRPC server, run until a signal says stop.

use std::path::PathBuf;
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use charrnn_serve::{run_server, Addresses, ServeError, ServeOptions};
use pyo3::prelude::*;
use tokio::sync::oneshot;

use crate::engine::{engine_config, num_workers, SIGNAL_POLL};
use crate::error::{raise, OrRaise};

/// What the server's thread tells Python's.
enum Notice {
    Ready(Addresses),
    Ended(Result<(), ServeError>),
}

/// Serves bundles until a signal raises in Python, then lets streams finish; a second signal ends it at once.
#[pyfunction]
#[pyo3(signature = (*, bundles, onnxruntime, listen, metrics, workers, max_streams, max_queue, precision, drain_timeout_s, on_ready))]
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
    on_ready: Py<PyAny>,
) -> PyResult<()> {
    let seconds = |_| format!("drain_timeout_s is {drain_timeout_s}; it must be 0 or more seconds");
    let drain_timeout = Duration::try_from_secs_f64(drain_timeout_s)
        .map_err(|error| raise("RequestError", seconds(error)))?;
    let (engine, workers) = (engine_config(max_streams, max_queue)?, Some(num_workers(workers)?));
    let dylib = onnxruntime;
    let options = ServeOptions { bundles, dylib, listen, metrics, workers, precision, engine, drain_timeout };
    let (stops, notices) = start(options);
    watch(py, stops, &notices, &on_ready)
}

/// Runs the server on a thread of its own: Python's main thread has to stay free for signals.
fn start(options: ServeOptions) -> (Vec<oneshot::Sender<()>>, Mutex<Receiver<Notice>>) {
    let ((stop, stopped), (abort, aborted)) = (oneshot::channel(), oneshot::channel());
    let (sender, notices) = channel();
    thread::spawn(move || {
        let ready = |addresses| drop(sender.send(Notice::Ready(addresses)));
        let ended = run_server(&options, ready, stopped, aborted);
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
