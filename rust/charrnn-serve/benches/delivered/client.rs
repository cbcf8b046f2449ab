//! Many streams of one Rust client on a thread of its own.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use charrnn_serve::pb::char_rnn_client::CharRnnClient;
use charrnn_serve::pb::generate_response::Event;
use charrnn_serve::pb::{GenerateRequest, Stopping};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use crate::cpu::{Stopwatch, Yield};
use crate::Result;

/// Long enough that starting a text costs nothing beside it.
const MAX_TOKENS: u32 = 4096;
/// Until every slot is taken and chunks flow.
const WARM_UP: Duration = Duration::from_millis(500);

/// What is received by `num_streams` streams; a finished one is replaced at once.
pub(crate) fn measure(address: SocketAddr, num_streams: usize, window: Duration) -> Result<Yield> {
    let client = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(receive(address, num_streams, window))
    });
    client.join().map_err(|_| "the client panicked")?
}

async fn receive(address: SocketAddr, num_streams: usize, window: Duration) -> Result<Yield> {
    let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
    let num_chars = Arc::new(AtomicU64::new(0));
    let mut streams = JoinSet::new();
    for _ in 0..num_streams {
        streams.spawn(stream(CharRnnClient::new(channel.clone()), Arc::clone(&num_chars)));
    }
    tokio::select! {
        // Streams go on for ever; one that ends has failed.
        Some(ended) = streams.join_next() => match ended? {
            Err(error) => Err(error),
            Ok(never) => match never {},
        },
        received = count(&num_chars, window) => Ok(received),
    }
}

async fn count(num_chars: &AtomicU64, window: Duration) -> Yield {
    tokio::time::sleep(WARM_UP).await;
    let (stopwatch, before) = (Stopwatch::start(), num_chars.load(Relaxed));
    tokio::time::sleep(window).await;
    stopwatch.stop(num_chars.load(Relaxed) - before)
}

async fn stream(
    mut client: CharRnnClient<Channel>,
    num_chars: Arc<AtomicU64>,
) -> Result<std::convert::Infallible> {
    loop {
        let stopping = Some(Stopping { max_tokens: Some(MAX_TOKENS), ..Stopping::default() });
        let request = GenerateRequest { stopping, ..GenerateRequest::default() };
        let mut responses = client.generate(request).await?.into_inner();
        while let Some(response) = responses.message().await? {
            if let Some(Event::Chunk(chunk)) = response.event {
                num_chars.fetch_add(u64::from(chunk.n), Relaxed);
            }
        }
    }
}
