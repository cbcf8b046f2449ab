//! A model of 15 lines behind a real server on a port of its own, and a client of it.

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{mpsc, Arc};
use std::time::Duration;

use charrnn_core::engine::EngineConfig;
use charrnn_core::state::StateRows;
use charrnn_core::vocab::{Unit, Vocab};
use charrnn_core::{ModelSpec, StateTensor, StepError, StepModel};
use charrnn_serve::pb::admin_client::AdminClient;
use charrnn_serve::pb::char_rnn_client::CharRnnClient;
use charrnn_serve::pb::generate_request::Start;
use charrnn_serve::pb::generate_response::Event;
use charrnn_serve::pb::{Chunk, GenerateRequest, GenerateResponse, Sampling, Stopping};
use charrnn_serve::{
    serve_with, Access, Control, Device, Listeners, Model, ModelInfo, ServeError, Source, TokenKey,
};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

pub(crate) const SYMBOLS: &str = "abcdefghijklmnopqrstuvwxyz";
/// No wait in a test is meant to last; this one only ends a test that would hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Text that a client takes without reading it. tonic's own 2 MB would hold most texts whole.
pub(crate) const WINDOW_BYTES: u32 = 4096;

/// After each letter comes the next one, after `z` comes `a`. The state counts steps.
pub(crate) struct FakeModel {
    spec: ModelSpec,
    /// Letters from one to the next.
    stride: usize,
    logits: Vec<f32>,
    /// A step waits here for a permit, until the sender is gone.
    permits: Option<mpsc::Receiver<()>>,
    /// A step that is fed this token fails.
    poison: Option<u32>,
    /// And one that is fed this token panics.
    fatal: Option<u32>,
    num_steps: Arc<AtomicU64>,
}

impl FakeModel {
    pub(crate) fn new() -> Self {
        let state = vec![StateTensor { name: "count".to_owned(), width: 1 }];
        let spec = ModelSpec { vocab_size: SYMBOLS.len(), state };
        FakeModel {
            spec,
            stride: 1,
            logits: Vec::new(),
            permits: None,
            poison: None,
            fatal: None,
            num_steps: Arc::default(),
        }
    }

    /// One step for each message sent; free once the sender is dropped.
    pub(crate) fn gated() -> (Self, mpsc::Sender<()>) {
        let (permit, permits) = mpsc::channel();
        (FakeModel { permits: Some(permits), ..FakeModel::new() }, permit)
    }

    pub(crate) fn poisoned_by(letter: char) -> Self {
        FakeModel { poison: SYMBOLS.find(letter).map(|index| index as u32), ..FakeModel::new() }
    }

    pub(crate) fn panicking_at(letter: char) -> Self {
        FakeModel { fatal: SYMBOLS.find(letter).map(|index| index as u32), ..FakeModel::new() }
    }

    /// Skips letters: its texts are those of no other.
    pub(crate) fn of_stride(stride: usize) -> Self {
        FakeModel { stride, ..FakeModel::new() }
    }

    /// Counts the steps as they end.
    pub(crate) fn num_steps(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.num_steps)
    }

    pub(crate) fn into_model(self, name: &str, config: EngineConfig) -> Model {
        Model::new(info(name), vec![Box::new(self)], config)
    }

    /// Named `fake`, of a version that is its stride.
    pub(crate) fn into_version(self) -> Model {
        let info = ModelInfo { version: self.stride.to_string(), ..info("fake") };
        Model::new(info, vec![Box::new(self)], EngineConfig::default())
    }
}

impl StepModel for FakeModel {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn step(&mut self, tokens: &[u32], state: &mut StateRows) -> Result<&[f32], StepError> {
        self.permits.take_if(|permits| permits.recv().is_err());
        if tokens.iter().any(|&token| Some(token) == self.poison) {
            return Err(StepError("poisoned".to_owned()));
        }
        assert!(!tokens.iter().any(|&token| Some(token) == self.fatal), "told to panic");
        let (current, next) = state.in_out(0);
        next.iter_mut().zip(current).for_each(|(next, current)| *next = current + 1.0);
        state.flip();
        let size = SYMBOLS.len();
        self.logits.clear();
        self.logits.resize(tokens.len() * size, 0.0);
        let rows = self.logits.chunks_exact_mut(size).zip(tokens);
        let stride = self.stride;
        rows.for_each(|(row, &token)| row[(token as usize + stride) % size] = 100.0);
        self.num_steps.fetch_add(1, SeqCst);
        Ok(&self.logits)
    }
}

/// What a client may know of a model of that name.
pub(crate) fn info(name: &str) -> ModelInfo {
    let vocab = Vocab::new(Unit::Char, SYMBOLS.chars().map(u32::from).collect()).expect("distinct letters");
    ModelInfo {
        name: name.to_owned(),
        version: "one".to_owned(),
        digest: "d".repeat(64),
        cell: "fake".to_owned(),
        num_layers: 1,
        hidden_size: 1,
        precision: "fp32".to_owned(),
        device: Device::Cpu,
        state_bytes: 4,
        bpc: Some(2.5),
        vocab: Arc::new(vocab),
        start_token: 0,
        end_token: None,
    }
}

async fn bind() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    (listener, address)
}

/// A server that a test stops itself, or that ends with the test's runtime.
pub(crate) struct TestServer {
    pub(crate) address: String,
    /// `HOST:PORT` of `/metrics` and `/healthz`.
    pub(crate) metrics: String,
    admin: String,
    stop: oneshot::Sender<()>,
    pub(crate) ended: JoinHandle<Result<(), ServeError>>,
}

