//! `serve`: the gRPC server, run until a signal says stop.

use std::path::PathBuf;
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use charrnn_core::engine::EngineConfig;
use charrnn_serve::Device;
use charrnn_serve::{
    check_bundle, run_server, AccessOptions, Addresses, LogFormat, Logging, ServeError, ServeOptions,
    Signals, TlsFiles,
};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use tokio::sync::{oneshot, Notify};

use crate::engine::{engine_config, num_workers, SIGNAL_POLL};
use crate::error::{raise, OrRaise};

/// What the server's thread tells Python's.
enum Notice {
    Ready(Addresses),
    Ended(Result<(), ServeError>),
}

/// Has a running server read certificates and tokens again, and look for bundles that have changed, from any thread.
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
#[pyo3(signature = (*, bundles, onnxruntime, listen, metrics, admin, resume_key_file, workers, max_streams, max_queue, prompt_cache_bytes, device, precision, drain_timeout_s, access, logging, reload, on_ready))]
#[allow(clippy::too_many_arguments, reason = "keyword-only in Python")]
pub(crate) fn serve(
    py: Python<'_>,
    bundles: Vec<PathBuf>,
    onnxruntime: PathBuf,
    listen: String,
    metrics: Option<String>,
    admin: Option<String>,
    resume_key_file: Option<PathBuf>,
    workers: Option<usize>,
    max_streams: usize,
    max_queue: usize,
    prompt_cache_bytes: usize,
    device: &str,
    precision: Option<String>,
    drain_timeout_s: f64,
    access: AccessFiles,
    logging: Option<(String, String, bool)>,
    reload: &Reload,
    on_ready: Py<PyAny>,
) -> PyResult<()> {
    let seconds = |_| format!("drain_timeout_s is {drain_timeout_s}; it must be 0 or more seconds");
    let drain_timeout = Duration::try_from_secs_f64(drain_timeout_s)
        .map_err(|error| raise("RequestError", seconds(error)))?;
    let engine = EngineConfig { prompt_cache_bytes, ..engine_config(max_streams, max_queue)? };
    let workers = Some(num_workers(workers)?);
    let (dylib, access, logging) = (onnxruntime, to_access(access), logging.map(to_logging).transpose()?);
    let options = ServeOptions {
        bundles,
        dylib,
        listen,
        metrics,
        admin,
        resume_key_file,
        workers,
        device: device.parse::<Device>().or_raise()?,
        precision,
        engine,
        drain_timeout,
        access,
        logging,
    };
    let (stops, notices) = start(options, Arc::clone(&reload.0));
    watch(py, stops, &notices, &on_ready)
}

/// Certificate and key, authorities of clients, tokens, and texts that one client may have under way.
type AccessFiles = (Option<(PathBuf, PathBuf)>, Option<PathBuf>, Option<PathBuf>, Option<usize>);

fn to_access((pair, client_ca, token_file, max_streams_per_client): AccessFiles) -> AccessOptions {
    let tls = pair.map(|(cert, key)| TlsFiles { cert, key, client_ca });
    AccessOptions { tls, token_file, max_streams_per_client }
}

/// Format, level, and whether each text is told.
fn to_logging((format, level, requests): (String, String, bool)) -> PyResult<Logging> {
    let format = match format.as_str() {
        "text" => LogFormat::Text,
        "json" => LogFormat::Json,
        _ => return Err(raise("RequestError", format!("log format is {format:?}; it must be text or json"))),
    };
    let unknown = |_| format!("log level is {level:?}; it must be debug, info, warn, error or off");
    let level = level.parse().map_err(|error| raise("RequestError", unknown(error)))?;
    Ok(Logging { format, level, requests })
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
    let mut raised = None;
    let wait = || notices.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(SIGNAL_POLL);
    loop {
        let told = match py.detach(wait) {
            Ok(Notice::Ready(addresses)) => tell(py, on_ready, addresses),
            Ok(Notice::Ended(result)) => return raised.map_or_else(|| result.or_raise(), Err),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(raise("ServerError", "the server's thread died"))
            }
            Err(RecvTimeoutError::Timeout) => Ok(()),
        };
        // A signal that comes while Python is told of the addresses raises there, and is a wish to stop as any other.
        let is_fault = told.as_ref().is_err_and(|error| error.is_instance_of::<PyException>(py));
        let Err(error) = told.and_then(|()| py.check_signals()) else { continue };
        match stops.pop() {
            Some(stop) => drop(stop.send(())),
            None => return Err(error),
        }
        if stops.is_empty() || is_fault {
            raised = Some(error);
        }
    }
}

fn tell(py: Python<'_>, on_ready: &Py<PyAny>, addresses: Addresses) -> PyResult<()> {
    let Addresses { listen, metrics, admin } = addresses;
    let [metrics, admin] = [metrics, admin].map(|one| one.map(|one| one.to_string()));
    on_ready.call1(py, (listen.to_string(), metrics, admin)).map(drop)
}

/// Name, version, precision, state bytes, bytes of the graph, bytes of a stream; raises what is wrong.
type Checked = (String, String, String, u64, u64, u64);

/// Checks every file of a bundle, and that rows of `batch` are what they are alone.
#[pyfunction]
#[pyo3(signature = (*, bundle, onnxruntime, device, precision, batch))]
pub(crate) fn check_served(
    py: Python<'_>,
    bundle: PathBuf,
    onnxruntime: PathBuf,
    device: &str,
    precision: Option<String>,
    batch: usize,
) -> PyResult<Checked> {
    let engine = engine_config(batch, 0)?;
    let device = device.parse::<Device>().or_raise()?;
    let check = || check_bundle(&bundle, &onnxruntime, device, precision.as_deref(), engine.max_streams);
    let found = py.detach(check).or_raise()?;
    let info = found.info;
    Ok((info.name, info.version, info.precision, info.state_bytes, found.graph_bytes, found.stream_bytes))
}
