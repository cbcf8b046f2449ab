//! A model that fails ends its streams with INTERNAL and serves the next ones.

use crate::harness::{letters_after, read_all, request, text, FakeModel, TestServer};
use tonic::Code;

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
