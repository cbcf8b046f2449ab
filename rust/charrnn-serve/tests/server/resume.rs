//! A text that one server cuts goes on with another that has its key and its model, and with no other.

use std::time::Duration;

use charrnn_core::engine::EngineConfig;
use charrnn_serve::pb::generate_request::Start;
use charrnn_serve::pb::generate_response::Event;
use charrnn_serve::pb::{
    FinishReason, Finished, GenerateRequest, GenerateResponse, Output, Sampling, Stopping, TokenIds,
};
use charrnn_serve::{Model, ModelInfo, TokenKey};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::harness::{
    eventually, info, letters_after, read_all, request, text, within_patience, FakeModel, TestServer,
    PATIENCE,
};

const SECRET: &[u8] = &[7; 32];

fn fake() -> Model {
    FakeModel::new().into_model("fake", EngineConfig::default())
}

async fn replica(model: Model) -> TestServer {
    TestServer::with_key(vec![model], PATIENCE, TokenKey::new(SECRET)).await
}

/// The same that asks for a token.
fn asking(request: GenerateRequest) -> GenerateRequest {
    GenerateRequest { output: Some(Output { resume_token: Some(true), ..Output::default() }), ..request }
}

fn going_on(token: &[u8], max_tokens: u32) -> GenerateRequest {
    let stopping = Some(Stopping { max_tokens: Some(max_tokens), ..Stopping::default() });
    GenerateRequest {
        start: Some(Start::ResumeToken(token.to_vec())),
        stopping,
        ..GenerateRequest::default()
    }
}

fn finished(responses: &[GenerateResponse]) -> Finished {
    match responses.last().and_then(|response| response.event.clone()) {
        Some(Event::Finished(finished)) => finished,
        other => panic!("no end: {other:?}"),
    }
}

/// The pieces of a text that goes on, from the first one's offset.
fn rest(responses: &[GenerateResponse]) -> (u64, String) {
    let chunks = responses.iter().filter_map(|response| match &response.event {
        Some(Event::Chunk(chunk)) => Some((chunk.offset, chunk.text.as_str())),
        _ => None,
    });
    chunks.fold((u64::MAX, String::new()), |(first, text), (offset, part)| (first.min(offset), text + part))
}

async fn generate(server: &TestServer, request: GenerateRequest) -> Result<Vec<GenerateResponse>, Status> {
    let stream = server.client().await.generate(request).await?.into_inner();
    match read_all(stream).await {
        (responses, None) => Ok(responses),
        (_, Some(status)) => Err(status),
    }
}

#[tokio::test]
async fn a_text_goes_on_elsewhere_beyond_its_length_again_and_again() {
    let servers = [replica(fake()).await, replica(fake()).await];
    let sampling = Some(Sampling { seed: Some(5), ..Sampling::default() });
    let begun = GenerateRequest { sampling, ..request("a", 7) };
    let mut responses = generate(&servers[0], asking(begun)).await.expect("accepted");
    let mut whole = text(&responses);
    for (number, max_tokens) in [9, 30, 31, 80].into_iter().enumerate() {
        let end = finished(&responses);
        assert_eq!((end.reason(), end.chars), (FinishReason::Length, whole.len() as u64));
        let request = asking(going_on(end.resume_token(), max_tokens));
        responses = generate(&servers[(number + 1) % 2], request).await.expect("accepted");
        let Some(Event::Started(started)) = &responses[0].event else { panic!("no start") };
        assert_eq!((started.seed, started.prompt_chars), (5, 0));
        let (offset, more) = rest(&responses);
        assert_eq!(offset, whole.len() as u64);
        whole += &more;
    }
    assert_eq!(whole, letters_after('a', 80));
}

