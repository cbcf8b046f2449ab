//! The gRPC face of the models: protobuf to core's types and back. Rules live in core, codes in `status`.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use charrnn_core::event::{Chunk, Event, FinishReason, Finished, StreamError};
use charrnn_core::params::SamplingParams;
use charrnn_core::request::{GenerateRequest, Output, Prompt, Stopping};
use charrnn_core::snapshot::Snapshot;
use charrnn_core::vocab::Unit;
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::codegen::http;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::access::Client;
use crate::clients::Seat;
use crate::logs::Told;
use crate::many::{check_id_length, Call, ManyStream};
use crate::model::{Caller, Model, ModelInfo};
use crate::models::Models;
use crate::pb;
use crate::pb::generate_request::Start;
use crate::score;
use crate::stats::to_pb_stats;
use crate::status::Refusal;
use crate::stream::EventStream;
use crate::token::{unseal, Sealer};

/// What an end may take from here to its reader.
const LONGEST_WAY: Duration = Duration::from_millis(200);
const GENERATE_PATH: &str = "/charrnn.v1.CharRnn/Generate";

/// `charrnn.v1.CharRnn` over some models.
pub(crate) struct CharRnnService {
    pub(crate) models: Arc<Models>,
    /// Its sender goes when open calls are to end.
    pub(crate) closing: watch::Receiver<()>,
}

#[tonic::async_trait]
impl pb::char_rnn_server::CharRnn for CharRnnService {
    type GenerateStream = ResponseStream;
    type GenerateManyStream = ManyStream;

    async fn generate(
        &self,
        request: Request<pb::GenerateRequest>,
    ) -> Result<Response<ResponseStream>, Status> {
        let (origin, request) = (Origin::of(&request), request.into_inner());
        check_id_length(request.request_id.len())?;
        Ok(Response::new(begin(&self.models, request, origin).await?))
    }

    async fn generate_many(
        &self,
        request: Request<Streaming<pb::GenerateRequest>>,
    ) -> Result<Response<ManyStream>, Status> {
        let call = Call::new(Arc::clone(&self.models), Origin::of(&request), self.closing.clone());
        Ok(Response::new(call.start(request.into_inner())))
    }

    async fn score(&self, request: Request<pb::ScoreRequest>) -> Result<Response<pb::ScoreResponse>, Status> {
        let origin = Origin::of(&request);
        Ok(Response::new(score::score(&self.models, request.into_inner(), origin).await?))
    }

    async fn list_models(
        &self,
        _request: Request<pb::ListModelsRequest>,
    ) -> Result<Response<pb::ListModelsResponse>, Status> {
        let models = self.models.all().iter().map(|model| to_pb_model(model.info())).collect();
        Ok(Response::new(pb::ListModelsResponse { models }))
    }

    async fn get_stats(
        &self,
        request: Request<pb::GetStatsRequest>,
    ) -> Result<Response<pb::GetStatsResponse>, Status> {
        let name = request.into_inner().model;
        if !name.is_empty() {
            self.models.find(&name, None)?;
        }
        let all = self.models.all();
        let asked = all.iter().filter(|model| name.is_empty() || model.info().name == name);
        Ok(Response::new(pb::GetStatsResponse { models: asked.map(to_pb_stats).collect() }))
    }
}

/// Refuses a text before its message is looked at, if it would be whatever it says: far over capacity the server's own time
/// goes into refusals, and most of what one costs lies between the headers of a request and its model.
pub(crate) fn shed<B>(models: &Models, request: &http::Request<B>) -> Result<(), Refusal> {
    match request.uri().path() {
        GENERATE_PATH => {
            let client = request.extensions().get::<Client>().map(Client::name).unwrap_or_default();
            models.turn_away(&client)
        }
        _ => Ok(()),
    }
}

/// Finds the model of a request and admits it.
pub(crate) async fn begin(
    models: &Arc<Models>,
    request: pb::GenerateRequest,
    origin: Origin,
) -> Result<ResponseStream, Refusal> {
    let has_regex = request.sampling.as_ref().is_some_and(|sampling| sampling.regex.is_some());
    // A token may hold one.
    let has_regex = has_regex || matches!(request.start, Some(Start::ResumeToken(_)));
    let models = Arc::clone(models);
    let start = move || start(&models, request, origin);
    // Compiling an expression takes milliseconds, in which this thread serves everyone else.
    match has_regex {
        true => tokio::task::spawn_blocking(start)
            .await
            .unwrap_or_else(|error| Err(Refusal::Stream(StreamError::Model(error.to_string())))),
        false => start(),
    }
}

