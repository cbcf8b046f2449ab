//! The metrics listener: what Prometheus reads is what `GetStats` says, in a fixed set of series.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;

use charrnn_core::engine::EngineConfig;
use charrnn_core::meter::Outcome;
use charrnn_serve::pb::{GenerateRequest, GetStatsRequest, Histogram, Sampling};

use crate::harness::{eventually, read_all, request, within_patience, FakeModel, TestServer, PATIENCE};

/// Connections that the listener holds at once.
const MAX_CONNECTIONS: usize = 16;

/// Sends `text` and reads until the server closes.
async fn exchange(address: &str, text: String) -> String {
    let address = address.to_owned();
    let talk = move || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(text.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    tokio::task::spawn_blocking(talk).await.expect("no panic").expect("an answer")
}

async fn get(address: &str, path: &str) -> (String, String) {
    let answer = exchange(address, format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.to_owned(), body.to_owned())
}

async fn status(address: &str, path: &str) -> u16 {
    status_of(&get(address, path).await.0)
}

fn status_of(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status")
}

/// Series and their values; a series is its name and labels as written.
pub(crate) async fn scrape(server: &TestServer) -> BTreeMap<String, f64> {
    let (head, body) = get(&server.metrics, "/metrics").await;
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(body.ends_with('\n'));
    let samples = body.lines().filter(|line| !line.starts_with("# ")).map(|line| {
        let (series, value) = line.rsplit_once(' ').expect("a series and a value");
        (series.to_owned(), value.parse().expect("a number"))
    });
    let all: Vec<(String, f64)> = samples.collect();
    let found: BTreeMap<_, _> = all.iter().cloned().collect();
    assert_eq!(found.len(), all.len(), "a series stands twice");
    found
}

fn labels(series: &str) -> Vec<(&str, &str)> {
    let Some((_, labels)) = series.split_once('{') else { return Vec::new() };
    let pairs = labels.trim_end_matches('}').split(',');
    pairs.map(|pair| pair.split_once('=').expect("a label")).map(|(k, v)| (k, v.trim_matches('"'))).collect()
}

#[tokio::test]
async fn what_is_scraped_is_what_get_stats_says() {
    let (server, model) = TestServer::of(FakeModel::new()).await;
    let mut client = server.client().await;
    for _ in 0..3 {
        read_all(client.generate(request("ab", 40)).await.expect("accepted").into_inner()).await;
    }
    eventually("all are over", || model.num_running() == 0).await;
    let found = scrape(&server).await;
    let said = client.get_stats(GetStatsRequest::default()).await.expect("stats").into_inner();
    let [said] = &said.models[..] else { panic!("one model") };
    let one = |name: &str| found[&format!("charrnn_{name}{{model=\"fake\"}}")];
    assert_eq!((one("slots"), one("active_streams"), one("queue_depth")), (f64::from(said.slots), 0.0, 0.0));
    assert_eq!((one("chars_total"), one("cancelled_total"), one("parked_streams")), (120.0, 0.0, 0.0));
    for (reason, &count) in &said.ended {
        let series = format!("charrnn_requests_total{{model=\"fake\",reason=\"{reason}\"}}");
        assert_eq!(found[&series], count as f64, "{reason}");
    }
    for (cause, &count) in &said.rejected {
        let series = format!("charrnn_rejected_total{{model=\"fake\",cause=\"{cause}\"}}");
        assert_eq!(found[&series], count as f64, "{cause}");
    }
    let same = |name: &str, histogram: &Option<Histogram>, per: f64| {
        let histogram = histogram.as_ref().expect("always there");
        let count: u64 = histogram.counts.iter().sum();
        assert!(count > 0, "{name}");
        assert_eq!(one(&format!("{name}_count")), count as f64, "{name}");
        assert_eq!(one(&format!("{name}_sum")), histogram.sum as f64 / per, "{name}");
        assert_eq!(found[&format!("charrnn_{name}_bucket{{model=\"fake\",le=\"+Inf\"}}")], count as f64);
    };
    same("step_seconds", &said.step, 1e9);
    same("sample_seconds", &said.sample, 1e9);
    same("send_stall_seconds", &said.send, 1e9);
    same("queue_seconds", &said.queue, 1e9);
    same("first_char_seconds", &said.first_char, 1e9);
    same("inter_char_seconds", &said.inter_char, 1e9);
    same("batch_size", &said.batch, 1.0);
    same("chunk_chars", &said.chunk_chars, 1.0);
}

#[tokio::test]
async fn every_family_has_its_type_and_buckets_grow() {
    let (server, _model) = TestServer::of(FakeModel::new()).await;
    read_all(server.client().await.generate(request("a", 50)).await.expect("accepted").into_inner()).await;
    let (_, body) = get(&server.metrics, "/metrics").await;
    let (mut family, mut kind, mut below) = (String::new(), String::new(), 0.0);
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, found) = rest.split_once(' ').expect("a name and a type");
            (family, kind) = (name.to_owned(), found.to_owned());
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        } else if !line.starts_with("# HELP ") {
            let (series, value) = line.rsplit_once(' ').expect("a series and a value");
            let name = series.split('{').next().expect("a name");
            let suffix = name.strip_prefix(&family).expect("below its type");
            let value: f64 = value.parse().expect("a number");
            match (kind.as_str(), suffix) {
                ("histogram", "_bucket") => assert!(value >= below, "{line}"),
                ("histogram", "_sum" | "_count") | ("gauge" | "counter", "") => {}
                _ => panic!("{line} below {kind} {family}"),
            }
            below = if suffix == "_bucket" { value } else { 0.0 };
        }
    }
}

