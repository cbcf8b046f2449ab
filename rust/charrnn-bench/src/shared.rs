//! Calls of GenerateMany, each shared by many requests.
//!
//! Knows whose a response is, not what it says but for the last one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use charrnn_serve::pb::generate_response::Event;
use charrnn_serve::pb::{GenerateRequest, GenerateResponse};
use tokio::sync::mpsc::{channel, unbounded_channel, Receiver, Sender, UnboundedReceiver, UnboundedSender};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status, Streaming};

/// Half of what a call may have: a text that was cancelled counts until the server has read that.
const MAX_TEXTS: usize = 512;
/// Responses that wait for one request's reader, before all that share the call wait for it.
const CAPACITY: usize = 32;

type Texts = HashMap<String, Sender<GenerateResponse>>;

/// The requests of a call as they are sent.
pub(crate) type Requests = UnboundedReceiverStream<GenerateRequest>;

/// The calls over one connection.
#[derive(Default)]
pub(crate) struct SharedCalls(Mutex<Vec<Arc<SharedCall>>>);

impl SharedCalls {
    /// Sends `request` on a call that has room; where none has, `open` is told to make one of the requests it gets.
    pub(crate) fn ask(
        &self,
        request: GenerateRequest,
        open: impl FnOnce(Requests, Arc<SharedCall>),
    ) -> SharedText {
        let mut calls = lock(&self.0);
        calls.retain(|call| call.texts().is_ok());
        let has_room =
            |call: &&Arc<SharedCall>| matches!(&*call.texts(), Ok(texts) if texts.len() < MAX_TEXTS);
        let call = calls.iter().find(has_room).cloned().unwrap_or_else(|| {
            let (call, requests) = SharedCall::new();
            calls.push(Arc::clone(&call));
            open(UnboundedReceiverStream::new(requests), Arc::clone(&call));
            call
        });
        call.ask(request)
    }
}

/// One call.
pub(crate) struct SharedCall {
    requests: UnboundedSender<GenerateRequest>,
    /// Of those under way, by id; how the call ended once it has.
    texts: Mutex<Result<Texts, Status>>,
}

impl SharedCall {
    fn new() -> (Arc<Self>, UnboundedReceiver<GenerateRequest>) {
        let (requests, receiver) = unbounded_channel();
        (Arc::new(SharedCall { requests, texts: Mutex::new(Ok(Texts::new())) }), receiver)
    }

    /// Hands the responses on to those who wait for them, until the call ends.
    pub(crate) async fn read(&self, responses: Result<Streaming<GenerateResponse>, Status>) {
        let ended = match responses {
            Ok(responses) => self.hand_on(responses).await,
            Err(status) => status,
        };
        *self.texts() = Err(ended);
    }

    async fn hand_on(&self, mut responses: Streaming<GenerateResponse>) -> Status {
        loop {
            let response = match responses.message().await {
                Ok(Some(response)) => response,
                Ok(None) => return Status::unavailable("the call that the text was on has ended"),
                Err(status) => return status,
            };
            if let Some(reader) = self.reader(&response) {
                // A text that was given up meanwhile has no reader.
                drop(reader.send(response).await);
            }
        }
    }

    fn reader(&self, response: &GenerateResponse) -> Option<Sender<GenerateResponse>> {
        let mut texts = self.texts();
        let texts = texts.as_mut().ok()?;
        match is_last(response) {
            true => texts.remove(&response.request_id),
            false => texts.get(&response.request_id).cloned(),
        }
    }

    fn ask(self: Arc<Self>, request: GenerateRequest) -> SharedText {
        let (sender, responses) = channel(CAPACITY);
        let id = request.request_id.clone();
        if let Ok(texts) = self.texts().as_mut() {
            texts.insert(id.clone(), sender);
        }
        // Where the call has ended, so has the text, and says how.
        drop(self.requests.send(request));
        SharedText { id, call: self, responses, is_over: false }
    }

    fn texts(&self) -> MutexGuard<'_, Result<Texts, Status>> {
        lock(&self.texts)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_last(response: &GenerateResponse) -> bool {
    matches!(response.event, Some(Event::Finished(_) | Event::Refused(_)))
}

/// The responses to one request; dropped before the last of them, the request is cancelled.
pub(crate) struct SharedText {
    id: String,
    call: Arc<SharedCall>,
    responses: Receiver<GenerateResponse>,
    is_over: bool,
}

impl SharedText {
    /// As from a call of its own: none after the last, and a refusal is the status.
    pub(crate) async fn message(&mut self) -> Result<Option<GenerateResponse>, Status> {
        let Some(response) = self.responses.recv().await else { return self.ended() };
        self.is_over |= is_last(&response);
        match response.event {
            Some(Event::Refused(refused)) => Err(Status::new(Code::from_i32(refused.code), refused.message)),
            _ => Ok(Some(response)),
        }
    }

    fn ended(&mut self) -> Result<Option<GenerateResponse>, Status> {
        if self.is_over {
            return Ok(None);
        }
        self.is_over = true;
        match &*self.call.texts() {
            Err(status) => Err(status.clone()),
            Ok(_) => Err(Status::internal("the text was taken off its call")),
        }
    }
}

impl Drop for SharedText {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        if let Ok(texts) = self.call.texts().as_mut() {
            texts.remove(&self.id);
        }
        let request_id = std::mem::take(&mut self.id);
        drop(self.call.requests.send(GenerateRequest { request_id, cancel: true, ..Default::default() }));
    }
}
