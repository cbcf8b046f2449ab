//! A layer that answers requests with a status before any service reads them.

use std::future::{ready, Future, Ready};
use std::pin::Pin;
use std::time::Duration;

use http_body_util::BodyExt;
use tokio_util::either::Either;
use tonic::body::Body;
use tonic::codegen::http::Request;
use tonic::Status;
use tower::filter::{AsyncFilterLayer, AsyncPredicate};
use tower::BoxError;

use crate::server::MAX_MESSAGE_BYTES;
use crate::status::Refusal;

/// A client that takes longer to send its request, as a stream of requests does, is answered while it is still at it.
const READ_TIMEOUT: Duration = Duration::from_secs(1);

/// Lets requests through that `check` has nothing against, as it leaves them.
pub(crate) fn gate<F>(check: F) -> AsyncFilterLayer<Gate<F>>
where
    F: Fn(&mut Request<Body>) -> Result<(), Refusal>,
{
    AsyncFilterLayer::new(Gate(check))
}

/// See [`gate`].
#[derive(Clone)]
pub(crate) struct Gate<F>(F);

type Checked = Result<Request<Body>, BoxError>;

impl<F> AsyncPredicate<Request<Body>> for Gate<F>
where
    F: Fn(&mut Request<Body>) -> Result<(), Refusal>,
{
    type Request = Request<Body>;
    type Future = Either<Ready<Checked>, Pin<Box<dyn Future<Output = Checked> + Send>>>;

    fn check(&mut self, mut request: Request<Body>) -> Self::Future {
        match (self.0)(&mut request) {
            Ok(()) => Either::Left(ready(Ok(request))),
            Err(refusal) => Either::Right(Box::pin(async move {
                read_to_the_end(request.into_body()).await;
                Err(Status::from(refusal).into())
            })),
        }
    }
}

/// Takes what is left of a request and forgets it. What comes after an answer is a fault to HTTP/2, and a connection with
/// many is closed, with all the texts of others on it.
async fn read_to_the_end(mut body: Body) {
    let read = async {
        let mut num_bytes = 0;
        while let (true, Some(Ok(frame))) = (num_bytes <= MAX_MESSAGE_BYTES, body.frame().await) {
            num_bytes += frame.data_ref().map_or(0, |data| data.len());
        }
    };
    // Either way it is answered now.
    let _ = tokio::time::timeout(READ_TIMEOUT, read).await;
}
