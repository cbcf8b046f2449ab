//! Tokens, and what one client may take from others.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use charrnn_core::engine::EngineConfig;
use charrnn_serve::pb::char_rnn_client::CharRnnClient;
use charrnn_serve::pb::generate_response::Event;
use charrnn_serve::pb::{GenerateRequest, GenerateResponse, ListModelsRequest};
use charrnn_serve::{Access, AccessOptions, FileError};
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tonic_types::StatusExt;

use crate::harness::{eventually, read_all, request, text, within_patience, FakeModel, TestServer, PATIENCE};

const GREEDY: &str = "greedy-0123456789abcdef";
const POLITE: &str = "polite-0123456789abcdef";

/// A file that this user alone may read, of a name that no other test has.
fn secret(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("charrnn-{}-{name}", std::process::id()));
    fs::write(&path, text).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("our file");
    path
}

fn tokens(name: &str, max_streams_per_client: Option<usize>) -> Access {
    let text = format!("# clients\n\ngreedy:{GREEDY}\n  polite:{POLITE}\n");
    let token_file = Some(secret(name, &text));
    Access::load(AccessOptions { token_file, max_streams_per_client, ..AccessOptions::default() })
        .expect("two tokens")
}

fn signed<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("ASCII"));
    request
}

async fn generate(
    client: &mut CharRnnClient<Channel>,
    token: &str,
    prompt: &str,
) -> Result<Streaming<GenerateResponse>, Status> {
    client.generate(signed(request(prompt, 3), token)).await.map(tonic::Response::into_inner)
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().expect("an ErrorInfo").reason
}

#[tokio::test]
async fn a_request_needs_a_token_that_is_known() {
    let model = FakeModel::new().into_model("fake", EngineConfig::default());
    let server = TestServer::start_with(tokens("known", None), vec![model], PATIENCE).await;
    let mut client = server.client().await;
    let none = client.list_models(ListModelsRequest {}).await.expect_err("no token");
    assert_eq!((none.code(), reason(&none).as_str()), (Code::Unauthenticated, "NO_TOKEN"));
    for wrong in ["wrong-0123456789abcdef", &GREEDY[1..], "greedy", &format!("{GREEDY}x")] {
        let refused = client.list_models(signed(ListModelsRequest {}, wrong)).await.expect_err("unknown");
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, "WRONG_TOKEN"));
        assert!(!refused.message().contains(wrong) || wrong == "greedy");
    }
    let mut twice = signed(ListModelsRequest {}, GREEDY);
    twice.metadata_mut().append("authorization", format!("Bearer {POLITE}").parse().expect("ASCII"));
    assert_eq!(client.list_models(twice).await.expect_err("two").code(), Code::Unauthenticated);
    for token in [GREEDY, POLITE] {
        client.list_models(signed(ListModelsRequest {}, token)).await.expect("known");
    }
}

#[tokio::test]
async fn failures_beyond_the_limit_are_told_so_and_the_right_token_still_passes() {
    let model = FakeModel::new().into_model("fake", EngineConfig::default());
    let server = TestServer::start_with(tokens("limit", None), vec![model], PATIENCE).await;
    let mut client = server.client().await;
    let mut reasons = Vec::new();
    // Each second forgives one; a thousand in much less than a thousand seconds are too many.
    while reasons.last().map(String::as_str) != Some("TOO_MANY_FAILURES") && reasons.len() < 1000 {
        let wrong = client.list_models(signed(ListModelsRequest {}, "wrong-0123456789abcdef")).await;
        reasons.push(reason(&wrong.expect_err("unknown")));
    }
    assert!(reasons.len() > 10, "{reasons:?}");
    assert_eq!(reasons.last().map(String::as_str), Some("TOO_MANY_FAILURES"));
    client
        .list_models(signed(ListModelsRequest {}, GREEDY))
        .await
        .expect("its neighbour's guesses are not its");
}

#[tokio::test]
async fn a_client_has_a_cap_of_its_own() {
    let (fake, permits) = FakeModel::gated();
    let model = fake.into_model("fake", EngineConfig::default());
    let server = TestServer::start_with(tokens("cap", Some(2)), vec![model], PATIENCE).await;
    let mut client = server.client().await;
    let mut first = Vec::new();
    for _ in 0..2 {
        first.push(generate(&mut client, GREEDY, "a").await.expect("within the cap"));
    }
    let full = generate(&mut client, GREEDY, "a").await.expect_err("beyond the cap");
    assert_eq!((full.code(), reason(&full).as_str()), (Code::ResourceExhausted, "CLIENT_FULL"));
    assert!(full.get_details_retry_info().is_some());
    let other = generate(&mut client, POLITE, "b").await.expect("its own cap");
    drop(permits);
    assert_eq!(text(&read_all(other).await.0), "cde");
    for stream in first {
        assert_eq!(text(&read_all(stream).await.0), "bcd");
    }
    let again = generate(&mut client, GREEDY, "c").await.expect("room again");
    assert_eq!(text(&read_all(again).await.0), "def");
}

