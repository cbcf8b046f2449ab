//! A full queue refuses at once, and takes requests again once there is room.

use crate::harness::{eventually, read_all, request, text, FakeModel, TestServer, PATIENCE};
use charrnn_core::engine::EngineConfig;
use charrnn_serve::pb;
use tonic::Code;
use tonic_types::StatusExt;

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let (fake, permits) = FakeModel::gated();
    let config = EngineConfig { max_streams: 1, max_queue: 1, ..EngineConfig::default() };
    let model = fake.into_model("fake", config);
    let server = TestServer::start(vec![model.clone()], PATIENCE).await;
    let mut client = server.client().await;
    let running = client.generate(request("a", 3)).await.expect("a slot").into_inner();
    eventually("it holds the slot", || model.num_running() == 1).await;
    let waiting = client.generate(request("b", 3)).await.expect("a place in the queue").into_inner();
    let status = client.generate(request("c", 3)).await.expect_err("the queue is full");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains('1'), "the limit is not in: {}", status.message());
    let info = status.get_details_error_info().expect("an ErrorInfo");
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("QUEUE_FULL", "charrnn"));
    let retry = status.get_details_retry_info().expect("a RetryInfo");
    let delay = retry.retry_delay.expect("how long");
    let pushback = status.metadata().get("grpc-retry-pushback-ms").expect("what gRPC's own retries read");
    assert_eq!(pushback.to_str().expect("ASCII"), delay.as_millis().to_string());
    drop(permits);
    assert_eq!(text(&read_all(running).await.0), "bcd");
    assert_eq!(text(&read_all(waiting).await.0), "cde");
    let again = client.generate(request("c", 3)).await.expect("room again").into_inner();
    assert_eq!(text(&read_all(again).await.0), "def");
}

/// One that no model would take, whoever has room.
fn wrong() -> pb::GenerateRequest {
    let sampling = pb::Sampling { temperature: Some(-1.0), ..pb::Sampling::default() };
    pb::GenerateRequest { sampling: Some(sampling), ..request("a", 3) }
}

/// Reading it would take time from the texts that run.
#[tokio::test]
async fn a_full_queue_refuses_what_it_has_not_read() {
    let (fake, permits) = FakeModel::gated();
    let config = EngineConfig { max_streams: 1, max_queue: 0, ..EngineConfig::default() };
    let model = fake.into_model("fake", config);
    let server = TestServer::start(vec![model.clone()], PATIENCE).await;
    let mut client = server.client().await;
    let running = client.generate(request("a", 3)).await.expect("a slot").into_inner();
    let refused = client.generate(wrong()).await.expect_err("no room");
    assert_eq!((refused.code(), model.stats().queue_full), (Code::ResourceExhausted, 1));
    drop(permits);
    assert_eq!(text(&read_all(running).await.0), "bcd");
    let refused = client.generate(wrong()).await.expect_err("a wrong request");
    assert_eq!((refused.code(), model.stats().queue_full), (Code::InvalidArgument, 1));
}

/// Which of two models a request is for has to be read first.
#[tokio::test]
async fn a_full_queue_is_that_of_its_model() {
    let (fake, permits) = FakeModel::gated();
    let config = EngineConfig { max_streams: 1, max_queue: 0, ..EngineConfig::default() };
    let full = fake.into_model("full", config.clone());
    let free = FakeModel::new().into_model("free", config);
    let server = TestServer::start(vec![full.clone(), free.clone()], PATIENCE).await;
    let mut client = server.client().await;
    let asked = |name: &str| pb::GenerateRequest { model: name.to_owned(), ..request("a", 3) };
    let running = client.generate(asked("full")).await.expect("a slot").into_inner();
    let refused = client.generate(asked("full")).await.expect_err("no room");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let other = client.generate(asked("free")).await.expect("a slot").into_inner();
    assert_eq!(text(&read_all(other).await.0), "bcd");
    assert_eq!((full.stats().queue_full, free.stats().queue_full), (1, 0));
    drop(permits);
    assert_eq!(text(&read_all(running).await.0), "bcd");
}
