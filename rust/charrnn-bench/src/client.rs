//! Connections to the server, and one call over them.

use std::fs;
use std::marker::PhantomData;
use std::path::Path;
use std::time::Duration;

use charrnn_serve::pb::{GenerateRequest, GenerateResponse, GetStatsRequest, GetStatsResponse, ModelStats};
use prost::Message;
use tonic::client::Grpc;
use tonic::codec::{BufferSettings, Codec, Streaming};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use crate::error::BenchError;
use crate::plan::{Plan, Tls};
use crate::shared::{Requests, SharedCalls, SharedText};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that stands still must not hold up the looks at it.
const STATS_TIMEOUT: Duration = Duration::from_millis(200);
/// A call holds two buffers for as long as it lives; the default of 8 KiB each is 160 MB at 10 000 streams.
const BUFFER_BYTES: usize = 512;
/// What a slow reader has not read has to wait at the server, not in a window of megabytes.
const SLOW_WINDOW_BYTES: u32 = 256;

/// Connections that requests take in turns, and one for slow readers.
pub(crate) struct Connections {
    channels: Vec<Channel>,
    /// One a channel, where requests share calls.
    shared: Vec<SharedCalls>,
    slow: Channel,
    token: Option<MetadataValue<Ascii>>,
}

/// The responses to one request.
pub(crate) enum Responses {
    /// On a call of its own.
    Alone(Streaming<GenerateResponse>),
    /// On a call with others.
    Shared(SharedText),
}

impl Responses {
    /// The next of them.
    pub(crate) async fn message(&mut self) -> Result<Option<GenerateResponse>, Status> {
        match self {
            Responses::Alone(responses) => responses.message().await,
            Responses::Shared(text) => text.message().await,
        }
    }
}

impl Connections {
    /// Opens them when they are first used. Needs a runtime.
    pub(crate) fn new(plan: &Plan) -> Result<Self, BenchError> {
        let endpoint = endpoint(plan)?;
        let slow = endpoint.clone().initial_stream_window_size(SLOW_WINDOW_BYTES).connect_lazy();
        let channels = (0..plan.connections).map(|_| endpoint.connect_lazy()).collect();
        let token = plan.token.as_ref().map(|token| format!("Bearer {token}").parse()).transpose();
        let token =
            token.map_err(|_| BenchError::Plan("token has characters no header may have".to_owned()))?;
        let count = if plan.multiplex { plan.connections } else { 0 };
        let shared = (0..count).map(|_| SharedCalls::default()).collect();
        Ok(Connections { channels, shared, slow, token })
    }

    /// Sends request `number`. A slow reader has a call of its own, which would hold up others; there a `timeout` is
    /// told to the server.
    pub(crate) async fn generate(
        &self,
        request: GenerateRequest,
        number: u64,
        is_slow: bool,
        timeout: Option<Duration>,
    ) -> Result<Responses, Status> {
        let index = (number % self.channels.len() as u64) as usize;
        match self.shared.get(index) {
            Some(calls) if !is_slow => Ok(Responses::Shared(self.share(calls, index, number, request))),
            _ => {
                let channel = if is_slow { &self.slow } else { &self.channels[index] };
                self.call(channel, request, timeout).await.map(Responses::Alone)
            }
        }
    }

    fn share(
        &self,
        calls: &SharedCalls,
        index: usize,
        number: u64,
        mut request: GenerateRequest,
    ) -> SharedText {
        request.request_id = number.to_string();
        calls.ask(request, |requests, call| {
            let (channel, requests) = (self.channels[index].clone(), self.signed(requests));
            tokio::spawn(async move { call.read(open(channel, requests).await).await });
        })
    }

    async fn call(
        &self,
        channel: &Channel,
        request: GenerateRequest,
        timeout: Option<Duration>,
    ) -> Result<Streaming<GenerateResponse>, Status> {
        let mut request = self.signed(request);
        timeout.into_iter().for_each(|timeout| request.set_timeout(timeout));
        let mut grpc = Grpc::new(channel.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static("/charrnn.v1.CharRnn/Generate");
        Ok(grpc.server_streaming(request, path, Lean(PhantomData)).await?.into_inner())
    }

    /// What the server has counted of `model`; none if it does not count, or has several and none is named.
    pub(crate) async fn stats(&self, model: &str) -> Option<ModelStats> {
        let request = self.signed(GetStatsRequest { model: model.to_owned() });
        let mut grpc = Grpc::new(self.channels[0].clone());
        grpc.ready().await.ok()?;
        let path = PathAndQuery::from_static("/charrnn.v1.CharRnn/GetStats");
        let call = grpc.unary(request, path, Lean::<GetStatsRequest, GetStatsResponse>(PhantomData));
        let found = tokio::time::timeout(STATS_TIMEOUT, call).await.ok()?.ok()?.into_inner().models;
        <[ModelStats; 1]>::try_from(found).ok().map(|[only]| only)
    }

    fn signed<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        request
    }
}

/// A call that requests share.
async fn open(channel: Channel, requests: Request<Requests>) -> Result<Streaming<GenerateResponse>, Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static("/charrnn.v1.CharRnn/GenerateMany");
    Ok(grpc.streaming(requests, path, Lean(PhantomData)).await?.into_inner())
}

/// Whether somebody listens at the plan's address.
pub(crate) async fn probe(plan: &Plan) -> Result<(), BenchError> {
    let unreachable = |error: tonic::transport::Error| BenchError::Unreachable {
        address: plan.address.clone(),
        reason: causes(&error),
    };
    endpoint(plan)?.connect().await.map(drop).map_err(unreachable)
}

fn endpoint(plan: &Plan) -> Result<Endpoint, BenchError> {
    let scheme = if plan.tls.is_some() { "https" } else { "http" };
    let no_address = |_| BenchError::Plan(format!("address {:?} is not host:port", plan.address));
    let endpoint = Endpoint::from_shared(format!("{scheme}://{}", plan.address)).map_err(no_address)?;
    let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
    match &plan.tls {
        None => Ok(endpoint),
        Some(tls) => {
            let refused = |error| BenchError::Plan(format!("tls: {}", causes(&error)));
            endpoint.tls_config(tls_config(tls)?).map_err(refused)
        }
    }
}

fn tls_config(tls: &Tls) -> Result<ClientTlsConfig, BenchError> {
    let read = |path: &Path| {
        let unread = |error| BenchError::Plan(format!("{}: {error}", path.display()));
        fs::read(path).map_err(unread)
    };
    let mut config = match &tls.ca {
        None => ClientTlsConfig::new().with_native_roots(),
        Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(path)?)),
    };
    if let Some(name) = &tls.server_name {
        config = config.domain_name(name);
    }
    if let Some((certificate, key)) = &tls.identity {
        config = config.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(config)
}

/// The last of the causes says what happened: the first is "transport error".
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// prost over buffers of 512 bytes, which grow with the message.
struct Lean<T, U>(PhantomData<(T, U)>);

impl<T, U> Codec for Lean<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(settings())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(settings())
    }
}

fn settings() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, BUFFER_BYTES)
}