fn start(
    models: &Models,
    mut request: pb::GenerateRequest,
    origin: Origin,
) -> Result<ResponseStream, Refusal> {
    let seat = origin.enter()?;
    let request_id = std::mem::take(&mut request.request_id);
    let snapshot = unseal(&mut request, models)?.map(Arc::new);
    let ask = |model: &Model| {
        let sealer = Sealer::new(&request, model.info(), models.key());
        let mut request = to_core(request.clone(), snapshot.clone());
        request.output.snapshot = sealer.is_some();
        Ok((model.generate(request, origin.caller())?, sealer))
    };
    let (model, (events, sealer)) = models.ask(&request.model, request.version.as_deref(), ask)?;
    Ok(ResponseStream { request_id, told: Told::new(model), sealer, events, _seat: seat })
}

/// Where a request is from, and until when it is wanted.
#[derive(Clone)]
pub(crate) struct Origin {
    client: Client,
    deadline: Option<Instant>,
}

impl Origin {
    pub(crate) fn of<T>(request: &Request<T>) -> Self {
        let client = request.extensions().get::<Client>().cloned().unwrap_or_default();
        Origin { client, deadline: deadline(request.metadata()) }
    }

    /// A place among the texts that its client may have.
    pub(crate) fn enter(&self) -> Result<Seat, Refusal> {
        self.client.enter()
    }

    pub(crate) fn caller(&self) -> Caller {
        Caller { client: self.client.name(), deadline: self.deadline }
    }
}

/// When a text has to end so that its end is there before the caller stops waiting: a client whose own deadline passes
/// keeps nothing of it. The transport keeps a deadline for the head of an answer only.
fn deadline(metadata: &MetadataMap) -> Option<Instant> {
    let timeout = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (count, unit) = timeout.split_at_checked(timeout.len().checked_sub(1)?)?;
    let count = count.parse::<u32>().ok()?;
    let timeout = match unit {
        "H" => Duration::from_secs(3600).checked_mul(count)?,
        "M" => Duration::from_secs(60).checked_mul(count)?,
        "S" => Duration::from_secs(u64::from(count)),
        "m" => Duration::from_millis(u64::from(count)),
        "u" => Duration::from_micros(u64::from(count)),
        "n" => Duration::from_nanos(u64::from(count)),
        _ => return None,
    };
    Instant::now().checked_add(timeout - (timeout / 10).min(LONGEST_WAY))
}

/// A stream's events as responses.
///
/// It never waits between ready events, so tonic's encoder puts them into one buffer and one flush.
pub(crate) struct ResponseStream {
    request_id: String,
    told: Told,
    sealer: Option<Sealer>,
    events: EventStream,
    _seat: Seat,
}

impl Stream for ResponseStream {
    type Item = Result<pb::GenerateResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let event = Pin::new(&mut self.events).poll_next(context);
        event.map(|event| event.map(|event| self.respond(event).map_err(Status::from)))
    }
}

impl ResponseStream {
    /// The next event as a response; none after the last one.
    pub(crate) async fn next(&mut self) -> Option<Result<pb::GenerateResponse, Refusal>> {
        let event = poll_fn(|context| Pin::new(&mut self.events).poll_next(context)).await?;
        Some(self.respond(event))
    }

    fn respond(&mut self, event: Event) -> Result<pb::GenerateResponse, Refusal> {
        use pb::generate_response::Event as PbEvent;
        let event = match event {
            Event::Started(started) => {
                self.sealer.iter_mut().for_each(|sealer| sealer.set_seed(started.seed));
                PbEvent::Started(pb::Started {
                    model: self.told.model().name.clone(),
                    version: self.told.model().version.clone(),
                    seed: started.seed,
                    prompt_chars: started.num_prompt_tokens,
                    cached_chars: started.num_cached_tokens,
                })
            }
            Event::Chunk(chunk) => PbEvent::Chunk(to_pb_chunk(chunk)),
            Event::Finished(finished) => {
                self.told.finished(&finished);
                PbEvent::Finished(to_pb_finished(finished, self.sealer.as_ref()))
            }
            Event::Scored(_) => {
                return Err(Refusal::Stream(StreamError::Model("it was not drawn".to_owned())))
            }
            Event::Failed(error) => {
                self.told.failed(&error);
                return Err(Refusal::Stream(error));
            }
        };
        Ok(pb::GenerateResponse { request_id: self.request_id.clone(), event: Some(event) })
    }
}

