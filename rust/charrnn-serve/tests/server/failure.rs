//! A model that fails ends its streams with INTERNAL and serves the next ones; one that panics again and again ends the
//! server.

use crate::harness::{letters_after, read_all, request, text, within_patience, FakeModel, TestServer};
use charrnn_serve::ServeError;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::HealthCheckRequest;

#[tokio::test]
async fn a_failed_step_is_internal_after_the_text_so_far() {
    let (server, model) = TestServer::of(FakeModel::poisoned_by('x')).await;
    let mut client = server.client().await;
    let stream = client.generate(request("s", 100)).await.expect("accepted").into_inner();
    let (responses, status) = read_all(stream).await;
    let status = status.expect("a failure");
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("poisoned"), "{}", status.message());
    assert!(letters_after('s', 5).starts_with(&text(&responses)));
    crate::harness::eventually("the slot is free", || model.num_running() == 0).await;
    let stream = client.generate(request("a", 3)).await.expect("accepted").into_inner();
    assert_eq!(text(&read_all(stream).await.0), "bcd");
}

#[tokio::test]
async fn after_one_panic_it_goes_on_and_after_two_it_ends_and_says_so() {
    let (server, _model) = TestServer::of(FakeModel::panicking_at('x')).await;
    let mut health = HealthClient::new(server.channel().await);
    let request_health = HealthCheckRequest { service: "fake".to_owned() };
    let mut watch = health.watch(request_health).await.expect("known").into_inner();
    let mut client = server.client().await;
    for _ in 0..2 {
        let calm = client.generate(request("a", 20)).await.expect("accepted").into_inner();
        assert_eq!(text(&read_all(calm).await.0), letters_after('a', 20));
        let stream = client.generate(request("s", 100)).await.expect("accepted").into_inner();
        let (responses, status) = read_all(stream).await;
        assert_eq!(status.expect("a failure").code(), Code::Internal);
        assert!(letters_after('s', 5).starts_with(&text(&responses)));
    }
    let mut seen = Vec::new();
    while let Some(answer) = within_patience(watch.message()).await.expect("an orderly end") {
        seen.push(answer.status());
    }
    assert_eq!(seen, [ServingStatus::Serving, ServingStatus::NotServing]);
    let ended = within_patience(server.ended).await.expect("no panic");
    assert!(matches!(ended, Err(ServeError::Broken(name)) if name == "fake"));
}
