//! `serve`: sockets, reflection, and an end that always comes.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{watch, Notify};
use tokio::task::{spawn_blocking, JoinSet};
use tonic::body::Body;
use tonic::codegen::http::{HeaderValue, Response};
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic_health::server::HealthService;
use tower::util::MapResponseLayer;
use tracing::{error, info};

use crate::access::Access;
use crate::admin::AdminService;
use crate::error::ServeError;
use crate::gate::gate;
use crate::health::Health;
use crate::incoming::Incoming;
use crate::metrics::{serve_metrics, Scraped};
use crate::model::Model;
use crate::models::Models;
use crate::notify;
use crate::pb::admin_server::AdminServer;
use crate::pb::char_rnn_server::CharRnnServer;
use crate::pb::FILE_DESCRIPTOR_SET;
use crate::reload::{Reloader, Source};
use crate::service::{shed, CharRnnService};
use crate::token::TokenKey;

/// Streams one connection may hold at once; more wait in the client. HTTP/2's own default is no limit.
const MAX_STREAMS_PER_CONNECTION: u32 = 1024;
/// The longest prompt is 65 536 characters of at most 4 bytes.
pub(crate) const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// The longest path, and some air.
const MAX_ADMIN_MESSAGE_BYTES: usize = 64 << 10;
/// Streams that a client may break the rules on before its connection is closed. tonic sets no limit where hyper has one.
const MAX_FAULTS_PER_CONNECTION: usize = 1024;
/// What a call may send ahead of being read. HTTP/2 counts small messages that nobody has read as a fault, against half the
/// window of the connection: one call whose reader is slow must not have it closed, with the texts of others on it.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 2 << 20;
const MAX_HEADER_BYTES: u32 = 16 << 10;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long streams that have ended may take to reach their clients. hyper's own wait has no end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How soon it shows that a decode thread is lost.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long a load that was under way may take to come to its end: ONNX Runtime must not be taken down beneath it.
const LOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a server answers, and whom.
#[derive(Debug)]
pub struct Listeners {
    /// gRPC.
    pub grpc: TcpListener,
    /// Prometheus' metrics and `/healthz`, over HTTP/1.1.
    pub metrics: Option<TcpListener>,
    /// gRPC for whoever runs the server, who is whoever reaches it.
    pub admin: Option<TcpListener>,
    /// Of the first two.
    pub access: Access,
    /// Of resume tokens: servers that share it go on with each other's texts.
    pub key: Arc<TokenKey>,
}

impl From<TcpListener> for Listeners {
    fn from(grpc: TcpListener) -> Self {
        Listeners { grpc, metrics: None, admin: None, access: Access::default(), key: Arc::default() }
    }
}

/// How a server is run, besides what it serves and where.
pub struct Control {
    /// Where models come from that are to replace others.
    pub source: Source,
    /// Told when certificates, tokens and bundles may have changed in their files.
    pub reload: Arc<Notify>,
    /// How long running streams may take to finish, once their model or the server goes.
    pub drain_timeout: Duration,
}

/// Serves `models` on `listeners` until `shutdown` completes, then ends in order: health says NOT_SERVING, new
/// requests get UNAVAILABLE, running streams have `drain_timeout` to finish, the rest end with a resume token if
/// they asked for one and with UNAVAILABLE if not, and connections close. Returns within `drain_timeout` and a few
/// seconds whatever the clients do; a connection that would not close then goes with the runtime. It ends the same way,
/// with an error, once a decode thread is lost.
pub async fn serve(
    listeners: impl Into<Listeners>,
    models: Vec<Model>,
    shutdown: impl Future<Output = ()>,
    drain_timeout: Duration,
) -> Result<(), ServeError> {
    let control = Control { source: Source::none(), reload: Arc::default(), drain_timeout };
    serve_with(listeners, models, control, shutdown).await
}

/// The same with models that can be exchanged.
pub async fn serve_with(
    listeners: impl Into<Listeners>,
    models: Vec<Model>,
    control: Control,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let listeners = listeners.into();
    let models = Models::new(models)?.with_key(Arc::clone(&listeners.key));
    serve_checked(listeners, models, control, shutdown, std::future::pending()).await
}

