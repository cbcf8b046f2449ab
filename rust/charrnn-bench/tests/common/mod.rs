//! A server of canned texts, with the faults a test asks for.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use charrnn_bench::{Load, Plan, Prompt, Slo, Spread};
use charrnn_serve::pb::char_rnn_server::{CharRnn, CharRnnServer};
use charrnn_serve::pb::generate_response::Event;
use charrnn_serve::pb::{
    Chunk, FinishReason, Finished, GenerateRequest, GenerateResponse, GetStatsRequest, GetStatsResponse,
    ListModelsRequest, ListModelsResponse, Refused, ScoreRequest, ScoreResponse, Started,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

/// What the server does to the `number`-th call it gets.
#[derive(Clone, Debug, Default)]
pub(crate) enum Fault {
    /// Answers at once.
    #[default]
    None,
    /// Waits before every chunk.
    Slow(Duration),
    /// Answers nothing.
    Silent,
    /// Refuses.
    Status(tonic::Code),
    /// Exchanges two characters of the text.
    Swap,
    /// Ends without Finished.
    Cut,
    /// Says a wrong offset.
    Offset,
    /// Finished counts one more than came.
    Count,
    /// Ends the text one character early.
    Short,
    /// Ends the call that the request came on, if others share it.
    HangUp,
}

type Rule = dyn Fn(u64) -> Fault + Send + Sync;

struct Fake {
    rule: Arc<Rule>,
    calls: Arc<AtomicU64>,
}

/// A server that runs as long as the test; `rule` gives each call its fault.
pub(crate) fn serve(rule: impl Fn(u64) -> Fault + Send + Sync + 'static) -> SocketAddr {
    let (sender, address) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            sender.send(listener.local_addr().expect("bound")).expect("the test waits");
            let service = CharRnnServer::new(Fake { rule: Arc::new(rule), calls: Arc::default() });
            let server = tonic::transport::Server::builder().add_service(service);
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.expect("served");
        });
    });
    address.recv().expect("the server starts")
}

#[tonic::async_trait]
impl CharRnn for Fake {
    type GenerateStream = Pin<Box<dyn Stream<Item = Result<GenerateResponse, Status>> + Send>>;
    type GenerateManyStream = Pin<Box<dyn Stream<Item = Result<GenerateResponse, Status>> + Send>>;

    async fn generate(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        let fault = (self.rule)(self.calls.fetch_add(1, Relaxed));
        match fault {
            Fault::Silent => std::future::pending().await,
            Fault::Status(code) => return Err(Status::new(code, "as the test asks")),
            _ => {}
        }
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(answer(request.into_inner(), fault, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn generate_many(
        &self,
        requests: Request<Streaming<GenerateRequest>>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        let (sender, receiver) = mpsc::channel(4);
        let fake = Fake { rule: Arc::clone(&self.rule), calls: Arc::clone(&self.calls) };
        tokio::spawn(fake.answer_many(requests.into_inner(), sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn score(&self, _request: Request<ScoreRequest>) -> Result<Response<ScoreResponse>, Status> {
        Err(Status::unimplemented("it reads nothing"))
    }

    async fn list_models(
        &self,
        _request: Request<ListModelsRequest>,
    ) -> Result<Response<ListModelsResponse>, Status> {
        Ok(Response::new(ListModelsResponse::default()))
    }

    async fn get_stats(
        &self,
        _request: Request<GetStatsRequest>,
    ) -> Result<Response<GetStatsResponse>, Status> {
        Err(Status::unimplemented("it counts nothing"))
    }
}

type Sender = mpsc::Sender<Result<GenerateResponse, Status>>;

impl Fake {
    /// Each request has its fault; a cancelled text goes on, as the end of it may have been under way.
    async fn answer_many(self, mut requests: Streaming<GenerateRequest>, sender: Sender) -> Option<()> {
        while let Some(request) = requests.message().await.ok()? {
            if request.cancel {
                continue;
            }
            match (self.rule)(self.calls.fetch_add(1, Relaxed)) {
                Fault::Silent => {}
                Fault::HangUp => return None,
                Fault::Status(code) => {
                    let refused =
                        Refused { code: code as i32, message: "no".to_owned(), reason: String::new() };
                    let event = Some(Event::Refused(refused));
                    sender.send(Ok(GenerateResponse { request_id: request.request_id, event })).await.ok()?;
                }
                fault => drop(tokio::spawn(answer(request, fault, sender.clone()))),
            }
        }
        Some(())
    }
}

async fn answer(request: GenerateRequest, fault: Fault, sender: Sender) -> Option<()> {
    let request_id = request.request_id;
    let say = |event| Ok(GenerateResponse { request_id: request_id.clone(), event: Some(event) });
    let seed = request.sampling.and_then(|sampling| sampling.seed).unwrap_or(0);
    let count = request.stopping.and_then(|stopping| stopping.max_tokens).unwrap_or(256) as u64;
    let size = u64::from(request.output.and_then(|output| output.chunk_chars).unwrap_or(16));
    let mut text = text(seed, count);
    if matches!(fault, Fault::Swap) {
        let other = (1..text.len()).find(|&i| text[i] != text[0]).expect("two different characters");
        text.swap(0, other);
    }
    if matches!(fault, Fault::Short) {
        text.pop();
    }
    sender.send(say(Event::Started(Started { seed, ..Started::default() }))).await.ok()?;
    let mut offset = 0;
    for piece in text.chunks(size as usize) {
        if let Fault::Slow(time) = fault {
            tokio::time::sleep(time).await;
        }
        let said = offset + u64::from(matches!(fault, Fault::Offset));
        let (text, n) = (piece.iter().collect(), piece.len() as u32);
        let chunk = Chunk { text, n, offset: said, ..Chunk::default() };
        sender.send(say(Event::Chunk(chunk))).await.ok()?;
        offset += piece.len() as u64;
    }
    if !matches!(fault, Fault::Cut) {
        let chars = offset + u64::from(matches!(fault, Fault::Count));
        let reason = FinishReason::Length.into();
        let finished = Finished { reason, chars, ..Finished::default() };
        sender.send(say(Event::Finished(finished))).await.ok()?;
    }
    Some(())
}

/// A pure function of the seed, as the real server's is; some of its characters are of two bytes.
fn text(seed: u64, count: u64) -> Vec<char> {
    let letter = |i: u64| match (seed ^ i.wrapping_mul(0x9e37_79b9)).count_ones() % 8 {
        0 => 'é',
        n => (b'a' + n as u8) as char,
    };
    (0..count).map(letter).collect()
}

/// A short run of short texts.
pub(crate) fn plan(address: SocketAddr, load: Load) -> Plan {
    Plan {
        address: address.to_string(),
        tls: None,
        token: None,
        model: String::new(),
        load,
        duration_s: 0.5,
        warmup_s: 0.0,
        drain_s: 5.0,
        seed: 1,
        prompts: vec![Prompt::default()],
        max_tokens: Spread::Uniform(40, 60),
        temperature: None,
        top_k: None,
        top_p: None,
        chunk_chars: None,
        max_chunk_delay_ms: None,
        cancel_fraction: 0.0,
        slow_fraction: 0.0,
        slow_read_ms: 1.0,
        deadline_ms: None,
        slo: Slo::default(),
        distinct: None,
        check: false,
        requests: None,
        max_active: 1000,
        connections: 2,
        multiplex: false,
        threads: 1,
        csv: None,
    }
}
