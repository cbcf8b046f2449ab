//! A reader that does not read stalls nobody else and loses nothing; one that never reads is ended.

use std::time::Duration;

use crate::harness::{eventually, letters_after, read_all, request, text, FakeModel, TestServer, PATIENCE};
use charrnn_core::engine::EngineConfig;
use charrnn_serve::pb::generate_request::Start;
use charrnn_serve::pb::generate_response::Event;
use charrnn_serve::pb::{FinishReason, GenerateRequest, Output};
use tonic::Code;

/// Many times what the channel and the client's window hold.
const LONG: u32 = 200_000;

#[tokio::test]
async fn neighbours_go_on_and_the_text_is_whole_in_the_end() {
    let (server, model) = TestServer::of(FakeModel::new()).await;
    let slow = server.client().await.generate(request("a", LONG)).await.expect("accepted").into_inner();
    let mut client = server.client().await;
    for _ in 0..3 {
        let stream = client.generate(request("m", 20_000)).await.expect("accepted").into_inner();
        assert_eq!(text(&read_all(stream).await.0), letters_after('m', 20_000));
    }
    eventually("only the slow stream is left, parked", || model.num_running() == 1).await;
    let (responses, status) = read_all(slow).await;
    assert!(status.is_none(), "{status:?}");
    assert_eq!(text(&responses), letters_after('a', LONG as usize));
}

#[tokio::test]
async fn a_reader_stalled_for_too_long_is_told_so() {
    let config = EngineConfig { stall_timeout: Duration::from_millis(50), ..EngineConfig::default() };
    let model = FakeModel::new().into_model("fake", config);
    let server = TestServer::start(vec![model.clone()], PATIENCE).await;
    let stream = server.client().await.generate(request("a", LONG)).await.expect("accepted").into_inner();
    eventually("it runs", || model.num_running() == 1).await;
    eventually("it is ended", || model.num_running() == 0).await;
    let (responses, status) = read_all(stream).await;
    let status = status.expect("ended early");
    assert_eq!(status.code(), Code::Aborted, "{status:?}");
    let text = text(&responses);
    assert_eq!(text, letters_after('a', text.len()));
}

#[tokio::test]
async fn a_stalled_reader_that_asked_for_a_token_goes_on_where_it_was() {
    let config = EngineConfig { stall_timeout: Duration::from_millis(50), ..EngineConfig::default() };
    let model = FakeModel::new().into_model("fake", config);
    let server = TestServer::start(vec![model.clone()], PATIENCE).await;
    let output = Some(Output { resume_token: Some(true), ..Output::default() });
    let mut wanted = GenerateRequest { output, ..request("a", LONG) };
    let mut whole = String::new();
    loop {
        let stream = server.client().await.generate(wanted.clone()).await.expect("accepted").into_inner();
        if whole.is_empty() {
            eventually("it runs", || model.num_running() == 1).await;
            eventually("it is ended", || model.num_running() == 0).await;
        }
        let (responses, status) = read_all(stream).await;
        assert!(status.is_none(), "{status:?}");
        let is_first = whole.is_empty();
        for response in &responses {
            let Some(Event::Chunk(chunk)) = &response.event else { continue };
            assert_eq!(chunk.offset, whole.len() as u64);
            whole += &chunk.text;
        }
        let Some(Event::Finished(end)) = &responses.last().expect("an end").event else { panic!("no end") };
        assert_eq!(end.chars, whole.len() as u64);
        assert!(!is_first || end.reason() == FinishReason::Stalled, "{end:?}");
        match end.reason() {
            FinishReason::Stalled => {
                wanted.start = end.resume_token.clone().map(Start::ResumeToken);
                (wanted.sampling, wanted.stopping) = (None, None);
            }
            _ => break,
        }
    }
    assert_eq!(whole, letters_after('a', LONG as usize));
}
