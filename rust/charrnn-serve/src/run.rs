//! `run_server`: load, listen and serve from a thread that may block, with all threads its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use charrnn_core::engine::EngineConfig;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{oneshot, Notify};

use crate::access::{Access, AccessOptions};
use crate::error::ServeError;
use crate::model::{load_model, Model};
use crate::server::{serve_checked, Listeners};
use crate::service::Models;

/// Protocol work is a tenth of the decoding's; a second thread would only take a core from it.
const NUM_IO_THREADS: usize = 1;
/// What still stands after serving ends, such as a client that reads nothing, is cut off after this.
const RUNTIME_TIMEOUT: Duration = Duration::from_secs(1);

/// What `run_server` needs to know.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Folders of exported models.
    pub bundles: Vec<PathBuf>,
    /// The ONNX Runtime shared library.
    pub dylib: PathBuf,
    /// `HOST:PORT`; port 0 takes a free one.
    pub listen: String,
    /// The same for metrics, which nobody answers unless it is given.
    pub metrics: Option<String>,
    /// Decode threads a model; default: one a core.
    pub workers: Option<usize>,
    /// `fp32` or `int8`; default: int8 where the bundle has it.
    pub precision: Option<String>,
    /// Limits of each model's engine.
    pub engine: EngineConfig,
    /// How long running streams may take to finish once stopped.
    pub drain_timeout: Duration,
    /// Who is let in.
    pub access: AccessOptions,
}

/// Where a server answers, port 0 resolved.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// gRPC.
    pub listen: SocketAddr,
    /// Metrics, if asked for.
    pub metrics: Option<SocketAddr>,
}

/// What a running server is told from outside.
pub struct Signals {
    /// Sent to, or its sender dropped: end, and let running streams finish.
    pub stop: oneshot::Receiver<()>,
    /// Sent to: end them at once.
    pub abort: oneshot::Receiver<()>,
    /// Read certificates and tokens again.
    pub reload: Arc<Notify>,
}

/// Serves until told to stop, and blocks so long. `on_ready` gets the addresses, once they answer.
pub fn run_server(
    options: &ServeOptions,
    on_ready: impl FnOnce(Addresses),
    signals: Signals,
) -> Result<(), ServeError> {
    let Signals { stop, abort, reload } = signals;
    let runtime = runtime()?;
    // First, so that a wrong file or a taken port shows before seconds of loading.
    let access = Access::load(options.access.clone())?;
    let listeners = runtime.block_on(bind_all(options, access.clone()))?;
    runtime.spawn(reload_when_told(access, reload));
    let models = Models::new(load_models(options)?)?;
    on_ready(addresses(&listeners)?);
    let stopped = async { drop(stop.await) };
    let aborted = async {
        if abort.await.is_err() {
            std::future::pending().await
        }
    };
    let served = runtime.block_on(serve_checked(listeners, models, stopped, aborted, options.drain_timeout));
    runtime.shutdown_timeout(RUNTIME_TIMEOUT);
    served
}

fn runtime() -> Result<Runtime, ServeError> {
    let mut builder = Builder::new_multi_thread();
    Ok(builder.worker_threads(NUM_IO_THREADS).thread_name("charrnn-io").enable_all().build()?)
}

async fn reload_when_told(access: Access, told: Arc<Notify>) {
    loop {
        told.notified().await;
        let access = access.clone();
        // A panic was reported when it happened.
        let _ = tokio::task::spawn_blocking(move || access.reload()).await;
    }
}

async fn bind_all(options: &ServeOptions, access: Access) -> Result<Listeners, ServeError> {
    let grpc = bind(&options.listen).await?;
    let metrics = match &options.metrics {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    Ok(Listeners { grpc, metrics, access })
}

fn addresses(listeners: &Listeners) -> Result<Addresses, ServeError> {
    let metrics = listeners.metrics.as_ref().map(TcpListener::local_addr).transpose()?;
    Ok(Addresses { listen: listeners.grpc.local_addr()?, metrics })
}

async fn bind(address: &str) -> Result<TcpListener, ServeError> {
    let failed = |source| ServeError::Bind { address: address.to_owned(), source };
    TcpListener::bind(address).await.map_err(failed)
}

fn load_models(options: &ServeOptions) -> Result<Vec<Model>, ServeError> {
    let workers = options.workers.unwrap_or_else(default_workers);
    let load = |dir: &PathBuf| {
        load_model(dir, &options.dylib, options.precision.as_deref(), options.engine.clone(), workers)
    };
    options.bundles.iter().map(load).collect()
}

/// One decode thread a core.
pub fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
