//! Reflection, both versions, lists the services and hands out our descriptors.

use crate::harness::{FakeModel, TestServer};
use prost::Message;
use tokio_stream::StreamExt;

/// The two versions are twins in two modules.
macro_rules! reflection_test {
    ($version:ident) => {
        #[tokio::test]
        async fn $version() {
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
            use tonic_reflection::pb::$version::ServerReflectionRequest;

            let (server, _model) = TestServer::of(FakeModel::new()).await;
            let mut client = ServerReflectionClient::new(server.channel().await);
            let asked = [
                MessageRequest::ListServices(String::new()),
                MessageRequest::FileContainingSymbol("charrnn.v1.CharRnn".to_owned()),
            ];
            let requests = asked.map(|message_request| ServerReflectionRequest {
                host: String::new(),
                message_request: Some(message_request),
            });
            let answers = client.server_reflection_info(tokio_stream::iter(requests)).await;
            let answers: Vec<_> = answers.expect("reflection").into_inner().collect().await;
            let answers = answers.into_iter().map(|answer| answer.expect("an answer").message_response);
            let [Some(list), Some(file)] =
                <[_; 2]>::try_from(answers.collect::<Vec<_>>()).expect("two answers")
            else {
                panic!("empty answers")
            };
            let MessageResponse::ListServicesResponse(list) = list else { panic!("{list:?}") };
            let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
            assert!(
                names.contains(&"charrnn.v1.CharRnn") && names.contains(&"grpc.health.v1.Health"),
                "{names:?}"
            );
            let MessageResponse::FileDescriptorResponse(file) = file else { panic!("{file:?}") };
            let ours = charrnn_serve::pb::FILE_DESCRIPTOR_SET;
            let ours = prost_types::FileDescriptorSet::decode(ours).expect("descriptors");
            assert_eq!(file.file_descriptor_proto, [ours.file[0].encode_to_vec()]);
        }
    };
}

reflection_test!(v1);
reflection_test!(v1alpha);
