//! A full queue refuses at once, and takes requests again once there is room.

use crate::harness::{eventually, read_all, request, text, FakeModel, TestServer, PATIENCE};
use charrnn_core::engine::EngineConfig;
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
    assert!(retry.retry_delay.is_some_and(|delay| !delay.is_zero()));
    drop(permits);
    assert_eq!(text(&read_all(running).await.0), "bcd");
    assert_eq!(text(&read_all(waiting).await.0), "cde");
    let again = client.generate(request("c", 3)).await.expect("room again").into_inner();
    assert_eq!(text(&read_all(again).await.0), "def");
}
