//! What is refused, with which code and words; the connection lives on.

use crate::harness::{read_all, request, text, within_patience, FakeModel, TestServer, PATIENCE};
use charrnn_core::engine::EngineConfig;
use charrnn_serve::pb::{GenerateRequest, GenerateResponse, Output, Sampling, Stopping};
use charrnn_serve::ServeError;
use prost::bytes::{Buf, BufMut};
use prost::Message;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

fn sampling(sampling: Sampling) -> GenerateRequest {
    GenerateRequest { sampling: Some(sampling), ..request("a", 1) }
}

fn stopping(stopping: Stopping) -> GenerateRequest {
    GenerateRequest { stopping: Some(stopping), ..request("a", 1) }
}

fn output(output: Output) -> GenerateRequest {
    GenerateRequest { output: Some(output), ..request("a", 1) }
}

/// Bad requests, and a word that the refusal must say.
fn bad_requests() -> Vec<(GenerateRequest, &'static str)> {
    let temperature = |value| sampling(Sampling { temperature: Some(value), ..Sampling::default() });
    let top_p = |value| sampling(Sampling { top_p: Some(value), ..Sampling::default() });
    let min_p = |value| sampling(Sampling { min_p: Some(value), ..Sampling::default() });
    let max_tokens = |value| stopping(Stopping { max_tokens: Some(value), ..Stopping::default() });
    let stop = |stop: Vec<String>| stopping(Stopping { stop, ..Stopping::default() });
    vec![
        (temperature(-1.0), "temperature"),
        (temperature(f64::NAN), "temperature"),
        (top_p(1.5), "top_p"),
        (top_p(f64::NAN), "top_p"),
        (min_p(-0.1), "min_p"),
        (max_tokens(0), "max_tokens"),
        (max_tokens(u32::MAX), "max_tokens"),
        (stop(vec![String::new()]), "stop"),
        (stop(vec!["a".to_owned(); 10_000]), "stop"),
        (stop(vec!["a".repeat(100_000)]), "stop"),
        (output(Output { chunk_chars: Some(0), ..Output::default() }), "chunk_chars"),
        (output(Output { max_chunk_delay_ms: Some(u32::MAX), ..Output::default() }), "max_chunk_delay_ms"),
        (output(Output { top_logprobs: Some(21), ..Output::default() }), "top_logprobs"),
        (request("abé", 1), "U+00E9"),
        (request(&"a".repeat(70_000), 1), "prompt"),
    ]
}

#[tokio::test]
async fn bad_values_are_invalid_arguments_that_name_the_field() {
    let (server, model) = TestServer::of(FakeModel::new()).await;
    let mut client = server.client().await;
    for (bad, word) in bad_requests() {
        let status = client.generate(bad).await.expect_err(word);
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains(word), "{word} is not in: {}", status.message());
        let details = status.get_details_bad_request().expect("a BadRequest detail");
        assert_eq!(details.field_violations.len(), 1);
        assert_eq!(details.field_violations[0].description, status.message());
    }
    assert_eq!(model.num_running() + model.num_waiting(), 0);
    let stream = client.generate(request("a", 3)).await.expect("accepted").into_inner();
    assert_eq!(text(&read_all(stream).await.0), "bcd");
}

#[tokio::test]
async fn an_unknown_model_is_not_found_and_the_known_ones_are_listed() {
    let (server, _model) = TestServer::of(FakeModel::new()).await;
    let unknown = GenerateRequest { model: "\u{7}other".to_owned(), ..request("a", 1) };
    let status = server.client().await.generate(unknown).await.expect_err("no such model");
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.message(), "model \"\\u{7}other\" is not served here; this server has: fake");
    assert_eq!(status.get_details_error_info().map(|info| info.reason), Some("UNKNOWN_MODEL".to_owned()));
}

#[tokio::test]
async fn no_name_of_a_model_comes_back_as_it_was() {
    let (server, _model) = TestServer::of(FakeModel::new()).await;
    let mut client = server.client().await;
    let names =
        ["\u{1b}[31m", "\r\nx: y", "\u{202e}eman", "<b>", "é", "\0", "\u{10ffff}", "\"; x", "..", "\\"];
    let long = names.concat().repeat(1000);
    for name in names.into_iter().chain([long.as_str()]) {
        for (model, version) in [(name, None), ("fake", Some(name.to_owned()))] {
            let unknown = GenerateRequest { model: model.to_owned(), version, ..request("a", 1) };
            let status = client.generate(unknown).await.expect_err("no such model");
            assert_eq!(status.code(), Code::NotFound);
            let message = status.message();
            assert!(message.len() < 1000 && message.chars().all(|c| (' '..='~').contains(&c)), "{message:?}");
        }
    }
    client.generate(request("a", 1)).await.expect("the connection lives");
}

#[tokio::test]
async fn of_several_models_one_must_be_named() {
    let models = ["one", "two"].map(|name| FakeModel::new().into_model(name, EngineConfig::default()));
    let server = TestServer::start(models.to_vec(), PATIENCE).await;
    let status = server.client().await.generate(request("a", 1)).await.expect_err("which?");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("one, two"), "{}", status.message());
}

