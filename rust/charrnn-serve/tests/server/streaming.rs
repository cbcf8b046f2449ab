//! A text arrives whole and in order, and the models say what they are.

use crate::harness::{
    chunks, letters_after, read_all, request, text, FakeModel, TestServer, PATIENCE, SYMBOLS,
};
use charrnn_core::engine::EngineConfig;
use charrnn_serve::pb::generate_request::Start;
use charrnn_serve::pb::generate_response::Event;
use charrnn_serve::pb::{FinishReason, GenerateRequest, ListModelsRequest, Output, Stopping, TokenIds, Unit};

#[tokio::test]
async fn started_then_chunks_then_finished() {
    let (server, _model) = TestServer::of(FakeModel::new()).await;
    let stream = server.client().await.generate(request("abc", 100)).await.expect("accepted").into_inner();
    let (responses, status) = read_all(stream).await;
    assert!(status.is_none(), "{status:?}");
    assert!(responses.iter().all(|response| response.request_id == "after abc"));
    let Some(Event::Started(started)) = &responses[0].event else { panic!("{responses:?}") };
    assert_eq!((started.model.as_str(), started.prompt_chars), ("fake", 3));
    let Some(Event::Finished(finished)) = &responses[responses.len() - 1].event else {
        panic!("{responses:?}")
    };
    assert_eq!((finished.reason(), finished.chars), (FinishReason::Length, 100));
    let timing = finished.timing.expect("timing");
    assert!(timing.queue_us <= timing.first_char_us && timing.first_char_us <= timing.total_us, "{timing:?}");
    assert_eq!((timing.steps, timing.mean_batch), (102, 1.0));
    assert_eq!(chunks(&responses).len(), responses.len() - 2);
    assert_eq!(text(&responses), letters_after('c', 100));
}

#[tokio::test]
async fn a_stop_string_ends_the_text_and_is_named() {
    let (server, _model) = TestServer::of(FakeModel::new()).await;
    let mut client = server.client().await;
    for (include_stop, expected) in [(false, "bcdefg"), (true, "bcdefghij")] {
        let stopping = Stopping { stop: vec!["hij".to_owned()], include_stop, ..Stopping::default() };
        let request = GenerateRequest { stopping: Some(stopping), ..request("a", 100) };
        let (responses, _) = read_all(client.generate(request).await.expect("accepted").into_inner()).await;
        let Some(Event::Finished(finished)) = &responses[responses.len() - 1].event else { panic!("no end") };
        assert_eq!((finished.reason(), finished.matched_stop()), (FinishReason::Stop, "hij"));
        assert_eq!(text(&responses), expected);
    }
}

#[tokio::test]
async fn chunks_hold_what_the_request_says() {
    let (server, _model) = TestServer::of(FakeModel::new()).await;
    let output = Output { chunk_chars: Some(7), max_chunk_delay_ms: Some(60_000), ..Output::default() };
    let request = GenerateRequest { output: Some(output), ..request("z", 50) };
    let stream = server.client().await.generate(request).await.expect("accepted").into_inner();
    let sizes: Vec<u32> = chunks(&read_all(stream).await.0).iter().map(|chunk| chunk.n).collect();
    // The first character goes at once.
    assert_eq!(sizes, [1, 7, 7, 7, 7, 7, 7, 7]);
}

#[tokio::test]
async fn token_ids_and_an_empty_prompt_start_a_text_too() {
    let (server, _model) = TestServer::of(FakeModel::new()).await;
    let mut client = server.client().await;
    let ids = TokenIds { ids: vec![2, 3] };
    for (start, after) in
        [(Some(Start::PromptIds(ids)), 'd'), (Some(Start::Prompt(String::new())), 'a'), (None, 'a')]
    {
        let request = GenerateRequest { start, ..request("", 5) };
        let (responses, _) = read_all(client.generate(request).await.expect("accepted").into_inner()).await;
        assert_eq!(text(&responses), letters_after(after, 5));
    }
}

#[tokio::test]
async fn the_same_seed_gives_the_same_text_and_another_does_not() {
    let (server, _model) = TestServer::of(FakeModel::new()).await;
    let mut client = server.client().await;
    let mut texts = Vec::new();
    for seed in [Some(7), Some(7), Some(8), None] {
        // At this temperature the distribution is flat.
        let sampling = charrnn_serve::pb::Sampling { temperature: Some(1e9), seed, ..Default::default() };
        let request = GenerateRequest { sampling: Some(sampling), ..request("a", 200) };
        let (responses, _) = read_all(client.generate(request).await.expect("accepted").into_inner()).await;
        let Some(Event::Started(started)) = &responses[0].event else { panic!("no start") };
        assert!(seed.is_none() || seed == Some(started.seed));
        texts.push(text(&responses));
    }
    assert_eq!(texts[0], texts[1]);
    assert_ne!(texts[0], texts[2]);
    assert_ne!(texts[0], texts[3]);
}

#[tokio::test]
async fn models_are_listed_and_asked_for_by_name() {
    let models = ["one", "two"].map(|name| FakeModel::new().into_model(name, EngineConfig::default()));
    let server = TestServer::start(models.to_vec(), PATIENCE).await;
    let mut client = server.client().await;
    let listed = client.list_models(ListModelsRequest {}).await.expect("a list").into_inner().models;
    let names: Vec<&str> = listed.iter().map(|model| model.name.as_str()).collect();
    assert_eq!(names, ["one", "two"]);
    let vocab = listed[0].vocab.as_ref().expect("a vocabulary");
    let symbols: Vec<u32> = SYMBOLS.chars().map(u32::from).collect();
    assert_eq!((vocab.unit(), &vocab.symbols), (Unit::Char, &symbols));
    assert_eq!((listed[0].state_bytes, listed[0].bpc, listed[0].digest.len()), (4, Some(2.5), 64));
    let request = GenerateRequest { model: "two".to_owned(), ..request("a", 1) };
    let (responses, _) = read_all(client.generate(request).await.expect("accepted").into_inner()).await;
    let Some(Event::Started(started)) = &responses[0].event else { panic!("no start") };
    assert_eq!(started.model, "two");
}
