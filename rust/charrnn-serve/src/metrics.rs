//! The metrics listener: `/metrics` for Prometheus and `/healthz`, over HTTP/1.1 on a socket of its own, held to the
//! same rules as gRPC's; `/healthz` is for everybody.
//!
//! Knows sockets and paths; what a page says is `exposition`'s. A connection gets one answer, within seconds, and few
//! stand at once: a scraper that is slow or means ill costs the streams nothing.

use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{HeaderValue, ALLOW, CONTENT_TYPE, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::access::Access;
use crate::exposition::exposition;
use crate::health::Health;
use crate::incoming::{accept, secure, Peer};
use crate::models::Models;
use crate::process::usage;
use crate::reload::Reloader;

/// More wait in the listener's queue.
const MAX_CONNECTIONS: usize = 16;
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 16 << 10;
/// From a connection's first byte to its last.
const TIMEOUT: Duration = Duration::from_secs(5);

const METRICS_TYPE: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const PLAIN_TYPE: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// What there is to tell.
pub(crate) struct Scraped {
    pub(crate) models: Arc<Models>,
    pub(crate) health: Health,
    pub(crate) reloader: Arc<Reloader>,
    pub(crate) access: Access,
}

impl Scraped {
    fn metrics(&self) -> String {
        let (denied, failures) = (self.access.denied(), self.reloader.num_failures());
        exposition(&self.models.stats(), denied, failures, usage().as_ref())
    }

    fn health(&self) -> (StatusCode, &'static str) {
        match self.health.is_serving() {
            true => (StatusCode::OK, "serving\n"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        }
    }
}

/// Answers until dropped.
pub(crate) async fn serve_metrics(listener: TcpListener, scraped: Scraped) {
    let scraped = Arc::new(scraped);
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        let (stream, address) = accept(&listener).await;
        connections.spawn(answer(stream, address, Arc::clone(&scraped)));
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(stream: TcpStream, address: SocketAddr, scraped: Arc<Scraped>) {
    let acceptor = scraped.access.tls().map(|tls| tls.metrics());
    let connection = async {
        let Some((socket, peer)) = secure(stream, address, acceptor).await else { return };
        let respond = |request: Request<_>| ready(Ok::<_, Infallible>(respond(&request, &peer, &scraped)));
        let connection = http1::Builder::new()
            .keep_alive(false)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEADER_BYTES)
            .serve_connection(TokioIo::new(socket), service_fn(respond));
        // What goes wrong on a connection is its client's alone.
        let _ = connection.await;
    };
    let _ = tokio::time::timeout(TIMEOUT, connection).await;
}

fn respond<B>(request: &Request<B>, peer: &Peer, scraped: &Scraped) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            match scraped.access.admit_scrape(request.headers(), peer) {
                Ok(()) => (StatusCode::OK, METRICS_TYPE, scraped.metrics()),
                Err(refusal) => (refusal.http_status(), PLAIN_TYPE, format!("{refusal}\n")),
            }
        }
        (&Method::GET | &Method::HEAD, "/healthz") => {
            let (status, word) = scraped.health();
            (status, PLAIN_TYPE, word.to_owned())
        }
        (_, "/metrics" | "/healthz") => {
            (StatusCode::METHOD_NOT_ALLOWED, PLAIN_TYPE, "only GET and HEAD\n".to_owned())
        }
        _ => (StatusCode::NOT_FOUND, PLAIN_TYPE, "there are /metrics and /healthz\n".to_owned()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}
