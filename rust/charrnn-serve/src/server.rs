//! `serve`: socket, health, reflection, and an end that always comes.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::codegen::http::{HeaderValue, Response};
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic_health::server::{HealthReporter, HealthService};
use tonic_health::ServingStatus;
use tower::util::MapResponseLayer;

use crate::access::Access;
use crate::auth::AuthLayer;
use crate::error::ServeError;
use crate::incoming::Incoming;
use crate::metrics::{serve_metrics, Source};
use crate::model::Model;
use crate::pb::char_rnn_server::CharRnnServer;
use crate::pb::FILE_DESCRIPTOR_SET;
use crate::service::{CharRnnService, Models};

/// Streams one connection may hold at once; more wait in the client. HTTP/2's own default is no limit.
const MAX_STREAMS_PER_CONNECTION: u32 = 1024;
/// The longest prompt is 65 536 characters of at most 4 bytes.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
const MAX_HEADER_BYTES: u32 = 16 << 10;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long streams that have ended may take to reach their clients. hyper's own wait has no end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Where a server answers, and whom.
#[derive(Debug)]
pub struct Listeners {
    /// gRPC.
    pub grpc: TcpListener,
    /// Prometheus' metrics and `/healthz`, over HTTP/1.1.
    pub metrics: Option<TcpListener>,
    /// Of both.
    pub access: Access,
}

impl From<TcpListener> for Listeners {
    fn from(grpc: TcpListener) -> Self {
        Listeners { grpc, metrics: None, access: Access::default() }
    }
}

/// Serves `models` on `listeners` until `shutdown` completes, then ends in order: health says NOT_SERVING, new
/// requests get UNAVAILABLE, running streams have `drain_timeout` to finish, the rest end with UNAVAILABLE, and
/// connections close. Returns within `drain_timeout` and a few seconds whatever the clients do; a connection
/// that would not close then goes with the runtime.
pub async fn serve(
    listeners: impl Into<Listeners>,
    models: Vec<Model>,
    shutdown: impl Future<Output = ()>,
    drain_timeout: Duration,
) -> Result<(), ServeError> {
    let models = Models::new(models)?;
    serve_checked(listeners.into(), models, shutdown, std::future::pending(), drain_timeout).await
}

/// The same for models that are known to have names of their own. Running streams end early if `abort` completes.
pub(crate) async fn serve_checked(
    listeners: Listeners,
    models: Models,
    shutdown: impl Future<Output = ()>,
    abort: impl Future<Output = ()>,
    drain_timeout: Duration,
) -> Result<(), ServeError> {
    let models = Arc::new(models);
    let health = Health::new(&models).await;
    let (close, closing) = watch::channel(());
    // Sets of one: their tasks end with them, should the caller drop this future.
    let (mut server, mut scraped) = (JoinSet::new(), JoinSet::new());
    let (access, service) = (listeners.access, health.service());
    if let Some(listener) = listeners.metrics {
        let (models, is_serving) = (Arc::clone(&models), Arc::clone(&health.is_serving));
        scraped.spawn(serve_metrics(listener, Source { models, is_serving, access: access.clone() }));
    }
    server.spawn(listen(listeners.grpc, access, Arc::clone(&models), service, closing));
    tokio::select! {
        ended = server.join_next() => return flatten(ended),
        () = shutdown => {}
    }
    health.not_serving().await;
    drain(&models, abort, drain_timeout).await;
    health.forget().await;
    drop(close);
    tokio::time::timeout(CLOSE_TIMEOUT, server.join_next()).await.map_or(Ok(()), flatten)
}

type Ended = Option<Result<Result<(), tonic::transport::Error>, tokio::task::JoinError>>;

fn flatten(ended: Ended) -> Result<(), ServeError> {
    match ended {
        Some(Ok(result)) => Ok(result?),
        Some(Err(error)) => Err(std::io::Error::other(error).into()),
        None => Ok(()),
    }
}

async fn listen(
    listener: TcpListener,
    access: Access,
    models: Arc<Models>,
    health: HealthService,
    mut closing: watch::Receiver<()>,
) -> Result<(), tonic::transport::Error> {
    let service = CharRnnService { models, closing: closing.clone() };
    let service = CharRnnServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let health = tonic_health::pb::health_server::HealthServer::new(health);
    let incoming = Incoming::new(listener, access.tls());
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .layer(MapResponseLayer::new(oversize_is_exhausted))
        .layer(AuthLayer(access))
        .add_service(service)
        .add_service(health)
        .add_service(reflection().build_v1().expect("committed descriptors decode"))
        .add_service(reflection().build_v1alpha().expect("committed descriptors decode"))
        .serve_with_incoming_shutdown(incoming, async move { drop(closing.changed().await) })
        .await
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// gRPC says RESOURCE_EXHAUSTED for a message over the cap where tonic says OUT_OF_RANGE, which nothing else here says.
fn oversize_is_exhausted(mut response: Response<Body>) -> Response<Body> {
    const OUT_OF_RANGE: HeaderValue = HeaderValue::from_static("11");
    const RESOURCE_EXHAUSTED: HeaderValue = HeaderValue::from_static("8");
    match response.headers_mut().get_mut("grpc-status") {
        Some(code) if *code == OUT_OF_RANGE => *code = RESOURCE_EXHAUSTED,
        _ => {}
    }
    response
}

/// Stops admission everywhere, then waits for the streams of all models together.
async fn drain(models: &Arc<Models>, abort: impl Future<Output = ()>, timeout: Duration) {
    models.iter().for_each(Model::stop_admission);
    let deadline = Instant::now() + timeout;
    let all = Arc::clone(models);
    let drain_all = move || {
        for model in all.iter() {
            model.drain(deadline.saturating_duration_since(Instant::now()));
        }
    };
    let mut drained = tokio::task::spawn_blocking(drain_all);
    tokio::select! {
        _ = &mut drained => return,
        // The engine keeps the time; this guards against a step that never returns.
        () = tokio::time::sleep(timeout.saturating_add(CLOSE_TIMEOUT)) => return,
        () = abort => models.iter().for_each(Model::abort),
    }
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, drained).await;
}

/// The health of the server (""), of the service and of each model.
struct Health {
    reporter: HealthReporter,
    names: Vec<String>,
    is_serving: Arc<AtomicBool>,
}

impl Health {
    async fn new(models: &Models) -> Self {
        let service = CharRnnServer::<CharRnnService>::NAME;
        let names = ["", service].into_iter().chain(models.names()).map(str::to_owned).collect();
        let is_serving = Arc::new(AtomicBool::new(true));
        let health = Health { reporter: HealthReporter::new(), names, is_serving };
        health.set(ServingStatus::Serving).await;
        health
    }

    fn service(&self) -> HealthService {
        HealthService::from_health_reporter(self.reporter.clone())
    }

    async fn not_serving(&self) {
        self.is_serving.store(false, Relaxed);
        self.set(ServingStatus::NotServing).await;
    }

    async fn set(&self, status: ServingStatus) {
        for name in &self.names {
            self.reporter.set_service_status(name, status).await;
        }
    }

    /// Ends the streams of those who watch, which would keep their connections open.
    async fn forget(mut self) {
        for name in &self.names {
            self.reporter.clear_service_status(name).await;
        }
    }
}
