//! Models exchanged under load: every text is that of one model, and what is replaced goes once its texts are over.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{mpsc, Arc, Mutex};
use std::time::Duration;

use charrnn_serve::pb::generate_response::Event;
use charrnn_serve::pb::{
    GenerateRequest, GenerateResponse, GetStatsRequest, ListModelsRequest, LoadModelRequest,
};
use charrnn_serve::{Model, ServeError};
use tonic::Code;

use crate::harness::{
    eventually, letters_by, read_all, request, text, within_patience, FakeModel, TestServer, PATIENCE,
};
use crate::metrics::scrape;

const NUM_SWAPS: usize = 50;
const NUM_CLIENTS: usize = 8;

fn stride(folder: &Path) -> usize {
    folder.to_str().and_then(|name| name.parse().ok()).expect("a number")
}

/// A folder is the stride of its model.
fn by_stride(folder: &Path) -> Result<Model, ServeError> {
    Ok(FakeModel::of_stride(stride(folder)).into_version())
}

async fn serving(stride: usize, drain_timeout: Duration) -> TestServer {
    TestServer::loading(vec![FakeModel::of_stride(stride).into_version()], drain_timeout, by_stride).await
}

fn load(bundle: impl ToString) -> LoadModelRequest {
    LoadModelRequest { bundle: bundle.to_string(), ..LoadModelRequest::default() }
}

fn version(responses: &[GenerateResponse]) -> String {
    match &responses[0].event {
        Some(Event::Started(started)) => started.version.clone(),
        other => panic!("{other:?}"),
    }
}

fn pinned(version: &str, prompt: &str, max_tokens: u32) -> GenerateRequest {
    GenerateRequest { version: Some(version.to_owned()), ..request(prompt, max_tokens) }
}

async fn versions(server: &TestServer) -> Vec<String> {
    let models = server.client().await.list_models(ListModelsRequest {}).await.expect("models").into_inner();
    models.models.into_iter().map(|model| model.version).collect()
}

#[tokio::test]
async fn under_load_every_text_is_that_of_the_version_it_began_on() {
    let server = serving(1, PATIENCE).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut readers = tokio::task::JoinSet::new();
    for i in 0..NUM_CLIENTS {
        let (mut client, is_over) = (server.client().await, Arc::clone(&is_over));
        readers.spawn(async move {
            let mut seen = std::collections::BTreeSet::new();
            while !is_over.load(SeqCst) {
                let (prompt, len) = (char::from(b'a' + i as u8), 20 + 60 * (i % 3));
                let stream =
                    client.generate(request(&prompt.to_string(), len as u32)).await.expect("accepted");
                let (responses, status) = read_all(stream.into_inner()).await;
                assert!(status.is_none(), "{status:?}");
                let version = version(&responses);
                let stride = version.parse().expect("a stride");
                assert_eq!(text(&responses), letters_by(stride, prompt, len));
                seen.insert(version);
            }
            seen
        });
    }
    let mut admin = server.admin().await;
    for swap in 1..=NUM_SWAPS {
        let loaded = admin.load_model(load(1 + swap % 25)).await.expect("loaded").into_inner();
        assert_eq!(loaded.model.expect("a model").version, (1 + swap % 25).to_string());
        assert_eq!(loaded.replaced, Some((1 + (swap - 1) % 25).to_string()));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    is_over.store(true, SeqCst);
    let seen = readers.join_all().await.into_iter().flatten().collect::<std::collections::BTreeSet<_>>();
    assert!(seen.len() > 10, "{seen:?}");
    let mut left = versions(&server).await;
    while left.len() > 1 {
        tokio::task::yield_now().await;
        left = versions(&server).await;
    }
    assert_eq!(left, [(1 + NUM_SWAPS % 25).to_string()]);
}

#[tokio::test]
async fn a_load_that_fails_changes_nothing_and_is_counted() {
    let fail = |folder: &Path| match folder.to_str() {
        Some("panics") => panic!("as the test asks"),
        _ => Err(ServeError::DuplicateModel("x".to_owned())),
    };
    let models = vec![FakeModel::of_stride(3).into_version()];
    let server = TestServer::loading(models, PATIENCE, fail).await;
    let mut admin = server.admin().await;
    for folder in ["damaged", "panics"] {
        let status = admin.load_model(load(folder)).await.expect_err("cannot be loaded");
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    }
    assert_eq!(scrape(&server).await["charrnn_model_reload_failures_total"], 2.0);
    assert_eq!(versions(&server).await, ["3"]);
    let (responses, status) =
        read_all(server.client().await.generate(request("a", 9)).await.expect("served").into_inner()).await;
    assert!(status.is_none());
    assert_eq!(text(&responses), letters_by(3, 'a', 9));
}

#[tokio::test]
async fn a_bundle_of_another_name_than_asked_for_is_not_loaded() {
    let server = serving(1, PATIENCE).await;
    let asked = LoadModelRequest { model: "other".to_owned(), ..load(2) };
    let status = server.admin().await.load_model(asked).await.expect_err("another");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("\"fake\", not \"other\""), "{}", status.message());
    assert_eq!(versions(&server).await, ["1"]);
}

