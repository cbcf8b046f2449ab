//! Many texts on one call: each is what it is alone, and what befalls one is no other's business.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::harness::{
    eventually, letters_after, request, text, within_patience, FakeModel, TestServer, PATIENCE, SYMBOLS,
};
use charrnn_core::engine::EngineConfig;
use charrnn_serve::pb::generate_response::Event;
use charrnn_serve::pb::{FinishReason, GenerateRequest, GenerateResponse, Refused, Sampling};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

/// A call that is open on both sides.
struct Call {
    requests: mpsc::Sender<GenerateRequest>,
    responses: Streaming<GenerateResponse>,
    /// What came of other texts before a refusal.
    passed: Vec<GenerateResponse>,
}

impl Call {
    async fn open(server: &TestServer) -> Call {
        Call::with_timeout(server, None).await
    }

    async fn with_timeout(server: &TestServer, timeout: Option<Duration>) -> Call {
        let (requests, receiver) = mpsc::channel(1);
        let mut request = Request::new(ReceiverStream::new(receiver));
        timeout.into_iter().for_each(|timeout| request.set_timeout(timeout));
        let answer = server.client().await.generate_many(request).await.expect("a call");
        Call { requests, responses: answer.into_inner(), passed: Vec::new() }
    }

    async fn ask(&self, request: GenerateRequest) {
        self.requests.send(request).await.expect("an open call");
    }

    async fn next(&mut self) -> GenerateResponse {
        within_patience(self.responses.message()).await.expect("no status yet").expect("not over")
    }

    /// What comes until the text of that id has begun.
    async fn until_started(&mut self, id: &str) {
        while !matches!(self.next().await, GenerateResponse { request_id, event: Some(Event::Started(_)) } if request_id == id)
        {
        }
    }

    /// What comes until something is refused, and whose it is.
    async fn until_refused(&mut self) -> (String, Refused) {
        loop {
            let response = self.next().await;
            if let Some(Event::Refused(refused)) = response.event {
                self.passed.retain(|passed| passed.request_id != response.request_id);
                return (response.request_id, refused);
            }
            self.passed.push(response);
        }
    }

    /// Half-closes; all that comes then by id, after what came before a refusal, and how the call ended.
    async fn finish(self) -> (HashMap<String, Vec<GenerateResponse>>, Option<Status>) {
        let Call { requests, mut responses, passed } = self;
        drop(requests);
        let mut by_id: HashMap<String, Vec<GenerateResponse>> = HashMap::new();
        passed
            .into_iter()
            .for_each(|response| by_id.entry(response.request_id.clone()).or_default().push(response));
        loop {
            match within_patience(responses.message()).await {
                Ok(Some(response)) => {
                    by_id.entry(response.request_id.clone()).or_default().push(response);
                }
                Ok(None) => return (by_id, None),
                Err(status) => return (by_id, Some(status)),
            }
        }
    }
}

fn with_id(id: &str, request: GenerateRequest) -> GenerateRequest {
    GenerateRequest { request_id: id.to_owned(), ..request }
}

fn cancel(id: &str) -> GenerateRequest {
    GenerateRequest { request_id: id.to_owned(), cancel: true, ..GenerateRequest::default() }
}

fn is_started(response: &GenerateResponse) -> bool {
    matches!(response.event, Some(Event::Started(_)))
}

fn reason(response: Option<&GenerateResponse>) -> Option<FinishReason> {
    match response.and_then(|response| response.event.as_ref()) {
        Some(Event::Finished(finished)) => Some(finished.reason()),
        _ => None,
    }
}

/// The last letter of the prompt of the `i`-th of many texts, and how long that text is.
fn shape(i: usize) -> (char, usize) {
    (SYMBOLS.as_bytes()[i % SYMBOLS.len()].into(), 50 + i)
}

#[tokio::test]
async fn each_of_500_texts_is_what_it_is_alone() {
    let (server, model) = TestServer::of(FakeModel::new()).await;
    let call = Call::open(&server).await;
    let requests = call.requests.clone();
    let asking = tokio::spawn(async move {
        for i in 0..500 {
            let (letter, len) = shape(i);
            let asked = with_id(&i.to_string(), request(&letter.to_string(), len as u32));
            requests.send(asked).await.expect("an open call");
        }
    });
    let (by_id, status) = call.finish().await;
    assert!(status.is_none(), "{status:?}");
    asking.await.expect("all asked for");
    assert_eq!(by_id.len(), 500);
    for (id, responses) in by_id {
        let (letter, len) = shape(id.parse().expect("a number"));
        assert_eq!(text(&responses), letters_after(letter, len), "text {id}");
        assert_eq!(responses.iter().filter(|&response| is_started(response)).count(), 1);
        assert!(is_started(&responses[0]));
        assert_eq!(reason(responses.last()), Some(FinishReason::Length));
    }
    eventually("nothing is left", || model.num_running() + model.num_waiting() == 0).await;
}

