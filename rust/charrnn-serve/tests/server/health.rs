//! grpc.health.v1 for the server, the service and each model.

use crate::harness::{within_patience, FakeModel, TestServer};
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::HealthCheckRequest;

fn check(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn server_service_and_model_are_serving() {
    let (server, _model) = TestServer::of(FakeModel::new()).await;
    let mut health = HealthClient::new(server.channel().await);
    for service in ["", "charrnn.v1.CharRnn", "fake"] {
        let answer = health.check(check(service)).await.expect("known").into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    assert_eq!(health.check(check("other")).await.expect_err("unknown").code(), Code::NotFound);
}

#[tokio::test]
async fn watchers_see_the_end_and_do_not_hold_it_up() {
    let (server, _model) = TestServer::of(FakeModel::new()).await;
    let mut health = HealthClient::new(server.channel().await);
    let mut watch = health.watch(check("fake")).await.expect("known").into_inner();
    let mut seen = Vec::new();
    seen.push(watch.message().await.expect("open").expect("a status").status());
    let ended = server.stop();
    while let Some(answer) = within_patience(watch.message()).await.expect("an orderly end") {
        seen.push(answer.status());
    }
    assert_eq!(seen, [ServingStatus::Serving, ServingStatus::NotServing]);
    within_patience(ended).await.expect("no panic").expect("an orderly end");
}
