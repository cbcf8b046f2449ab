//! `Score` over gRPC: how likely a text is, and each symbol of it.

use charrnn_core::event::{Event, Scored, Symbols};
use charrnn_core::request::{Prompt, ScoreRequest};
use tokio_stream::StreamExt;

use crate::model::Model;
use crate::models::Models;
use crate::pb;
use crate::pb::score_request::TextOrIds;
use crate::service::Origin;
use crate::status::Refusal;
use crate::stream::EventStream;

/// Waits for the engine to read a text.
pub(crate) async fn score(
    models: &Models,
    request: pb::ScoreRequest,
    origin: Origin,
) -> Result<pb::ScoreResponse, Refusal> {
    let _seat = origin.enter()?;
    let text = match request.text_or_ids {
        Some(TextOrIds::Text(text)) => Prompt::Text(text),
        Some(TextOrIds::Ids(pb::TokenIds { ids })) => Prompt::Ids(ids),
        None => Prompt::Text(String::new()),
    };
    let (prompt, per_symbol, top_logprobs) = (request.prompt, request.per_symbol, request.top_logprobs);
    let asked = ScoreRequest { prompt, text, per_symbol, top_logprobs };
    let ask = |model: &Model| model.score(asked.clone(), origin.caller());
    let (model, events) = models.ask(&request.model, request.version.as_deref(), ask)?;
    let scored = read(events).await?;
    let symbols = scored.symbols.map(|symbols| *symbols).unwrap_or_default();
    Ok(pb::ScoreResponse {
        request_id: request.request_id,
        model: model.name.clone(),
        version: model.version.clone(),
        num_symbols: scored.num_symbols,
        nats: scored.nats,
        top: to_pb_top(&symbols),
        logprobs: symbols.logprobs,
        ids: symbols.ids,
    })
}

async fn read(mut events: EventStream) -> Result<Scored, Refusal> {
    while let Some(event) = events.next().await {
        match event {
            Event::Started(_) | Event::Chunk(_) => {}
            Event::Scored(scored) => return Ok(scored),
            Event::Finished(_) => break,
            Event::Failed(error) => return Err(Refusal::Stream(error)),
        }
    }
    Err(Refusal::Late)
}

pub(crate) fn to_pb_top(symbols: &Symbols) -> Vec<pb::TopLogprobs> {
    let to_pb = |top: &[(u32, f32)]| {
        let (ids, logprobs) = top.iter().copied().unzip();
        pb::TopLogprobs { ids, logprobs }
    };
    symbols.tops().map(to_pb).collect()
}
