//! Told to stop, a server refuses new requests, lets streams finish, ends the rest with a status, and returns.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use crate::harness::{
    eventually, letters_after, read_all, request, text, within_patience, FakeModel, TestServer,
};
use charrnn_core::engine::EngineConfig;
use charrnn_serve::pb::{GenerateRequest, Output};
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::HealthCheckRequest;

/// The server's end, which must come and be orderly.
async fn end(ended: tokio::task::JoinHandle<Result<(), charrnn_serve::ServeError>>) {
    within_patience(ended).await.expect("no panic").expect("an orderly end");
}

#[tokio::test]
async fn a_running_stream_finishes_while_new_ones_are_refused() {
    let (fake, permits) = FakeModel::gated();
    let (server, model) = TestServer::of(fake).await;
    let mut client = server.client().await;
    let mut health = HealthClient::new(server.channel().await);
    let stream = client.generate(request("a", 40)).await.expect("accepted").into_inner();
    eventually("it runs", || model.num_running() == 1).await;
    let ended = server.stop();
    loop {
        let answer = health.check(HealthCheckRequest::default()).await.expect("still answering").into_inner();
        if answer.status() == ServingStatus::NotServing {
            break;
        }
    }
    // NOT_SERVING comes before admission stops, by a moment.
    let refused = loop {
        match client.generate(request("a", 1)).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(status) => break status,
        }
    };
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(!ended.is_finished());
    drop(permits);
    let (responses, status) = read_all(stream).await;
    assert!(status.is_none(), "{status:?}");
    assert_eq!(text(&responses), letters_after('a', 40));
    end(ended).await;
}

#[tokio::test]
async fn what_does_not_finish_in_time_ends_unavailable_with_its_text() {
    let model = FakeModel::new().into_model("fake", EngineConfig::default());
    let server = TestServer::start(vec![model.clone()], Duration::from_millis(50)).await;
    let mut client = server.client().await;
    // Nobody reads it yet, so it is parked before its million characters are done.
    let stream = client.generate(request("a", 1_000_000)).await.expect("accepted").into_inner();
    eventually("it runs", || model.num_running() == 1).await;
    let ended = server.stop();
    let (responses, status) = read_all(stream).await;
    let status = status.expect("not finished");
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("stopping"), "{}", status.message());
    let text = text(&responses);
    assert!(!text.is_empty() && text.len() < 1_000_000);
    assert_eq!(text, letters_after('a', text.len()));
    end(ended).await;
}

#[tokio::test]
async fn a_client_that_never_reads_does_not_hold_it_up() {
    let fake = FakeModel::new();
    let num_steps = fake.num_steps();
    let model = fake.into_model("fake", EngineConfig::default());
    let server = TestServer::start(vec![model], Duration::from_millis(50)).await;
    // A chunk a character, and with each the id: a few fill the client's window, and the stream cannot end unread.
    // The engine makes some 30 chunks ahead of any reader.
    let request_id = "x".repeat(256);
    let output = Some(Output { chunk_chars: Some(1), ..Output::default() });
    let long = GenerateRequest { request_id, output, ..request("a", 1_000_000) };
    let stream = server.client().await.generate(long).await.expect("accepted");
    eventually("text for more than a window", || num_steps.load(SeqCst) > 25).await;
    end(server.stop()).await;
    drop(stream);
}

#[tokio::test]
async fn an_idle_server_stops_and_its_port_is_free() {
    let (server, _model) = TestServer::of(FakeModel::new()).await;
    let address = server.address.trim_start_matches("http://").to_owned();
    let _idle = server.client().await;
    end(server.stop()).await;
    tokio::net::TcpListener::bind(address).await.expect("a free port");
}
