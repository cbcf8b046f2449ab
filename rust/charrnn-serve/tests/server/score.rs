//! How likely a text is, and each of its symbols, over the wire.

use std::time::Duration;

use charrnn_core::engine::EngineConfig;
use charrnn_serve::pb::score_request::TextOrIds;
use charrnn_serve::pb::{Chunk, GenerateRequest, ListModelsRequest, Output, ScoreRequest, TokenIds};
use prost::Message;
use tonic::{Code, Request};
use tonic_types::StatusExt;

use crate::harness::{
    chunks, eventually, letters_after, read_all, request, within_patience, FakeModel, TestServer, PATIENCE,
    SYMBOLS,
};

fn score(text: &str) -> ScoreRequest {
    ScoreRequest { text_or_ids: Some(TextOrIds::Text(text.to_owned())), ..ScoreRequest::default() }
}

fn output(output: Output) -> GenerateRequest {
    GenerateRequest { output: Some(output), ..request("xyz", 40) }
}

async fn chunks_of(server: &TestServer, request: GenerateRequest) -> Vec<Chunk> {
    chunks(&read_all(server.client().await.generate(request).await.expect("accepted").into_inner()).await.0)
}

#[tokio::test]
async fn a_text_is_as_likely_as_its_letters_are() {
    let (server, model) = TestServer::of(FakeModel::new()).await;
    let version = &model.info().version;
    let mut client = server.client().await;
    // The next letter is exp(100) times as likely as any other; `a` is what an empty prompt feeds.
    for (prompt, text, nats) in
        [("", "bcd", 0.0), ("", "bd", 100.0), ("xyz", "abc", 0.0), ("x", "bca", 200.0)]
    {
        let (request_id, prompt) = (format!("{prompt} {text}"), prompt.to_owned());
        let asked = ScoreRequest {
            request_id: request_id.clone(),
            prompt,
            version: Some(version.clone()).filter(|_| nats > 0.0),
            ..score(text)
        };
        let found = client.score(asked).await.expect("a score").into_inner();
        assert_eq!((found.request_id, found.model.as_str()), (request_id, "fake"));
        assert_eq!(&found.version, version);
        assert_eq!(found.num_symbols as usize, text.len());
        assert!((found.nats - nats).abs() < 1e-6, "{} {nats}", found.nats);
        assert!(found.ids.is_empty() && found.logprobs.is_empty() && found.top.is_empty());
    }
    let ids = TextOrIds::Ids(TokenIds { ids: vec![1, 3] });
    let asked = ScoreRequest { text_or_ids: Some(ids), top_logprobs: Some(2), ..ScoreRequest::default() };
    let found = client.score(asked).await.expect("a score").into_inner();
    assert_eq!((found.ids, found.logprobs), (vec![1, 3], vec![0.0, -100.0]));
    let top: Vec<_> = found.top.into_iter().map(|top| (top.ids, top.logprobs)).collect();
    assert_eq!(top, [(vec![1, 0], vec![0.0, -100.0]), (vec![2, 0], vec![0.0, -100.0])]);
}

#[tokio::test]
async fn chunks_tell_of_their_symbols_and_the_prompt_comes_first() {
    let (server, _model) = TestServer::of(FakeModel::new()).await;
    let asked =
        Output { top_logprobs: Some(1), echo_prompt: true, chunk_chars: Some(7), ..Output::default() };
    let chunks = chunks_of(&server, output(asked)).await;
    let text: String = chunks.iter().map(|chunk| chunk.text.as_str()).collect();
    assert_eq!(text, format!("xyz{}", letters_after('z', 40)));
    for chunk in &chunks {
        let ids = chunk.text.chars().map(|c| SYMBOLS.find(c).expect("a letter") as u32);
        assert!(ids.eq(chunk.ids.iter().copied()), "{chunk:?}");
        // All but the first letter follow the one before.
        let expected: Vec<f32> =
            (0..u64::from(chunk.n)).map(|i| if chunk.offset + i == 0 { -100.0 } else { 0.0 }).collect();
        assert_eq!(chunk.logprobs, expected);
        assert_eq!(chunk.top.len(), chunk.ids.len());
        assert!(chunk.top.iter().all(|top| top.logprobs == [0.0] && top.ids.len() == 1));
    }
}

