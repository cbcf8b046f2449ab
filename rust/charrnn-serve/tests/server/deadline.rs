//! The caller's deadline ends a text on the server too.

use std::time::Duration;

use charrnn_serve::pb::generate_response::Event;
use charrnn_serve::pb::FinishReason;
use tonic::Request;

use crate::harness::{eventually, letters_after, read_all, request, text, FakeModel, TestServer};

#[tokio::test]
async fn a_text_ends_at_the_callers_deadline_with_what_there_is() {
    let (server, model) = TestServer::of(FakeModel::new()).await;
    let mut asked = Request::new(request("a", 1_000_000));
    asked.set_timeout(Duration::from_millis(500));
    let stream = server.client().await.generate(asked).await.expect("accepted").into_inner();
    let (responses, status) = read_all(stream).await;
    assert!(status.is_none(), "{status:?}");
    let Some(Some(Event::Finished(finished))) = responses.last().map(|response| &response.event) else {
        panic!("no end")
    };
    assert_eq!(finished.reason(), FinishReason::Deadline);
    assert!(finished.chars < 1_000_000);
    assert_eq!(text(&responses), letters_after('a', finished.chars as usize));
    eventually("the slot is free", || model.num_running() == 0).await;
}

#[tokio::test]
async fn a_timeout_that_is_none_is_no_deadline() {
    let (server, _model) = TestServer::of(FakeModel::new()).await;
    for timeout in ["", "5", "x", "-1S", "99999999999S"] {
        let mut asked = Request::new(request("a", 3));
        asked.metadata_mut().insert("grpc-timeout", timeout.parse().expect("ASCII"));
        let stream = server.client().await.generate(asked).await.expect("accepted").into_inner();
        assert_eq!(text(&read_all(stream).await.0), "bcd", "{timeout:?}");
    }
}
