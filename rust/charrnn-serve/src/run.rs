//! `run_server`: load, listen and serve from a thread that may block, with all threads its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use charrnn_core::engine::EngineConfig;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{oneshot, Notify};
use tracing::info;

use crate::access::{Access, AccessOptions};
use crate::error::ServeError;
use crate::logs::{start_logging, Logging, READY};
use crate::model::load_model;
use crate::models::Models;
use crate::onnx::Device;
use crate::process::give_way;
use crate::reload::{Load, Source};
use crate::rest::rest;
use crate::server::{serve_checked, Control, Listeners};
use crate::token::TokenKey;

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
    /// The same for whoever runs the server.
    pub admin: Option<String>,
    /// A secret that servers share to go on with each other's texts; default: one of this server's own.
    pub resume_key_file: Option<PathBuf>,
    /// Decode threads a model; default: one a core.
    pub workers: Option<usize>,
    /// `fp32` or `int8`; default: int8 where the bundle and the device have it.
    pub precision: Option<String>,
    /// What computes steps.
    pub device: Device,
    /// Limits of each model's engine.
    pub engine: EngineConfig,
    /// How long running streams may take to finish, once their model or the server goes.
    pub drain_timeout: Duration,
    /// Who is let in.
    pub access: AccessOptions,
    /// What is told on stderr; default: nothing.
    pub logging: Option<Logging>,
}

/// Where a server answers, port 0 resolved.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// gRPC.
    pub listen: SocketAddr,
    /// Metrics, if asked for.
    pub metrics: Option<SocketAddr>,
    /// The same of `charrnn.v1.Admin`.
    pub admin: Option<SocketAddr>,
}

/// What a running server is told from outside.
pub struct Signals {
    /// Sent to, or its sender dropped: end, and let running streams finish.
    pub stop: oneshot::Receiver<()>,
    /// Sent to: end them at once.
    pub abort: oneshot::Receiver<()>,
    /// Read certificates and tokens again, and look for bundles that have changed.
    pub reload: Arc<Notify>,
}

/// Serves until told to stop, and blocks so long. `on_ready` gets the addresses, once they answer.
pub fn run_server(
    options: &ServeOptions,
    on_ready: impl FnOnce(Addresses),
    signals: Signals,
) -> Result<(), ServeError> {
    options.logging.into_iter().for_each(start_logging);
    let runtime = runtime()?;
    // First, so that a wrong file or a taken port shows before seconds of loading.
    let access = Access::load(options.access.clone())?;
    let listeners = runtime.block_on(bind_all(options, access))?;
    let (models, source) = load_models(options)?;
    let models = models.with_key(Arc::clone(&listeners.key));
    let addresses = addresses(&listeners)?;
    let [metrics, admin] = [addresses.metrics, addresses.admin].map(|one| one.map(|one| one.to_string()));
    info!(target: READY, listen = %addresses.listen, metrics, admin, "serving");
    on_ready(addresses);
    let Signals { stop, abort, reload } = signals;
    let stopped = async { drop(stop.await) };
    let aborted = async {
        if abort.await.is_err() {
            std::future::pending().await
        }
    };
    let control = Control { source, reload, drain_timeout: options.drain_timeout };
    let served = runtime.block_on(serve_checked(listeners, models, control, stopped, aborted));
    runtime.shutdown_timeout(RUNTIME_TIMEOUT);
    served
}

fn runtime() -> Result<Runtime, ServeError> {
    let mut builder = Builder::new_multi_thread();
    let builder = builder.worker_threads(NUM_IO_THREADS).thread_name("charrnn-io").enable_all();
    Ok(builder.on_thread_park(rest).build()?)
}

async fn bind_all(options: &ServeOptions, access: Access) -> Result<Listeners, ServeError> {
    let grpc = bind(&options.listen).await?;
    let metrics = bind_optional(options.metrics.as_deref()).await?;
    let admin = bind_optional(options.admin.as_deref()).await?;
    let key = options.resume_key_file.as_deref().map_or_else(|| Ok(TokenKey::random()), TokenKey::read)?;
    Ok(Listeners { grpc, metrics, admin, access, key: Arc::new(key) })
}

fn addresses(listeners: &Listeners) -> Result<Addresses, ServeError> {
    let optional =
        |listener: &Option<TcpListener>| listener.as_ref().map(TcpListener::local_addr).transpose();
    let (metrics, admin) = (optional(&listeners.metrics)?, optional(&listeners.admin)?);
    Ok(Addresses { listen: listeners.grpc.local_addr()?, metrics, admin })
}

async fn bind_optional(address: Option<&str>) -> Result<Option<TcpListener>, ServeError> {
    match address {
        Some(address) => Ok(Some(bind(address).await?)),
        None => Ok(None),
    }
}

async fn bind(address: &str) -> Result<TcpListener, ServeError> {
    let failed = |source| ServeError::Bind { address: address.to_owned(), source };
    TcpListener::bind(address).await.map_err(failed)
}

/// The models to begin with, and where they and others come from.
fn load_models(options: &ServeOptions) -> Result<(Models, Source), ServeError> {
    let load = loader(options.clone());
    let models = options.bundles.iter().map(|dir| load(dir)).collect::<Result<Vec<_>, _>>()?;
    let names = models.iter().map(|model| model.info().name.clone());
    let folders = names.zip(options.bundles.iter().cloned()).collect();
    Ok((Models::new(models)?, Source { load, folders }))
}

fn loader(options: ServeOptions) -> Load {
    Arc::new(move |dir: &Path| {
        let workers = options.workers.unwrap_or_else(default_workers);
        let (device, precision) = (options.device, options.precision.as_deref());
        let config = EngineConfig { on_start: give_way, ..options.engine.clone() };
        load_model(dir, &options.dylib, device, precision, config, workers)
    })
}

/// One decode thread a core.
pub fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
