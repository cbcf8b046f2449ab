//! What whoever runs a server does with it besides loading: unload, drain; and that nobody else can.

use charrnn_core::engine::EngineConfig;
use charrnn_serve::pb::admin_client::AdminClient;
use charrnn_serve::pb::{DrainRequest, GenerateRequest, UnloadModelRequest};
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::HealthCheckRequest;

use crate::harness::{
    eventually, letters_after, read_all, request, text, within_patience, FakeModel, TestServer, PATIENCE,
};

fn unload(model: &str) -> UnloadModelRequest {
    UnloadModelRequest { model: model.to_owned() }
}

fn of(model: &str, prompt: &str, max_tokens: u32) -> GenerateRequest {
    GenerateRequest { model: model.to_owned(), ..request(prompt, max_tokens) }
}

fn check(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn an_unloaded_model_finishes_its_texts_and_takes_no_more() {
    let (fake, permits) = FakeModel::gated();
    let one = fake.into_model("one", EngineConfig::default());
    let two = FakeModel::new().into_model("two", EngineConfig::default());
    let server = TestServer::start(vec![one, two], PATIENCE).await;
    let (mut client, mut health) = (server.client().await, HealthClient::new(server.channel().await));
    let running = client.generate(of("one", "a", 20)).await.expect("accepted").into_inner();
    let unloaded = server.admin().await.unload_model(unload("one")).await.expect("unloaded").into_inner();
    assert_eq!(unloaded.version, "one");
    let status = client.generate(of("one", "a", 1)).await.expect_err("not served any more");
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().ends_with("this server has: two"), "{}", status.message());
    let answer = health.check(check("one")).await.expect("its texts run").into_inner();
    assert_eq!(answer.status(), ServingStatus::NotServing);
    drop(permits);
    let (responses, status) = read_all(running).await;
    assert!(status.is_none(), "{status:?}");
    assert_eq!(text(&responses), letters_after('a', 20));
    let gone = async {
        while health.check(check("one")).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    within_patience(gone).await;
    // Without a name the one that is left is meant.
    let left = client.generate(request("b", 5)).await.expect("accepted").into_inner();
    assert_eq!(text(&read_all(left).await.0), letters_after('b', 5));
    let answer = health.check(check("two")).await.expect("served").into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
}

#[tokio::test]
async fn the_last_model_and_one_that_is_not_there_cannot_be_unloaded() {
    let (server, _model) = TestServer::of(FakeModel::new()).await;
    let mut admin = server.admin().await;
    let status = admin.unload_model(unload("fake")).await.expect_err("the last one");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("\"fake\" is the only one"), "{}", status.message());
    let status = admin.unload_model(unload("other")).await.expect_err("not there");
    assert_eq!(status.code(), Code::NotFound);
    let served = server.client().await.generate(request("a", 3)).await.expect("served").into_inner();
    assert!(read_all(served).await.1.is_none());
}

#[tokio::test]
async fn a_server_told_to_drain_finishes_its_texts_and_ends() {
    let (fake, permits) = FakeModel::gated();
    let (server, model) = TestServer::of(fake).await;
    let running = server.client().await.generate(request("a", 20)).await.expect("accepted").into_inner();
    eventually("it runs", || model.num_running() == 1).await;
    server.admin().await.drain(DrainRequest {}).await.expect("begun");
    let mut client = server.client().await;
    let refused = loop {
        match client.generate(request("a", 1)).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(status) => break status,
        }
    };
    assert_eq!(refused.code(), Code::Unavailable);
    drop((permits, client));
    assert_eq!(text(&read_all(running).await.0), letters_after('a', 20));
    within_patience(server.ended).await.expect("no panic").expect("an orderly end");
}

#[tokio::test]
async fn a_client_of_texts_cannot_and_an_admin_gets_no_texts() {
    let (server, _model) = TestServer::of(FakeModel::new()).await;
    let mut outside = AdminClient::new(server.channel().await);
    let status = outside.drain(DrainRequest {}).await.expect_err("not here");
    assert_eq!(status.code(), Code::Unimplemented);
    let inside = server.admin_channel().await;
    let mut client = charrnn_serve::pb::char_rnn_client::CharRnnClient::new(inside);
    let status = client.generate(request("a", 1)).await.expect_err("not there");
    assert_eq!(status.code(), Code::Unimplemented);
}