/// A model of a step a millisecond, as long as there is one.
fn ticking() -> Model {
    let (fake, permits) = FakeModel::gated();
    std::thread::spawn(move || {
        while permits.send(()).is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    fake.into_model("fake", EngineConfig::default())
}

#[tokio::test]
async fn a_server_that_stops_hands_its_texts_over() {
    let model = ticking();
    let (old, new) = (
        TestServer::with_key(vec![model.clone()], Duration::ZERO, TokenKey::new(SECRET)).await,
        replica(fake()).await,
    );
    let mut client = old.client().await;
    let mut texts = Vec::new();
    for request in [
        asking(request("a", 100_000)),
        request("a", 100_000),
        // It is still being read when the server stops.
        asking(request(&"a".repeat(60_000), 9)),
    ] {
        let stream = client.generate(request).await.expect("accepted").into_inner();
        texts.push(tokio::spawn(read_all(stream)));
    }
    eventually("text of two streams", || model.stats().chunk_chars.sum >= 20).await;
    within_patience(old.stop()).await.expect("no panic").expect("an orderly end");
    let [asked, unasked, unbegun] = texts.try_into().expect("three");
    let (responses, status) = asked.await.expect("no panic");
    assert!(status.is_none(), "{status:?}");
    let (end, begun) = (finished(&responses), text(&responses));
    assert_eq!((end.reason(), end.chars), (FinishReason::Drained, begun.len() as u64));
    for other in [unasked, unbegun] {
        let status = other.await.expect("no panic").1.expect("it did not finish");
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    }
    assert_eq!(model.stats().ended.iter().sum::<u64>(), 3);
    let request = GenerateRequest { stopping: None, ..going_on(end.resume_token(), 0) };
    let responses = generate(&new, request).await.expect("accepted");
    assert_eq!(finished(&responses).chars, 100_000);
    assert_eq!(begun + &rest(&responses).1, letters_after('a', 100_000));
}

#[tokio::test]
async fn a_text_goes_on_after_its_deadline_with_all_its_parameters() {
    let (slow, server) = (replica(ticking()).await, replica(fake()).await);
    let guided = |max_tokens| {
        let sampling = Some(Sampling {
            regex: Some("[a-z]*".to_owned()),
            no_repeat_ngram_size: Some(26),
            seed: Some(3),
            ..Sampling::default()
        });
        GenerateRequest { sampling, ..request("a", max_tokens) }
    };
    let mut late = Request::new(asking(guided(100_000)));
    late.set_timeout(Duration::from_secs(1));
    let stream = slow.client().await.generate(late).await.expect("accepted").into_inner();
    let (responses, _) = read_all(stream).await;
    let end = finished(&responses);
    assert_eq!(end.reason(), FinishReason::Deadline);
    let length = end.chars as u32 + 60;
    let more = generate(&server, going_on(end.resume_token(), length)).await.expect("accepted");
    let alone = generate(&server, guided(length)).await.expect("accepted");
    assert_eq!(text(&responses) + &rest(&more).1, text(&alone));
}

/// A token of a text of three letters.
async fn token() -> Vec<u8> {
    let responses = generate(&replica(fake()).await, asking(request("a", 3))).await.expect("accepted");
    finished(&responses).resume_token().to_vec()
}

fn assert_refused(status: &Status, code: Code, reason: &str, words: &str) {
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(words), "{words} is not in: {}", status.message());
    assert_eq!(status.get_details_error_info().map(|info| info.reason).as_deref(), Some(reason));
    let has_field = status.get_details_bad_request().is_some_and(|bad| bad.field_violations.len() == 1);
    assert_eq!(has_field, code == Code::InvalidArgument);
}

#[tokio::test]
async fn a_token_that_is_damaged_cut_or_made_up_is_refused() {
    let (server, token) = (replica(fake()).await, token().await);
    for at in 0..token.len() {
        let mut damaged = token.clone();
        damaged[at] ^= 1;
        let status = generate(&server, going_on(&damaged, 9)).await.expect_err("damaged");
        let reason = if at == 0 { "RESUME_TOKEN_MALFORMED" } else { "RESUME_TOKEN_OTHER_KEY" };
        assert_refused(&status, Code::InvalidArgument, reason, "resume_token");
        let status = generate(&server, going_on(&token[..at], 9)).await.expect_err("cut");
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    }
    let long = vec![1; (64 << 10) + 1];
    let status = generate(&server, going_on(&long, 9)).await.expect_err("too long");
    assert_refused(&status, Code::InvalidArgument, "RESUME_TOKEN_MALFORMED", "longer than 65536 bytes");
    let responses = generate(&server, going_on(&token, 9)).await.expect("as it came");
    assert_eq!(rest(&responses), (3, letters_after('d', 6)));
}

#[tokio::test]
async fn a_token_of_another_key_or_model_is_refused_with_what_to_do() {
    let token = token().await;
    let other_key = TestServer::of(FakeModel::new()).await.0;
    let status = generate(&other_key, going_on(&token, 9)).await.expect_err("another key");
    assert_refused(&status, Code::InvalidArgument, "RESUME_TOKEN_OTHER_KEY", "--resume-key-file");
    let others = [
        ModelInfo { digest: "e".repeat(64), ..info("fake") },
        ModelInfo { precision: "int8".to_owned(), ..info("fake") },
    ];
    for other in others {
        let model = Model::new(other, vec![Box::new(FakeModel::new())], EngineConfig::default());
        let status = generate(&replica(model).await, going_on(&token, 9)).await.expect_err("another model");
        let reason = "RESUME_TOKEN_OTHER_MODEL";
        assert_refused(&status, Code::FailedPrecondition, reason, "is of model fp32 dddddddddddd, which");
    }
}

#[tokio::test]
async fn what_a_token_holds_is_not_given_again_and_its_length_is_over() {
    let (server, token) = (replica(fake()).await, token().await);
    let sampling = Some(Sampling { top_k: Some(1), ..Sampling::default() });
    let stopping = Some(Stopping { stop: vec!["z".to_owned()], ..Stopping::default() });
    let refused = [
        (
            GenerateRequest { sampling, ..going_on(&token, 9) },
            "RESUME_TOKEN_HAS_IT",
            "sampling cannot be given",
        ),
        (
            GenerateRequest { stopping, ..going_on(&token, 9) },
            "RESUME_TOKEN_HAS_IT",
            "stopping cannot be given",
        ),
        (going_on(&token, 3), "BAD_REQUEST", "max_tokens is 3"),
        (GenerateRequest { stopping: None, ..going_on(&token, 3) }, "BAD_REQUEST", "max_tokens is 3"),
    ];
    for (request, reason, words) in refused {
        let status = generate(&server, request).await.expect_err(words);
        assert_refused(&status, Code::InvalidArgument, reason, words);
    }
}

#[tokio::test]
async fn no_token_comes_unasked_or_too_long() {
    let server = replica(fake()).await;
    let responses = generate(&server, request("a", 3)).await.expect("accepted");
    assert_eq!(finished(&responses).resume_token, None);
    let ids = (0..60_000).map(|number| number % 26).collect();
    let mut long = asking(request("a", 3));
    long.sampling = Some(Sampling { allowed: Some(TokenIds { ids }), ..Sampling::default() });
    let responses = generate(&server, long).await.expect("accepted");
    assert_eq!((finished(&responses).resume_token, text(&responses).len()), (None, 3));
}