impl TestServer {
    pub(crate) async fn start(models: Vec<Model>, drain_timeout: Duration) -> Self {
        Self::start_with(Access::default(), models, drain_timeout).await
    }

    pub(crate) async fn start_with(access: Access, models: Vec<Model>, drain_timeout: Duration) -> Self {
        let key = TokenKey::random();
        Self::run(access, key, models, drain_timeout, |_| Err(ServeError::NoModels)).await
    }

    /// One of several whose resume tokens are each other's.
    pub(crate) async fn with_key(models: Vec<Model>, drain_timeout: Duration, key: TokenKey) -> Self {
        Self::run(Access::default(), key, models, drain_timeout, |_| Err(ServeError::NoModels)).await
    }

    /// A server that gets further models from `load`.
    pub(crate) async fn loading(
        models: Vec<Model>,
        drain_timeout: Duration,
        load: impl Fn(&Path) -> Result<Model, ServeError> + Send + Sync + 'static,
    ) -> Self {
        Self::run(Access::default(), TokenKey::random(), models, drain_timeout, load).await
    }

    async fn run(
        access: Access,
        key: TokenKey,
        models: Vec<Model>,
        drain_timeout: Duration,
        load: impl Fn(&Path) -> Result<Model, ServeError> + Send + Sync + 'static,
    ) -> Self {
        let (grpc, address) = bind().await;
        let (metrics, metrics_address) = bind().await;
        let (admin, admin_address) = bind().await;
        let (metrics, admin) = (Some(metrics), Some(admin));
        let listeners = Listeners { grpc, metrics, admin, access, key: Arc::new(key) };
        let source = Source { load: Arc::new(load), folders: BTreeMap::new() };
        let control = Control { source, reload: Arc::default(), drain_timeout };
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(serve_with(listeners, models, control, async { drop(stopped.await) }));
        let (address, admin) = (format!("http://{address}"), format!("http://{admin_address}"));
        TestServer { address, metrics: metrics_address, admin, stop, ended }
    }

    /// One plain model named `fake`.
    pub(crate) async fn of(model: FakeModel) -> (Self, Model) {
        let model = model.into_model("fake", EngineConfig::default());
        (Self::start(vec![model.clone()], PATIENCE).await, model)
    }

    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(self.address.clone()).expect("an address");
        endpoint.initial_stream_window_size(WINDOW_BYTES).connect().await.expect("a server")
    }

    pub(crate) async fn admin_channel(&self) -> Channel {
        Endpoint::from_shared(self.admin.clone()).expect("an address").connect().await.expect("a server")
    }

    pub(crate) async fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.admin_channel().await)
    }

    pub(crate) async fn client(&self) -> CharRnnClient<Channel> {
        CharRnnClient::new(self.channel().await)
    }

    /// Tells the server to stop; its end is the result of the handle.
    pub(crate) fn stop(self) -> JoinHandle<Result<(), ServeError>> {
        self.stop.send(()).expect("still serving");
        self.ended
    }
}

/// The most likely letters after `prompt`.
pub(crate) fn request(prompt: &str, max_tokens: u32) -> GenerateRequest {
    GenerateRequest {
        request_id: format!("after {prompt}").chars().take(200).collect(),
        start: Some(Start::Prompt(prompt.to_owned())),
        sampling: Some(Sampling { temperature: Some(0.0), ..Sampling::default() }),
        stopping: Some(Stopping { max_tokens: Some(max_tokens), ..Stopping::default() }),
        ..GenerateRequest::default()
    }
}

/// `len` letters of the alphabet, round and round, from the one after `last`.
pub(crate) fn letters_after(last: char, len: usize) -> String {
    let start = SYMBOLS.find(last).expect("a letter") + 1;
    SYMBOLS.chars().cycle().skip(start).take(len).collect()
}

/// The same of a model of some stride.
pub(crate) fn letters_by(stride: usize, last: char, len: usize) -> String {
    let start = SYMBOLS.find(last).expect("a letter") + stride;
    SYMBOLS.chars().cycle().skip(start).step_by(stride).take(len).collect()
}

/// Every response up to the end, and the status if that was an error.
pub(crate) async fn read_all(
    mut stream: Streaming<GenerateResponse>,
) -> (Vec<GenerateResponse>, Option<Status>) {
    let mut responses = Vec::new();
    loop {
        match within_patience(stream.message()).await {
            Ok(Some(response)) => responses.push(response),
            Ok(None) => return (responses, None),
            Err(status) => return (responses, Some(status)),
        }
    }
}

/// The chunks among responses, which must join without a gap.
pub(crate) fn chunks(responses: &[GenerateResponse]) -> Vec<Chunk> {
    let mut offset = 0;
    let chunks = responses.iter().filter_map(|response| match &response.event {
        Some(Event::Chunk(chunk)) => Some(chunk.clone()),
        _ => None,
    });
    let checked = chunks.inspect(|chunk| {
        assert_eq!((chunk.offset, chunk.n as usize), (offset, chunk.text.chars().count()));
        offset += u64::from(chunk.n);
    });
    checked.collect()
}

/// The text of responses.
pub(crate) fn text(responses: &[GenerateResponse]) -> String {
    chunks(responses).into_iter().map(|chunk| chunk.text).collect()
}

/// What `future` gives, which must come in the end.
pub(crate) async fn within_patience<F: IntoFuture>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it comes in the end")
}

/// Waits, within reason, until `condition` holds.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let polled = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, polled).await.is_ok(), "never came: {what}");
}
