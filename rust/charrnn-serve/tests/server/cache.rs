//! A prompt that was read before is told to be, and counted.

use charrnn_core::engine::EngineConfig;
use charrnn_serve::pb::generate_response::Event;
use charrnn_serve::pb::GetStatsRequest;

use crate::harness::{letters_after, read_all, request, text, FakeModel, TestServer, PATIENCE};

#[tokio::test]
async fn a_prompt_is_read_once() {
    let config = EngineConfig { prompt_cache_bytes: 1 << 20, ..EngineConfig::default() };
    let model = FakeModel::new().into_model("fake", config);
    let server = TestServer::start(vec![model], PATIENCE).await;
    let mut client = server.client().await;
    for cached in [0, 25, 25] {
        let asked = request("abcdefghijklmnopqrstuvwxyz", 30);
        let stream = client.generate(asked).await.expect("accepted").into_inner();
        let (responses, _) = read_all(stream).await;
        assert_eq!(text(&responses), letters_after('z', 30));
        let Some(Event::Started(started)) = &responses[0].event else { panic!("no start") };
        assert_eq!((started.prompt_chars, started.cached_chars), (26, cached));
        let Some(Some(Event::Finished(finished))) = responses.last().map(|last| &last.event) else {
            panic!("no end")
        };
        let steps = finished.timing.as_ref().expect("timing").steps;
        assert_eq!(steps, u64::from(26 - cached) + 30 - 1);
    }
    let stats = client.get_stats(GetStatsRequest::default()).await.expect("told").into_inner().models;
    assert_eq!((stats[0].prompt_cache_hits, stats[0].prompt_cache_misses), (2, 1));
    assert!(stats[0].prompt_cache_bytes > 0);
}