/// The same for models that are known to have names of their own. Running streams end early if `abort` completes.
pub(crate) async fn serve_checked(
    listeners: Listeners,
    models: Models,
    control: Control,
    shutdown: impl Future<Output = ()>,
    abort: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let (models, drain_timeout) = (Arc::new(models), control.drain_timeout);
    let health = Health::new(&models).await;
    let reloader =
        Arc::new(Reloader::new(Arc::clone(&models), health.clone(), control.source, drain_timeout));
    let (close, closing) = watch::channel(());
    // Sets of their own: their tasks end with them, should the caller drop this future.
    let (mut server, mut beside) = (JoinSet::new(), JoinSet::new());
    let (access, service) = (listeners.access, health.service());
    if let Some(listener) = listeners.metrics {
        let (models, health) = (Arc::clone(&models), health.clone());
        let (reloader, access) = (Arc::clone(&reloader), access.clone());
        beside.spawn(serve_metrics(listener, Scraped { models, health, reloader, access }));
    }
    let drain_asked = Arc::new(Notify::new());
    if let Some(listener) = listeners.admin {
        let service = AdminService { reloader: Arc::clone(&reloader), drain: Arc::clone(&drain_asked) };
        beside.spawn(listen_admin(listener, access.clone(), service));
    }
    beside.spawn(reload_when_told(access.clone(), Arc::clone(&reloader), control.reload));
    server.spawn(listen(listeners.grpc, access, Arc::clone(&models), service, closing));
    notify::ready();
    let mut outcome = Ok(());
    tokio::select! {
        ended = server.join_next() => return flatten(ended),
        () = shutdown => {}
        () = drain_asked.notified() => {}
        name = broken(&models) => outcome = Err(ServeError::Broken(name)),
    }
    notify::stopping();
    let running: usize = models.all().iter().map(Model::num_running).sum();
    info!(running, timeout_s = drain_timeout.as_secs_f64(), "draining");
    health.none_serving(&models).await;
    drain(&models, abort, drain_timeout).await;
    reloader.settle(LOAD_TIMEOUT).await;
    health.forget_all(&models).await;
    drop(close);
    let closed = tokio::time::timeout(CLOSE_TIMEOUT, server.join_next()).await.map_or(Ok(()), flatten);
    info!("stopped");
    outcome.and(closed)
}

/// The name of a model that has lost a decode thread, once one has.
async fn broken(models: &Models) -> String {
    loop {
        if let Some(model) = models.all().iter().find(|model| model.is_broken()) {
            return model.info().name.clone();
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
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
    let admitting = Arc::clone(&models);
    let service = CharRnnService { models, closing: closing.clone() };
    let service = CharRnnServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let health = tonic_health::pb::health_server::HealthServer::new(health);
    let reflection = || reflection(&[CharRnnServer::<CharRnnService>::NAME, "grpc.health.v1.Health"]);
    let incoming = Incoming::new(listener, access.tls());
    transport()
        .layer(MapResponseLayer::new(oversize_is_exhausted))
        .layer(gate(move |request| access.admit(request)))
        .layer(gate(move |request| shed(&admitting, request)))
        .add_service(service)
        .add_service(health)
        .add_service(reflection().build_v1().expect("committed descriptors decode"))
        .add_service(reflection().build_v1alpha().expect("committed descriptors decode"))
        .serve_with_incoming_shutdown(incoming, async move { drop(closing.changed().await) })
        .await
}

/// Answers until dropped; whatever ends it costs the streams nothing.
async fn listen_admin(listener: TcpListener, access: Access, service: AdminService) {
    let service = AdminServer::new(service).max_decoding_message_size(MAX_ADMIN_MESSAGE_BYTES);
    let reflection = || reflection(&[AdminServer::<AdminService>::NAME]);
    let served = transport()
        .layer(gate(move |request| access.admit_admin(request)))
        .add_service(service)
        .add_service(reflection().build_v1().expect("committed descriptors decode"))
        .add_service(reflection().build_v1alpha().expect("committed descriptors decode"))
        .serve_with_incoming(Incoming::new(listener, None));
    if let Err(error) = served.await {
        error!(%error, "the admin listener stopped");
    }
}

async fn reload_when_told(access: Access, reloader: Arc<Reloader>, told: Arc<Notify>) {
    loop {
        told.notified().await;
        notify::reloading();
        let access = access.clone();
        // A panic was reported when it happened.
        drop(spawn_blocking(move || access.reload()).await);
        reloader.load_changed().await;
        notify::ready();
    }
}

fn transport() -> Server {
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_local_error_reset_streams(Some(MAX_FAULTS_PER_CONNECTION))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}

/// Of the services that a listener has.
fn reflection(services: &[&str]) -> tonic_reflection::server::Builder<'static> {
    let builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    let itself = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];
    services.iter().chain(&itself).fold(builder, |builder, name| builder.with_service_name(*name))
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
    models.stop_admission();
    let deadline = Instant::now() + timeout;
    let all = models.all();
    let live = all.clone();
    let drain_all = move || {
        all.iter().for_each(|model| {
            model.drain(deadline.saturating_duration_since(Instant::now()));
        });
    };
    let mut drained = spawn_blocking(drain_all);
    tokio::select! {
        _ = &mut drained => return,
        // The engine keeps the time; this guards against a step that never returns.
        () = tokio::time::sleep(timeout.saturating_add(CLOSE_TIMEOUT)) => return,
        () = abort => live.iter().for_each(Model::abort),
    }
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, drained).await;
}