#[tokio::test]
async fn two_models_of_one_name_are_not_served() {
    let models = ["one", "one"].map(|name| FakeModel::new().into_model(name, EngineConfig::default()));
    let server = TestServer::start(models.to_vec(), PATIENCE).await;
    let ended = within_patience(server.ended).await.expect("no panic");
    assert!(matches!(ended, Err(ServeError::DuplicateModel(name)) if name == "one"));
    let none = TestServer::start(Vec::new(), PATIENCE).await.ended;
    let none = within_patience(none).await.expect("no panic");
    assert!(matches!(none, Err(ServeError::NoModels)));
}

#[tokio::test]
async fn an_oversize_message_exhausts_and_the_connection_lives() {
    let (server, _model) = TestServer::of(FakeModel::new()).await;
    let mut client = server.client().await;
    // The prompt stands in the request's id once more.
    let status = client.generate(request(&"a".repeat(1 << 20), 1)).await.expect_err("2 MiB");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    client.generate(request("a", 1)).await.expect("the connection lives");
}

#[tokio::test]
async fn bytes_that_are_no_request_are_invalid_and_the_connection_lives() {
    let (server, _model) = TestServer::of(FakeModel::new()).await;
    let mut grpc = tonic::client::Grpc::new(server.channel().await);
    // Field 4, two bytes: a prompt that is not UTF-8. Then a field that breaks off.
    for bytes in [vec![0x22, 2, 0xC3, 0x28], vec![0x22, 200, b'a']] {
        grpc.ready().await.expect("connected");
        let path = "/charrnn.v1.CharRnn/Generate".parse().expect("a path");
        let status = grpc.server_streaming(Request::new(bytes), path, RawBytes).await.map(drop);
        assert_eq!(status.expect_err("no request").code(), Code::InvalidArgument);
    }
    // An empty message is a request with every default.
    let path = "/charrnn.v1.CharRnn/Generate".parse().expect("a path");
    grpc.ready().await.expect("connected");
    grpc.server_streaming(Request::new(Vec::new()), path, RawBytes).await.expect("the connection lives");
}

/// What a server answers to a message as it is: its status, and the text of a request that it takes.
async fn answer(server: &TestServer, bytes: Vec<u8>) -> Result<String, Status> {
    let mut grpc = tonic::client::Grpc::new(server.channel().await);
    grpc.ready().await.expect("connected");
    let path = "/charrnn.v1.CharRnn/Generate".parse().expect("a path");
    let answer = grpc.server_streaming(Request::new(bytes), path, RawBytes).await?;
    let mut messages = answer.into_inner();
    let mut responses = Vec::new();
    while let Some(bytes) = within_patience(messages.message()).await? {
        responses.push(GenerateResponse::decode(&bytes[..]).expect("a response"));
    }
    Ok(text(&responses))
}

#[tokio::test]
async fn a_negative_number_on_the_wire_is_out_of_range() {
    let (server, _model) = TestServer::of(FakeModel::new()).await;
    // Stopping's field 1: -1 as a signed program writes it, and the least of all.
    let minus_one = [[0xff; 9].as_slice(), &[1]].concat();
    let least = [[0x80; 9].as_slice(), &[1]].concat();
    for (number, is_taken) in [(minus_one, false), (least, false), (vec![3], true)] {
        let stopping = [&[0x08], number.as_slice()].concat();
        let bytes = [&[0x5a, stopping.len() as u8], stopping.as_slice()].concat();
        let answer = answer(&server, bytes).await.map(|text| text.len());
        match is_taken {
            true => assert_eq!(answer.expect("a text"), 3),
            false => assert_eq!(answer.expect_err("refused").code(), Code::InvalidArgument),
        }
    }
}

/// A newer client says what this server does not know; an older one says less.
#[tokio::test]
async fn fields_that_nobody_knows_here_are_passed_over() {
    let (server, _model) = TestServer::of(FakeModel::new()).await;
    let known = request("a", 3).encode_to_vec();
    let varint = [0xf8, 0x3e, 7]; // field 1007
    let bytes = [&[0xfa, 0x3e, 3], b"new".as_slice()].concat();
    let fixed = [0xf9, 0x3e, 1, 2, 3, 4, 5, 6, 7, 8];
    for unknown in [varint.as_slice(), &bytes, &fixed] {
        for message in [[unknown, known.as_slice()].concat(), [known.as_slice(), unknown].concat()] {
            assert_eq!(answer(&server, message).await.expect("a text"), "bcd");
        }
    }
    let oldest =
        GenerateRequest { sampling: None, stopping: None, request_id: String::new(), ..request("a", 3) };
    assert_eq!(answer(&server, oldest.encode_to_vec()).await.expect("a text").len(), 256);
}

/// Messages as they are.
struct RawBytes;

impl Codec for RawBytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = RawBytes;
    type Decoder = RawBytes;

    fn encoder(&mut self) -> RawBytes {
        RawBytes
    }

    fn decoder(&mut self) -> RawBytes {
        RawBytes
    }
}

impl Encoder for RawBytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for RawBytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

#[tokio::test]
async fn an_id_is_no_longer_than_on_a_shared_call() {
    let (server, _) = TestServer::of(FakeModel::new()).await;
    let mut client = server.client().await;
    let named = |len| GenerateRequest { request_id: "x".repeat(len), ..request("a", 3) };
    let status = client.generate(named(257)).await.expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("request_id has 257 bytes; it may have 256"), "{status:?}");
    let stream = client.generate(named(256)).await.expect("accepted").into_inner();
    assert_eq!(read_all(stream).await.0[0].request_id.len(), 256);
}