#[tokio::test]
async fn a_refused_request_ends_neither_the_call_nor_another_text() {
    let (fake, permits) = FakeModel::gated();
    let (server, _model) = TestServer::of(fake).await;
    let mut call = Call::open(&server).await;
    call.ask(with_id("good", request("a", 40))).await;
    call.until_started("good").await;
    let hot = Sampling { temperature: Some(-1.0), ..Sampling::default() };
    let regex = Sampling { regex: Some("(".to_owned()), ..Sampling::default() };
    let unknown = GenerateRequest { model: "other".to_owned(), ..request("a", 1) };
    let long = "x".repeat(257);
    let bad = [
        (
            "hot",
            GenerateRequest { sampling: Some(hot), ..request("a", 1) },
            Code::InvalidArgument,
            "BAD_REQUEST",
        ),
        (
            "regex",
            GenerateRequest { sampling: Some(regex), ..request("a", 1) },
            Code::InvalidArgument,
            "BAD_REQUEST",
        ),
        ("unknown", unknown, Code::NotFound, "UNKNOWN_MODEL"),
        ("", request("a", 1), Code::InvalidArgument, "BAD_REQUEST"),
        (&long, request("a", 1), Code::InvalidArgument, "BAD_REQUEST"),
        ("good", request("a", 1), Code::InvalidArgument, "REQUEST_ID_IN_USE"),
    ];
    for (id, request, code, reason) in bad {
        call.ask(with_id(id, request)).await;
        let (refused_id, refused) = call.until_refused().await;
        assert_eq!((refused_id.as_str(), refused.code, refused.reason.as_str()), (id, code as i32, reason));
        assert!(!refused.message.is_empty());
    }
    drop(permits);
    let (by_id, status) = call.finish().await;
    assert!(status.is_none(), "{status:?}");
    assert_eq!(by_id.keys().collect::<Vec<_>>(), ["good"]);
    assert_eq!(text(&by_id["good"]), letters_after('a', 40));
}

#[tokio::test]
async fn a_cancelled_text_leaves_at_once_and_its_id_is_free() {
    let (fake, permits) = FakeModel::gated();
    let (server, model) = TestServer::of(fake).await;
    let mut call = Call::open(&server).await;
    call.ask(cancel("a")).await;
    for (num_texts, id) in [(1, "a"), (2, "b")] {
        call.ask(with_id(id, request(id, 30))).await;
        eventually("it is there", || model.num_running() + model.num_waiting() == num_texts).await;
        // The model may be in a step, which waits for this.
        permits.send(()).expect("a model");
        call.until_started(id).await;
    }
    call.ask(cancel("a")).await;
    let (id, refused) = call.until_refused().await;
    assert_eq!(
        (id.as_str(), refused.code, refused.reason.as_str()),
        ("a", Code::Cancelled as i32, "CANCELLED")
    );
    call.ask(with_id("a", request("m", 30))).await;
    drop(permits);
    let (by_id, status) = call.finish().await;
    assert!(status.is_none(), "{status:?}");
    assert_eq!((text(&by_id["a"]), text(&by_id["b"])), (letters_after('m', 30), letters_after('b', 30)));
    eventually("all three are over", || model.stats().ended.iter().sum::<u64>() == 3).await;
}

#[tokio::test]
async fn an_id_may_come_again_once_its_text_has_ended() {
    let (server, _model) = TestServer::of(FakeModel::new()).await;
    let mut call = Call::open(&server).await;
    for len in 1..200 {
        call.ask(with_id("again", request("a", len))).await;
        let mut responses = Vec::new();
        while reason(responses.last()).is_none() {
            responses.push(call.next().await);
        }
        assert_eq!(text(&responses), letters_after('a', len as usize));
    }
}

