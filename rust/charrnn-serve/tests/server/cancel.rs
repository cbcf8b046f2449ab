//! A client that goes away frees its slot, and its place in the queue.

use crate::harness::{eventually, read_all, request, text, FakeModel, TestServer, PATIENCE};
use charrnn_core::engine::EngineConfig;

#[tokio::test]
async fn a_cancelled_stream_leaves_within_one_step() {
    let (fake, permits) = FakeModel::gated();
    let (server, model) = TestServer::of(fake).await;
    let mut client = server.client().await;
    let mut stream = client.generate(request("a", 1_000_000)).await.expect("accepted").into_inner();
    // Two steps: the prompt's and one more. The next one waits for a permit.
    permits.send(()).expect("a model");
    permits.send(()).expect("a model");
    for _ in 0..2 {
        stream.message().await.expect("started, then the first character").expect("an event");
    }
    assert_eq!(model.num_running(), 1);
    drop(stream);
    // The connection carries the cancellation before this answer.
    client.list_models(charrnn_serve::pb::ListModelsRequest {}).await.expect("a list");
    permits.send(()).expect("a model");
    eventually("the slot is free", || model.num_running() == 0).await;
}

#[tokio::test]
async fn a_lost_connection_cancels_its_streams() {
    let (server, model) = TestServer::of(FakeModel::new()).await;
    let mut client = server.client().await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(client.generate(request("a", 1_000_000)).await.expect("accepted").into_inner());
    }
    eventually("all run", || model.num_running() == 8).await;
    drop((client, streams));
    eventually("no stream is left", || model.num_running() == 0).await;
}

#[tokio::test]
async fn a_cancelled_request_leaves_the_queue() {
    let (fake, permits) = FakeModel::gated();
    let config = EngineConfig { max_streams: 1, ..EngineConfig::default() };
    let model = fake.into_model("fake", config);
    let server = TestServer::start(vec![model.clone()], PATIENCE).await;
    let mut client = server.client().await;
    let first = client.generate(request("a", 3)).await.expect("accepted").into_inner();
    eventually("the first holds the slot", || model.num_running() == 1).await;
    let queued = client.generate(request("b", 3)).await.expect("accepted").into_inner();
    let last = client.generate(request("c", 3)).await.expect("accepted").into_inner();
    eventually("two wait", || model.num_waiting() == 2).await;
    drop(queued);
    drop(permits);
    assert_eq!(text(&read_all(first).await.0), "bcd");
    assert_eq!(text(&read_all(last).await.0), "def");
    eventually("nothing is left", || model.num_waiting() + model.num_running() == 0).await;
}
