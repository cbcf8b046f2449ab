//! Whether the generator itself is the limit: it reads canned chunks from a server that computes nothing.
//!
//! ```sh
//! cargo bench -p charrnn-bench --bench generator -- [--streams 10000] [--chars-per-s 1000000] [--seconds 10]
//! ```
//!
//! The server is another process. It sends 16 characters to each stream at equal times, spread over the streams, as
//! many as come to `--chars-per-s` in all. The generator has one thread. Printed are what it received, the share of
//! a core it took, and its memory; the last line is JSON.

use std::io::{BufRead, BufReader};
use std::pin::Pin;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use charrnn_bench::{run_load, Load, Plan, Prompt, Report, Slo, Spread};
use charrnn_serve::pb::char_rnn_server::{CharRnn, CharRnnServer};
use charrnn_serve::pb::generate_response::Event;
use charrnn_serve::pb::{
    Chunk, GenerateRequest, GenerateResponse, GetStatsRequest, GetStatsResponse, ListModelsRequest,
    ListModelsResponse, ScoreRequest, ScoreResponse, Started,
};
use tokio::net::TcpListener;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::{IntervalStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

const TEXT: &str = "sixteen letters.";
/// More than any run takes.
const MAX_TOKENS: u64 = 1 << 30;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)).and_then(|options| options.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    streams: usize,
    chars_per_s: f64,
    seconds: f64,
    is_server: bool,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Options { streams: 10_000, chars_per_s: 1e6, seconds: 10.0, is_server: false };
        while let Some(name) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{name} needs a value"));
            match name.as_str() {
                // cargo's own.
                "--bench" => {}
                "--serve" => options.is_server = true,
                "--streams" => options.streams = value()?.parse()?,
                "--chars-per-s" => options.chars_per_s = value()?.parse()?,
                "--seconds" => options.seconds = value()?.parse()?,
                _ => return Err(format!("{name} is unknown; see the head of benches/generator.rs").into()),
            }
        }
        Ok(options)
    }

    fn run(&self) -> Result<()> {
        match self.is_server {
            true => serve(Duration::from_secs_f64(16.0 * self.streams as f64 / self.chars_per_s)),
            false => self.measure(),
        }
    }

    fn measure(&self) -> Result<()> {
        let mut server = self.start_server()?;
        let report = run_load(self.plan(&server.1), |_| true);
        server.0.kill()?;
        server.0.wait()?;
        self.print(&report?);
        Ok(())
    }

    /// The process and its address.
    fn start_server(&self) -> Result<(Child, String)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--serve", "--streams", &self.streams.to_string()]);
        command.args(["--chars-per-s", &self.chars_per_s.to_string()]);
        let mut server = command.stdout(Stdio::piped()).spawn()?;
        let mut address = String::new();
        let stdout = server.stdout.take().ok_or("a server without stdout")?;
        BufReader::new(stdout).read_line(&mut address)?;
        Ok((server, address.trim().to_owned()))
    }

    fn plan(&self, address: &str) -> Plan {
        Plan {
            address: address.to_owned(),
            tls: None,
            token: None,
            model: String::new(),
            load: Load::Closed { streams: self.streams },
            duration_s: self.seconds,
            warmup_s: 3.0,
            drain_s: 0.0,
            seed: 0,
            prompts: vec![Prompt::default()],
            max_tokens: Spread::Uniform(MAX_TOKENS, MAX_TOKENS),
            temperature: None,
            top_k: None,
            top_p: None,
            chunk_chars: None,
            max_chunk_delay_ms: None,
            cancel_fraction: 0.0,
            slow_fraction: 0.0,
            slow_read_ms: 0.0,
            deadline_ms: None,
            slo: Slo::default(),
            distinct: None,
            check: false,
            requests: None,
            max_active: self.streams,
            connections: self.streams.div_ceil(1000),
            multiplex: false,
            threads: 1,
            csv: None,
        }
    }

    fn print(&self, report: &Report) {
        let warmed = || report.ticks.iter().filter(|tick| tick.t_s > 3.5 && tick.interval_s > 0.5);
        let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let cores = mean(warmed().filter_map(|tick| tick.generator_cores).collect());
        let server = mean(warmed().filter_map(|tick| tick.server_cores).collect());
        let rss = warmed().filter_map(|tick| tick.generator_rss_bytes).max().unwrap_or(0);
        let mib = rss as f64 / (1 << 20) as f64;
        let active = report.ticks.iter().map(|tick| tick.active).max().unwrap_or(0);
        let rate = report.chars_per_s;
        println!("{active} streams, {rate:.0} characters/s, {cores:.2} cores ({server:.2} of the server), {mib:.0} MiB");
        println!(
            "{}",
            serde_json::json!({
                "bench": "generator", "streams": active, "asked_chars_per_s": self.chars_per_s,
                "chars_per_s": rate, "generator_cores": cores, "server_cores": server, "rss_mib": mib,
            })
        );
    }
}

fn serve(every: Duration) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        let service = CharRnnServer::new(Canned { every, calls: AtomicU64::new(0) });
        let server = tonic::transport::Server::builder().add_service(service);
        Ok(server.serve_with_incoming(TcpListenerStream::new(listener)).await?)
    })
}

/// Sends the same chunk again and again.
struct Canned {
    every: Duration,
    calls: AtomicU64,
}

type Responses = Pin<Box<dyn Stream<Item = std::result::Result<GenerateResponse, Status>> + Send>>;

#[tonic::async_trait]
impl CharRnn for Canned {
    type GenerateStream = Responses;
    type GenerateManyStream = Responses;

    async fn generate(
        &self,
        _request: Request<GenerateRequest>,
    ) -> std::result::Result<Response<Responses>, Status> {
        // The golden ratio spreads any number of streams over the interval.
        let share = self.calls.fetch_add(1, Relaxed) as f64 * 0.618_033_988_749_895;
        let start = Instant::now() + self.every.mul_f64(share.fract());
        let mut interval = tokio::time::interval_at(start, self.every);
        interval.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut offset = 0;
        let chunks = IntervalStream::new(interval).map(move |_| {
            let chunk = Chunk { text: TEXT.to_owned(), n: 16, offset, ..Chunk::default() };
            offset += 16;
            say(Event::Chunk(chunk))
        });
        Ok(Response::new(Box::pin(tokio_stream::once(say(Event::Started(Started::default()))).chain(chunks))))
    }

    async fn generate_many(
        &self,
        _requests: Request<Streaming<GenerateRequest>>,
    ) -> std::result::Result<Response<Responses>, Status> {
        Err(Status::unimplemented("no load generator asks for it"))
    }

    async fn list_models(
        &self,
        _request: Request<ListModelsRequest>,
    ) -> std::result::Result<Response<ListModelsResponse>, Status> {
        Ok(Response::new(ListModelsResponse::default()))
    }

    async fn score(
        &self,
        _request: Request<ScoreRequest>,
    ) -> std::result::Result<Response<ScoreResponse>, Status> {
        Err(Status::unimplemented("it reads nothing"))
    }

    async fn get_stats(
        &self,
        _request: Request<GetStatsRequest>,
    ) -> std::result::Result<Response<GetStatsResponse>, Status> {
        Err(Status::unimplemented("it counts nothing"))
    }
}

fn say(event: Event) -> std::result::Result<GenerateResponse, Status> {
    Ok(GenerateResponse { request_id: String::new(), event: Some(event) })
}
