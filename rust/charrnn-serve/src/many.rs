//! `GenerateMany`: many texts on one call, each a task of its own that waits for the reader they share.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use charrnn_core::engine::SubmitError;
use tokio::sync::mpsc::{self, error::SendError};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_stream::Stream;
use tonic::{Code, Status, Streaming};

use crate::models::Models;
use crate::pb;
use crate::pb::generate_response::Event;
use crate::service::{begin, Origin, ResponseStream};
use crate::status::Refusal;

/// Texts at once on one call; as many as calls on one connection.
const MAX_TEXTS: usize = 1024;
/// An id comes with every response.
const MAX_ID_BYTES: usize = 256;
/// Responses that wait for the reader, besides those that wait within each text.
const CAPACITY: usize = 32;

type Answer = Result<pb::GenerateResponse, Status>;
/// The reader is gone, and with it the call.
type Gone = SendError<Answer>;

/// The texts of a call that have not ended, by id.
#[derive(Clone, Default)]
struct Live(Arc<Mutex<HashMap<String, AbortHandle>>>);

impl Live {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, AbortHandle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call.
pub(crate) struct Call {
    models: Arc<Models>,
    origin: Origin,
    closing: watch::Receiver<()>,
    live: Live,
    texts: JoinSet<()>,
}

impl Call {
    /// A call that ends with UNAVAILABLE when the sender of `closing` goes.
    pub(crate) fn new(models: Arc<Models>, origin: Origin, closing: watch::Receiver<()>) -> Self {
        Call { models, origin, closing, live: Live::default(), texts: JoinSet::new() }
    }

    /// The responses to `requests`.
    pub(crate) fn start(self, requests: Streaming<pb::GenerateRequest>) -> ManyStream {
        let (sender, answers) = mpsc::channel(CAPACITY);
        let mut call = JoinSet::new();
        call.spawn(async move { drop(self.run(requests, sender).await) });
        ManyStream { answers, _call: call }
    }

    async fn run(
        mut self,
        mut requests: Streaming<pb::GenerateRequest>,
        answers: mpsc::Sender<Answer>,
    ) -> Result<(), Gone> {
        let stopped = loop {
            tokio::select! {
                Some(_) = self.texts.join_next() => {}
                request = requests.message() => match request {
                    Ok(Some(request)) => self.take(request, &answers).await?,
                    Ok(None) => break None,
                    // Whatever comes after this cannot be told from it.
                    Err(status) => return answers.send(Err(as_refused(status))).await,
                },
                _ = self.closing.changed() => break Some(Refusal::Submit(SubmitError::Stopping)),
            }
        };
        while self.texts.join_next().await.is_some() {}
        match stopped {
            Some(refusal) => answers.send(Err(refusal.into())).await,
            None => Ok(()),
        }
    }

    async fn take(
        &mut self,
        request: pb::GenerateRequest,
        answers: &mpsc::Sender<Answer>,
    ) -> Result<(), Gone> {
        let id = request.request_id.clone();
        if request.cancel {
            return self.cancel(id, answers).await;
        }
        let begun = match self.check(&id) {
            Ok(()) => begin(&self.models, request, self.origin.clone()).await,
            Err(refusal) => Err(refusal),
        };
        match begun {
            Ok(text) => self.spawn(id, text, answers.clone()),
            // Nothing more is read meanwhile, or refusals could pile up.
            Err(refusal) => answers.send(Ok(refused(id, &refusal))).await?,
        }
        Ok(())
    }

    fn check(&self, id: &str) -> Result<(), Refusal> {
        let live = self.live.lock();
        match id.len() {
            1..=MAX_ID_BYTES if live.contains_key(id) => Err(Refusal::RequestIdInUse),
            1..=MAX_ID_BYTES if live.len() >= MAX_TEXTS => Err(Refusal::TooManyTexts { max: MAX_TEXTS }),
            0 => Err(Refusal::RequestIdLength { len: 0, max: MAX_ID_BYTES }),
            len => check_id_length(len),
        }
    }

    fn spawn(&mut self, id: String, text: ResponseStream, answers: mpsc::Sender<Answer>) {
        // Locked before it runs: it may end before it is listed.
        let mut live = self.live.lock();
        let task = self.texts.spawn(hand_on(id.clone(), text, answers, self.live.clone()));
        live.insert(id, task);
    }

    async fn cancel(&mut self, id: String, answers: &mpsc::Sender<Answer>) -> Result<(), Gone> {
        let Some(task) = self.live.lock().get(&id).cloned() else { return Ok(()) };
        task.abort();
        // Nothing of it may come after the refusal.
        while !task.is_finished() {
            self.texts.join_next().await;
        }
        // It may have ended by itself meanwhile.
        let was_live = self.live.lock().remove(&id).is_some();
        match was_live {
            true => answers.send(Ok(refused(id, &Refusal::Cancelled))).await,
            false => Ok(()),
        }
    }
}

/// Of a text that has an id, whatever call it is on.
pub(crate) fn check_id_length(len: usize) -> Result<(), Refusal> {
    match len {
        0..=MAX_ID_BYTES => Ok(()),
        len => Err(Refusal::RequestIdLength { len, max: MAX_ID_BYTES }),
    }
}

/// Hands on all of a text. When the end arrives its id is free again.
async fn hand_on(id: String, mut text: ResponseStream, answers: mpsc::Sender<Answer>, live: Live) {
    while let Some(response) = text.next().await {
        let response = response.unwrap_or_else(|refusal| refused(id.clone(), &refusal));
        let Ok(place) = answers.reserve().await else { return };
        if matches!(response.event, Some(Event::Finished(_) | Event::Refused(_))) {
            live.lock().remove(&id);
        }
        place.send(Ok(response));
    }
}

fn refused(request_id: String, refusal: &Refusal) -> pb::GenerateResponse {
    let (code, message) = (refusal.code() as i32, refusal.to_string());
    let refused = pb::Refused { code, message, reason: refusal.reason().to_owned() };
    pb::GenerateResponse { request_id, event: Some(Event::Refused(refused)) }
}

/// The code for a message over the cap is RESOURCE_EXHAUSTED, as elsewhere.
fn as_refused(status: Status) -> Status {
    match status.code() {
        Code::OutOfRange => Status::resource_exhausted(status.message()),
        _ => status,
    }
}

/// The responses of a call. Dropping it ends its texts.
pub(crate) struct ManyStream {
    answers: mpsc::Receiver<Answer>,
    _call: JoinSet<()>,
}

impl Stream for ManyStream {
    type Item = Answer;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Answer>> {
        self.answers.poll_recv(context)
    }
}
