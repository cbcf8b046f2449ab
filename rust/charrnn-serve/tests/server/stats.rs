//! What a server says of its models.

use charrnn_core::engine::EngineConfig;
use charrnn_serve::pb::{GetStatsRequest, Histogram, ModelStats};
use tonic::Code;

use crate::harness::{eventually, read_all, request, FakeModel, TestServer, PATIENCE};

async fn stats(server: &TestServer, model: &str) -> Vec<ModelStats> {
    let asked = GetStatsRequest { model: model.to_owned() };
    server.client().await.get_stats(asked).await.expect("stats").into_inner().models
}

fn count(histogram: &Option<Histogram>) -> u64 {
    histogram.as_ref().expect("always there").counts.iter().sum()
}

#[tokio::test]
async fn texts_steps_and_characters_are_counted() {
    let (server, model) = TestServer::of(FakeModel::new()).await;
    let mut client = server.client().await;
    for _ in 0..3 {
        read_all(client.generate(request("ab", 40)).await.expect("accepted").into_inner()).await;
    }
    eventually("all are over", || model.num_running() == 0).await;
    let [found] = &stats(&server, "fake").await[..] else { panic!("one model") };
    assert_eq!((found.ended["length"], found.ended["cancelled"], found.rejected["queue_full"]), (3, 0, 0));
    assert_eq!((found.running, found.waiting, found.parked), (0, 0, 0));
    assert!(found.slots > 0);
    // Two steps for the prompt give the first character, each further one the next.
    let steps = 3 * 41;
    for histogram in [&found.batch, &found.step, &found.sample, &found.send] {
        assert_eq!(count(histogram), steps);
    }
    assert_eq!(found.batch.as_ref().map(|batch| batch.sum), Some(steps));
    assert_eq!((count(&found.queue), count(&found.first_char)), (3, 3));
    assert_eq!(found.chunk_chars.as_ref().map(|chars| chars.sum), Some(3 * 40));
}

#[tokio::test]
async fn what_runs_waits_goes_away_and_is_refused_shows() {
    let (fake, permits) = FakeModel::gated();
    let config = EngineConfig { max_streams: 1, max_queue: 1, ..EngineConfig::default() };
    let model = fake.into_model("fake", config);
    let server = TestServer::start(vec![model.clone()], PATIENCE).await;
    let mut client = server.client().await;
    let running = client.generate(request("a", 1_000_000)).await.expect("a slot").into_inner();
    eventually("it holds the slot", || model.num_running() == 1).await;
    let waiting = client.generate(request("b", 1_000_000)).await.expect("a place in the queue").into_inner();
    client.generate(request("c", 3)).await.expect_err("the queue is full");
    let [found] = &stats(&server, "").await[..] else { panic!("one model") };
    assert_eq!((found.slots, found.running, found.waiting), (1, 1, 1));
    assert_eq!(found.rejected["queue_full"], 1);
    drop((running, waiting, permits));
    eventually("both are gone", || model.num_running() + model.num_waiting() == 0).await;
    let [found] = &stats(&server, "").await[..] else { panic!("one model") };
    assert_eq!(found.ended["cancelled"], 2);
}

#[tokio::test]
async fn stats_of_an_unknown_model_are_not_found() {
    let (server, _model) = TestServer::of(FakeModel::new()).await;
    let asked = GetStatsRequest { model: "other".to_owned() };
    let status = server.client().await.get_stats(asked).await.expect_err("no such model");
    assert_eq!(status.code(), Code::NotFound);
}