#[tokio::test]
async fn without_a_bundle_it_is_loaded_from_where_it_came() {
    let server = serving(1, PATIENCE).await;
    let again = LoadModelRequest { model: "fake".to_owned(), ..LoadModelRequest::default() };
    let status = server.admin().await.load_model(again.clone()).await.expect_err("from nowhere");
    assert_eq!(status.code(), Code::NotFound);
    server.admin().await.load_model(load(2)).await.expect("loaded");
    let loaded = server.admin().await.load_model(again).await.expect("loaded").into_inner();
    assert_eq!(loaded.replaced.as_deref(), Some("2"));
}

#[tokio::test]
async fn of_two_loads_at_once_the_last_one_asked_for_stays() {
    let (begin, begun) = mpsc::channel();
    let (permit, permits) = mpsc::channel::<()>();
    let permits = Mutex::new(permits);
    let slow = move |folder: &Path| {
        begin.send(stride(folder)).expect("the test waits");
        permits.lock().expect("no panic").recv().expect("the test permits");
        by_stride(folder)
    };
    let models = vec![FakeModel::of_stride(1).into_version()];
    let server = TestServer::loading(models, PATIENCE, slow).await;
    let ask = |stride: usize, mut admin: charrnn_serve::pb::admin_client::AdminClient<_>| {
        tokio::spawn(async move { admin.load_model(load(stride)).await.expect("loaded").into_inner() })
    };
    let first = ask(2, server.admin().await);
    let begun =
        tokio::task::spawn_blocking(move || begun.recv_timeout(PATIENCE).map(|stride| (stride, begun)));
    let (stride, begun) = begun.await.expect("no panic").expect("begun");
    assert_eq!(stride, 2);
    let second = ask(3, server.admin().await);
    assert_eq!(versions(&server).await, ["1"]);
    permit.send(()).expect("the load waits");
    permit.send(()).expect("the load waits");
    let (first, second) = (first.await.expect("no panic"), second.await.expect("no panic"));
    assert_eq!((first.replaced.as_deref(), second.replaced.as_deref()), (Some("1"), Some("2")));
    assert_eq!(begun.recv_timeout(PATIENCE), Ok(3));
    let (responses, _) =
        read_all(server.client().await.generate(request("a", 5)).await.expect("served").into_inner()).await;
    assert_eq!(version(&responses), "3");
}