fn to_core(request: pb::GenerateRequest, snapshot: Option<Arc<Snapshot>>) -> GenerateRequest {
    let sampling = request.sampling.unwrap_or_default();
    let stopping = request.stopping.unwrap_or_default();
    let output = request.output.unwrap_or_default();
    GenerateRequest {
        prompt: match (snapshot, request.start) {
            (Some(snapshot), _) => Prompt::Resume(snapshot),
            (None, Some(Start::Prompt(text))) => Prompt::Text(text),
            (None, Some(Start::PromptIds(pb::TokenIds { ids }))) => Prompt::Ids(ids),
            (None, Some(Start::ResumeToken(_)) | None) => Prompt::Text(String::new()),
        },
        sampling: SamplingParams {
            logit_bias: sampling.logit_bias.into_iter().collect(),
            allowed: sampling.allowed.map(|allowed| allowed.ids),
            repetition_penalty: sampling.repetition_penalty,
            frequency_penalty: sampling.frequency_penalty,
            presence_penalty: sampling.presence_penalty,
            penalty_window: sampling.penalty_window,
            no_repeat_ngram_size: sampling.no_repeat_ngram_size,
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            typical_p: sampling.typical_p,
            seed: sampling.seed,
            ..SamplingParams::default()
        },
        sample_index: sampling.sample_index,
        stopping: Stopping {
            max_tokens: stopping.max_tokens,
            min_tokens: stopping.min_tokens,
            regex: sampling.regex,
            utf8: sampling.utf8,
            stop: stopping.stop,
            include_stop: stopping.include_stop,
        },
        output: Output {
            chunk_chars: output.chunk_chars,
            max_chunk_delay_ms: output.max_chunk_delay_ms,
            ids: output.ids,
            logprobs: output.logprobs,
            top_logprobs: output.top_logprobs,
            echo_prompt: output.echo_prompt,
            snapshot: false,
        },
    }
}

fn to_pb_chunk(chunk: Chunk) -> pb::Chunk {
    let symbols = chunk.symbols.map(|symbols| *symbols).unwrap_or_default();
    let top = score::to_pb_top(&symbols);
    let (ids, logprobs) = (symbols.ids, symbols.logprobs);
    pb::Chunk { text: chunk.text, n: chunk.num_chars, offset: chunk.offset, ids, logprobs, top }
}

fn to_pb_finished(finished: Finished, sealer: Option<&Sealer>) -> pb::Finished {
    let reason = match finished.reason {
        FinishReason::Length => pb::FinishReason::Length,
        FinishReason::Stop => pb::FinishReason::Stop,
        FinishReason::Match => pb::FinishReason::Match,
        FinishReason::End => pb::FinishReason::End,
        FinishReason::Deadline => pb::FinishReason::Deadline,
        FinishReason::Drained => pb::FinishReason::Drained,
        FinishReason::Stalled => pb::FinishReason::Stalled,
    };
    let timing = finished.timing;
    pb::Finished {
        reason: reason.into(),
        matched_stop: finished.matched_stop,
        chars: finished.num_chars,
        resume_token: finished.snapshot.zip(sealer).and_then(|(snapshot, sealer)| sealer.seal(*snapshot)),
        timing: Some(pb::Timing {
            queue_us: timing.queue.as_micros() as u64,
            first_char_us: timing.first_char.as_micros() as u64,
            total_us: timing.total.as_micros() as u64,
            steps: timing.num_steps,
            mean_batch: timing.mean_batch,
        }),
    }
}

pub(crate) fn to_pb_model(info: &ModelInfo) -> pb::Model {
    let unit = match info.vocab.unit() {
        Unit::Char => pb::Unit::Char,
        Unit::Byte => pb::Unit::Byte,
    };
    pb::Model {
        name: info.name.clone(),
        version: info.version.clone(),
        digest: info.digest.clone(),
        cell: info.cell.clone(),
        num_layers: info.num_layers,
        hidden_size: info.hidden_size,
        precision: info.precision.clone(),
        state_bytes: info.state_bytes,
        vocab: Some(pb::Vocab { unit: unit.into(), symbols: info.vocab.symbols().to_vec() }),
        bpc: info.bpc,
        end_token: info.end_token,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_ends_early_enough_for_its_end_to_be_heard() {
        for (timeout, least_ms, most_ms) in
            [("500m", 440, 450), ("2S", 1790, 1800), ("1H", 3_599_790, 3_599_800)]
        {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", timeout.parse().expect("ASCII"));
            let before = Instant::now();
            let left = deadline(&metadata).expect("a deadline").duration_since(before);
            let took = before.elapsed();
            assert!(left >= Duration::from_millis(least_ms), "{timeout}: {left:?}");
            assert!(left <= Duration::from_millis(most_ms) + took, "{timeout}: {left:?}");
        }
    }
}