#[tokio::test]
async fn a_call_has_so_many_texts_and_no_more() {
    let (fake, permits) = FakeModel::gated();
    let config = EngineConfig { max_streams: 1, max_queue: 2_000, ..EngineConfig::default() };
    let model = fake.into_model("fake", config);
    let server = TestServer::start(vec![model.clone()], PATIENCE).await;
    let mut call = Call::open(&server).await;
    for i in 0..1024 {
        call.ask(with_id(&i.to_string(), request("a", 1))).await;
    }
    call.ask(with_id("more", request("a", 1))).await;
    let (id, refused) = call.until_refused().await;
    assert_eq!((id.as_str(), refused.code), ("more", Code::ResourceExhausted as i32));
    assert_eq!(refused.reason, "TOO_MANY_TEXTS");
    drop(permits);
    let (by_id, status) = call.finish().await;
    assert!(status.is_none(), "{status:?}");
    assert!(by_id.values().all(|responses| text(responses) == "b"));
    assert_eq!(by_id.len(), 1024);
}

#[tokio::test]
async fn a_reader_that_takes_nothing_parks_the_texts_of_its_call_alone() {
    const LONG: u32 = 50_000;
    let (server, model) = TestServer::of(FakeModel::new()).await;
    let slow = Call::open(&server).await;
    for id in ["a", "b", "c"] {
        slow.ask(with_id(id, request(id, LONG))).await;
    }
    eventually("they run", || model.num_running() == 3).await;
    let quick = Call::open(&server).await;
    quick.ask(with_id("m", request("m", LONG))).await;
    assert_eq!(text(&quick.finish().await.0["m"]), letters_after('m', LONG as usize));
    eventually("they are parked", || model.stats().parked == 3).await;
    let (by_id, status) = slow.finish().await;
    assert!(status.is_none(), "{status:?}");
    for id in ['a', 'b', 'c'] {
        assert_eq!(text(&by_id[&id.to_string()]), letters_after(id, LONG as usize));
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_cancels_its_texts() {
    let (server, model) = TestServer::of(FakeModel::new()).await;
    let call = Call::open(&server).await;
    for i in 0..20 {
        call.ask(with_id(&i.to_string(), request("a", 1_000_000))).await;
    }
    eventually("they run", || model.num_running() == 20).await;
    drop(call);
    eventually("no text is left", || model.num_running() + model.num_waiting() == 0).await;
}

#[tokio::test]
async fn the_deadline_of_a_call_is_that_of_its_texts() {
    let (server, _model) = TestServer::of(FakeModel::new()).await;
    let call = Call::with_timeout(&server, Some(Duration::from_millis(300))).await;
    for id in ["a", "b"] {
        call.ask(with_id(id, request(id, 1_000_000))).await;
    }
    let (by_id, _) = call.finish().await;
    for id in ['a', 'b'] {
        let responses = &by_id[&id.to_string()];
        let text = text(responses);
        assert_eq!(reason(responses.last()), Some(FinishReason::Deadline));
        assert_eq!(text, letters_after(id, text.len()));
    }
}

#[tokio::test]
async fn texts_finish_when_the_server_stops_and_an_idle_call_ends() {
    let (fake, permits) = FakeModel::gated();
    let (server, _model) = TestServer::of(fake).await;
    let mut call = Call::open(&server).await;
    call.ask(with_id("a", request("a", 40))).await;
    call.until_started("a").await;
    let ended = server.stop();
    let mut refused = HashSet::new();
    for i in 0.. {
        // Admission stops a moment after the signal; what was admitted before that waits for a permit.
        call.ask(with_id(&i.to_string(), request("b", 1))).await;
        if let (_, Some(Event::Refused(refusal))) = (i, call.next().await.event) {
            refused.insert(refusal.reason);
            break;
        }
    }
    assert_eq!(refused, HashSet::from(["STOPPING".to_owned()]));
    drop(permits);
    let Call { requests, mut responses, .. } = call;
    let mut got = Vec::new();
    let status = loop {
        match within_patience(responses.message()).await {
            Ok(response) => got.push(response.expect("not half-closed")),
            Err(status) => break status,
        }
    };
    drop(requests);
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    got.retain(|response| response.request_id == "a");
    assert_eq!(text(&got), letters_after('a', 40));
    within_patience(ended).await.expect("no panic").expect("an orderly end");
}

#[tokio::test]
async fn an_oversize_message_ends_the_call_and_not_the_connection() {
    let (server, _model) = TestServer::of(FakeModel::new()).await;
    let call = Call::open(&server).await;
    call.ask(with_id("big", request(&"a".repeat(2 << 20), 1))).await;
    let (_, status) = call.finish().await;
    let status = status.expect("2 MiB");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
}