#[tokio::test]
async fn a_version_can_be_asked_for_until_its_texts_are_over() {
    let (fake, permits) = FakeModel::gated();
    let num_steps = fake.num_steps();
    let server = TestServer::loading(vec![fake.into_version()], PATIENCE, by_stride).await;
    let mut client = server.client().await;
    let old = client.generate(request("a", 30)).await.expect("accepted").into_inner();
    let status = client.generate(pinned("2", "a", 3)).await.expect_err("not there yet");
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("served as \"1\""), "{}", status.message());
    server.admin().await.load_model(load(2)).await.expect("loaded");
    assert_eq!(versions(&server).await, ["2", "1"]);
    let also_old = client.generate(pinned("1", "b", 5)).await.expect("still there").into_inner();
    let new = client.generate(request("a", 5)).await.expect("accepted").into_inner();
    assert_eq!(text(&read_all(new).await.0), letters_by(2, 'a', 5));
    let by_version = client.get_stats(GetStatsRequest { model: "fake".to_owned() }).await.expect("stats");
    let by_version = by_version.into_inner().models.into_iter().map(|stats| (stats.version, stats.running));
    let running: Vec<_> = by_version.filter(|(_, running)| *running > 0).collect();
    assert_eq!(running.len(), 1, "{running:?}");
    drop(permits);
    assert_eq!(text(&read_all(old).await.0), letters_by(1, 'a', 30));
    assert_eq!(text(&read_all(also_old).await.0), letters_by(1, 'b', 5));
    eventually("the old one is gone, threads and all", || Arc::strong_count(&num_steps) == 1).await;
    let status = client.generate(pinned("1", "a", 3)).await.expect_err("gone");
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(versions(&server).await, ["2"]);
}

#[tokio::test]
async fn texts_that_do_not_end_in_time_are_ended_and_the_old_one_goes() {
    let fake = FakeModel::new();
    let num_steps = fake.num_steps();
    let server = TestServer::loading(vec![fake.into_version()], Duration::from_millis(50), by_stride).await;
    // Nobody reads it, so it is parked before its million characters are done.
    let mut client = server.client().await;
    let endless = client.generate(request("a", 1_000_000)).await.expect("accepted").into_inner();
    server.admin().await.load_model(load(2)).await.expect("loaded");
    eventually("the old one is gone", || Arc::strong_count(&num_steps) == 1).await;
    let (responses, status) = read_all(endless).await;
    assert_eq!(status.expect("not finished").code(), Code::Unavailable);
    let text = text(&responses);
    assert_eq!(text, letters_by(1, 'a', text.len()));
}

#[tokio::test]
async fn counters_of_a_name_go_on_when_its_model_goes() {
    let fake = FakeModel::new();
    let num_steps = fake.num_steps();
    let server = TestServer::loading(vec![fake.into_version()], PATIENCE, by_stride).await;
    let mut client = server.client().await;
    for len in [40, 2] {
        read_all(client.generate(request("a", len)).await.expect("accepted").into_inner()).await;
        server.admin().await.load_model(load(2)).await.expect("loaded");
    }
    eventually("the first one is gone", || Arc::strong_count(&num_steps) == 1).await;
    let settled = || async {
        let found = scrape(&server).await;
        (found["charrnn_chars_total{model=\"fake\"}"], found["charrnn_slots{model=\"fake\"}"])
    };
    let all_gone = async {
        while settled().await.1 > 64.0 {
            tokio::task::yield_now().await;
        }
    };
    within_patience(all_gone).await;
    assert_eq!(settled().await.0, 42.0);
}

/// A load goes on if whoever asked for it goes away.
#[tokio::test]
async fn a_load_is_done_even_if_nobody_waits_for_it() {
    let loads = Arc::new(AtomicU64::new(0));
    let (permit, permits) = mpsc::channel::<()>();
    let (permits, counted) = (Mutex::new(permits), Arc::clone(&loads));
    let slow = move |folder: &Path| {
        counted.fetch_add(1, SeqCst);
        permits.lock().expect("no panic").recv().expect("the test permits");
        by_stride(folder)
    };
    let models = vec![FakeModel::of_stride(1).into_version()];
    let server = TestServer::loading(models, PATIENCE, slow).await;
    let mut admin = server.admin().await;
    let asked = tokio::spawn(async move { admin.load_model(load(2)).await });
    eventually("it is being loaded", || loads.load(SeqCst) == 1).await;
    asked.abort();
    drop(asked.await);
    permit.send(()).expect("the load waits");
    let swapped = async {
        while versions(&server).await != ["2"] {
            tokio::task::yield_now().await;
        }
    };
    within_patience(swapped).await;
}