#[tokio::test]
async fn the_cap_is_for_texts_of_one_call_too() {
    let (fake, permits) = FakeModel::gated();
    let model = fake.into_model("fake", EngineConfig::default());
    let server = TestServer::start_with(tokens("many", Some(2)), vec![model], PATIENCE).await;
    let texts = ["a", "b", "c"].map(|id| GenerateRequest { request_id: id.to_owned(), ..request("a", 3) });
    let call = signed(tokio_stream::iter(texts), GREEDY);
    let mut answers = server.client().await.generate_many(call).await.expect("a token").into_inner();
    let mut refused = None;
    while refused.is_none() {
        let answer = within_patience(answers.message()).await.expect("no error").expect("not over");
        refused = match answer.event {
            Some(Event::Refused(refusal)) => Some((answer.request_id, refusal.reason)),
            _ => None,
        };
    }
    assert_eq!(refused, Some(("c".to_owned(), "CLIENT_FULL".to_owned())));
    drop(permits);
    let (rest, _) = read_all(answers).await;
    let ends = rest.iter().filter(|answer| matches!(answer.event, Some(Event::Finished(_))));
    assert_eq!(ends.count(), 2);
}

#[tokio::test]
async fn a_cancelled_text_gives_its_place_back() {
    let (fake, _permits) = FakeModel::gated();
    let model = fake.into_model("fake", EngineConfig::default());
    let server = TestServer::start_with(tokens("cancel", Some(1)), vec![model.clone()], PATIENCE).await;
    let mut client = server.client().await;
    drop(generate(&mut client, GREEDY, "a").await.expect("within the cap"));
    let waited = async {
        while generate(&mut client, GREEDY, "a").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.expect("its place comes back");
}

#[tokio::test]
async fn a_greedy_client_leaves_turns_to_a_polite_one() {
    let (fake, permits) = FakeModel::gated();
    let config = EngineConfig { max_streams: 1, max_queue: 1000, ..EngineConfig::default() };
    let model = fake.into_model("fake", config);
    let server = TestServer::start_with(tokens("turns", None), vec![model.clone()], PATIENCE).await;
    let mut client = server.client().await;
    let mut greedy = Vec::new();
    for _ in 0..200 {
        greedy.push(generate(&mut client, GREEDY, "a").await.expect("room"));
    }
    let polite = generate(&mut client, POLITE, "b").await.expect("room");
    eventually("all have come", || model.num_running() == 1 && model.num_waiting() == 200).await;
    // The first runs and the next may have been taken in before the polite one came: nine steps are enough for three.
    (0..9).for_each(|_| permits.send(()).expect("the model waits"));
    assert_eq!(text(&read_all(polite).await.0), "cde");
    assert!(model.num_waiting() >= 197);
}

#[test]
fn what_is_no_list_of_tokens_is_told_without_its_tokens() {
    let wrong = [
        ("", "no token"),
        ("# only a comment\n", "no token"),
        ("short", "line 1"),
        ("ok:0123456789abcdef\na b:0123456789abcdef", "line 2"),
        (":0123456789abcdef", "line 1"),
        ("name:0123456789abcd\u{e9}f", "line 1"),
    ];
    for (number, (text, expected)) in wrong.into_iter().enumerate() {
        let token_file = Some(secret(&format!("wrong-{number}"), text));
        let error = Access::load(AccessOptions { token_file, ..AccessOptions::default() }).expect_err(text);
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!error.to_string().contains("0123456789"), "{error}");
    }
}

#[test]
fn a_list_that_others_may_read_is_refused() {
    let path = secret("exposed", "0123456789abcdef");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("our file");
    let error = Access::load(AccessOptions { token_file: Some(path.clone()), ..AccessOptions::default() });
    assert!(matches!(error, Err(FileError::Exposed { mode: 0o640, .. })), "{error:?}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("our file");
    Access::load(AccessOptions { token_file: Some(path), ..AccessOptions::default() }).expect("ours alone");
}
