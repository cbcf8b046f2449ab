//! grpc.health.v1 for the server, the service and each model.

use crate::harness::{FakeModel, TestServer, PATIENCE};
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
    let first = watch.message().await.expect("open").expect("a status");
    assert_eq!(first.status(), ServingStatus::Serving);
    let ended = server.stop();
    let second = watch.message().await.expect("open").expect("a status");
    assert_eq!(second.status(), ServingStatus::NotServing);
    assert_eq!(watch.message().await.expect("an orderly end"), None);
    let ended = tokio::time::timeout(PATIENCE, ended).await.expect("an end").expect("no panic");
    ended.expect("an orderly end");
}