#[tokio::test]
async fn odd_requests_make_no_series_and_labels_are_closed() {
    let config = EngineConfig { max_queue: 0, ..EngineConfig::default() };
    let models = ["one", "two"].map(|name| FakeModel::new().into_model(name, config.clone()));
    let server = TestServer::start(models.to_vec(), PATIENCE).await;
    let before: BTreeSet<String> = scrape(&server).await.into_keys().collect();
    let mut client = server.client().await;
    for i in 0..200 {
        let odd = format!("\"}}\n{i}\\");
        let sampling = Some(Sampling { regex: Some(odd.clone()), ..Sampling::default() });
        let requests = [
            GenerateRequest { model: odd.clone(), ..request("a", 1) },
            GenerateRequest { model: "one".to_owned(), request_id: odd.clone(), ..request("a", 1) },
            GenerateRequest { model: "two".to_owned(), sampling, ..request(&odd, 1) },
        ];
        for request in requests {
            drop(client.generate(request).await);
        }
        drop(client.get_stats(GetStatsRequest { model: odd }).await);
        assert_eq!(status(&server.metrics, &format!("/metrics/{i}?{i}")).await, 404);
    }
    let after = scrape(&server).await;
    assert_eq!(after.keys().cloned().collect::<BTreeSet<_>>(), before);
    let denied =
        ["no_token", "wrong_token", "too_many_failures", "no_certificate", "not_admin", "client_full"];
    let reasons: Vec<_> = Outcome::ALL.into_iter().map(Outcome::name).chain(denied).collect();
    for (label, value) in after.keys().flat_map(|series| labels(series)) {
        match label {
            "model" => assert!(["one", "two"].contains(&value), "{value}"),
            "reason" => assert!(reasons.contains(&value), "{value}"),
            "cause" => assert!(["queue_full", "stopping"].contains(&value), "{value}"),
            "le" => assert!(value.parse::<f64>().is_ok(), "{value}"),
            _ => panic!("a label of its own: {label}"),
        }
    }
}

#[tokio::test]
async fn health_turns_once_the_server_drains() {
    let (fake, permits) = FakeModel::gated();
    let (server, model) = TestServer::of(fake).await;
    let address = server.metrics.clone();
    assert_eq!(status(&address, "/healthz").await, 200);
    let stream = server.client().await.generate(request("a", 3)).await.expect("accepted").into_inner();
    eventually("it runs", || model.num_running() == 1).await;
    let ended = server.stop();
    let draining = async {
        while status(&address, "/healthz").await != 503 {
            tokio::task::yield_now().await;
        }
    };
    within_patience(draining).await;
    assert_eq!(status(&address, "/metrics").await, 200);
    drop((stream, permits));
    within_patience(ended).await.expect("no panic").expect("an orderly end");
    assert!(TcpStream::connect(address).is_err(), "still listening");
}

#[tokio::test]
async fn other_paths_methods_and_heads_too_large_are_refused() {
    let (server, _model) = TestServer::of(FakeModel::new()).await;
    assert_eq!(status(&server.metrics, "/").await, 404);
    let post = "POST /metrics HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000000\r\n\r\n".to_owned();
    assert_eq!(status_of(&exchange(&server.metrics, post).await), 405);
    let head = exchange(&server.metrics, "HEAD /metrics HTTP/1.1\r\nHost: test\r\n\r\n".to_owned()).await;
    assert!(status_of(&head) == 200 && head.ends_with("\r\n\r\n"), "{head}");
    let many = (0..100).map(|i| format!("x-{i}: y\r\n")).collect::<String>();
    let answer = exchange(&server.metrics, format!("GET /metrics HTTP/1.1\r\n{many}\r\n")).await;
    assert_eq!(status_of(&answer), 431);
}

/// Takes the seconds that the listener gives a connection.
#[tokio::test]
async fn those_who_say_nothing_are_let_go_and_streams_go_on() {
    let (server, _model) = TestServer::of(FakeModel::new()).await;
    let silent: Vec<_> = (0..MAX_CONNECTIONS + 4)
        .map(|_| TcpStream::connect(&server.metrics).expect("room in the queue"))
        .collect();
    let stream = server.client().await.generate(request("a", 500)).await.expect("accepted").into_inner();
    assert!(read_all(stream).await.1.is_none());
    assert_eq!(status(&server.metrics, "/healthz").await, 200);
    drop(silent);
}