#[tokio::test]
async fn a_chunk_of_one_character_that_tells_nothing_more_is_ten_bytes_at_most() {
    let (server, _model) = TestServer::of(FakeModel::new()).await;
    let asked = Output { chunk_chars: Some(1), max_chunk_delay_ms: Some(0), ..Output::default() };
    let chunks = chunks_of(&server, output(asked)).await;
    assert_eq!(chunks.len(), 40);
    assert!(chunks.into_iter().all(|chunk| Chunk { offset: 1 << 27, ..chunk }.encoded_len() <= 10));
}

#[tokio::test]
async fn a_bad_score_is_an_invalid_argument_that_names_the_field() {
    let (server, model) = TestServer::of(FakeModel::new()).await;
    let mut client = server.client().await;
    let ids = |ids| Some(TextOrIds::Ids(TokenIds { ids }));
    for (bad, field) in [
        (ScoreRequest::default(), "text"),
        (score("ab!"), "text"),
        (score(&"a".repeat(70_000)), "text"),
        (ScoreRequest { prompt: "é".to_owned(), ..score("a") }, "prompt"),
        (ScoreRequest { text_or_ids: ids(vec![26]), ..ScoreRequest::default() }, "ids"),
        (ScoreRequest { top_logprobs: Some(21), ..score("a") }, "top_logprobs"),
    ] {
        let status = client.score(bad).await.expect_err(field);
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        let details = status.get_details_bad_request().expect("a BadRequest detail");
        assert_eq!(details.field_violations[0].field, field);
    }
    let other_model = ScoreRequest { model: "other".to_owned(), ..score("a") };
    let other_version = ScoreRequest { version: Some("other".to_owned()), ..score("a") };
    for unknown in [other_model, other_version] {
        assert_eq!(client.score(unknown).await.expect_err("no such model").code(), Code::NotFound);
    }
    assert_eq!(model.num_running() + model.num_waiting(), 0);
}

#[tokio::test]
async fn a_score_ends_at_its_callers_deadline() {
    let (fake, permits) = FakeModel::gated();
    let (server, model) = TestServer::of(fake).await;
    let mut asked = Request::new(score("bcd"));
    asked.set_timeout(Duration::from_millis(20));
    let status = server.client().await.score(asked).await.expect_err("no step was run");
    assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&status.code()), "{status:?}");
    drop(permits);
    eventually("the slot is free", || model.num_running() + model.num_waiting() == 0).await;
}

#[tokio::test]
async fn a_caller_that_goes_away_frees_the_slot_for_the_next() {
    let (fake, permits) = FakeModel::gated();
    let config = EngineConfig { max_streams: 1, max_queue: 1, ..EngineConfig::default() };
    let model = fake.into_model("fake", config);
    let server = TestServer::start(vec![model.clone()], PATIENCE).await;
    let mut client = server.client().await;
    let (mut first, mut second) = (client.clone(), client.clone());
    let gone = tokio::spawn(async move { first.score(score("bcdefg")).await });
    eventually("it runs", || model.num_running() == 1).await;
    let next = tokio::spawn(async move { second.score(score("bcd")).await });
    eventually("another waits", || model.num_waiting() == 1).await;
    assert_eq!(client.score(score("b")).await.expect_err("full").code(), Code::ResourceExhausted);
    gone.abort();
    // The connection carries the cancellation before this answer.
    client.list_models(ListModelsRequest {}).await.expect("a list");
    // One step of the first, three of the next.
    (0..4).for_each(|_| permits.send(()).expect("a model"));
    let scored = within_patience(next).await.expect("no panic").expect("a score").into_inner();
    assert_eq!(scored.num_symbols, 3);
    eventually("nothing is left", || model.num_running() + model.num_waiting() == 0).await;
}
