//! What the engine tells the owner of a stream, and the channel it tells it through.

use std::time::Duration;

use crate::snapshot::Snapshot;

/// One thing that happened to a stream, in order: `Started`, `Chunk`..., then `Finished` or `Failed`; for a text to score
/// `Started`, then `Scored`, or one of the two.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The request was accepted.
    Started(Started),
    /// The next piece of the text.
    Chunk(Chunk),
    /// The text is complete; nothing follows.
    Finished(Finished),
    /// The text given was read; nothing follows.
    Scored(Scored),
    /// The text ended by no fault of the request; nothing follows.
    Failed(StreamError),
}

/// The request was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// The seed in use, given or drawn.
    pub seed: u64,
    /// Symbols in the prompt.
    pub num_prompt_tokens: u32,
    /// Those of them that are not read, because they were before.
    pub num_cached_tokens: u32,
}

/// A piece of the text: whole characters only.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// The characters.
    pub text: String,
    /// How many of them.
    pub num_chars: u32,
    /// Characters of the text before this piece.
    pub offset: u64,
    /// The symbols that these characters are of, if they were asked for.
    pub symbols: Option<Box<Symbols>>,
}

/// Symbols in order, and as far as it was asked for how likely they were.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Symbols {
    /// Their indices.
    pub ids: Vec<u32>,
    /// For each the natural logarithm of its probability in the model's own distribution; NaN for symbols that were
    /// drawn before the text was cut, and withheld.
    pub logprobs: Vec<f32>,
    /// For each, one after the other, as many of the most likely symbols with theirs, the likeliest first.
    pub top: Vec<(u32, f32)>,
}

impl Symbols {
    /// The most likely symbols in place of each.
    pub fn tops(&self) -> impl Iterator<Item = &[(u32, f32)]> {
        self.top.chunks_exact(self.num_top().max(1))
    }

    fn num_top(&self) -> usize {
        self.top.len() / self.ids.len().max(1)
    }

    /// Takes the first `num` away.
    pub(crate) fn take(&mut self, num: usize) -> Symbols {
        let num_top = self.num_top();
        Symbols {
            ids: self.ids.drain(..num).collect(),
            logprobs: self.logprobs.drain(..num.min(self.logprobs.len())).collect(),
            top: self.top.drain(..num * num_top).collect(),
        }
    }
}

/// A text was read: how likely it was.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scored {
    /// Symbols of the text.
    pub num_symbols: u32,
    /// Minus the sum of the natural logarithms of their probabilities.
    pub nats: f64,
    /// The symbols, if they were asked for.
    pub symbols: Option<Box<Symbols>>,
}

/// Why a complete text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// `max_tokens` was reached.
    Length,
    /// A stop string appeared.
    Stop,
    /// The text matches the regular expression, and what was drawn next would have left it.
    Match,
    /// The end symbol was drawn: the document is complete.
    End,
    /// The request's time was over; this is the text so far.
    Deadline,
    /// The engine stopped; the text so far comes with a snapshot.
    Drained,
    /// The reader took nothing for too long; the text so far comes with a snapshot.
    Stalled,
}

/// The text is complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// Why it ended.
    pub reason: FinishReason,
    /// The stop string that ended it.
    pub matched_stop: Option<String>,
    /// Characters delivered, an echoed prompt included.
    pub num_chars: u64,
    /// Where the time went.
    pub timing: Timing,
    /// Where the text stands, if it was asked for and the text could go on.
    pub snapshot: Option<Box<Snapshot>>,
}

/// Where the time of one stream went, from the moment it was accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timing {
    /// Until its first step.
    pub queue: Duration,
    /// Until its first generated character.
    pub first_char: Duration,
    /// Until its end.
    pub total: Duration,
    /// Steps run for it, prompt included.
    pub num_steps: u64,
    /// Mean number of streams in the batch over those steps.
    pub mean_batch: f64,
}

/// Why a stream ended without being complete.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The model's step failed, or its logits for this stream were not numbers.
    #[error("the model failed: {0}")]
    Model(String),
    /// The engine is stopping.
    #[error("the server is stopping; the text so far is valid, send the request again elsewhere")]
    Stopping,
    /// The reader took nothing for too long.
    #[error("the reader took nothing for {0:?}; read faster or ask for larger chunks")]
    Stalled(Duration),
}

/// The bounded channel had no room; the event comes back.
#[derive(Debug)]
pub enum SendError {
    /// No room now: try again later.
    Full(Event),
    /// The reader is gone: the stream is cancelled.
    Closed,
}

/// The engine's end of a stream's bounded channel. A dropped receiver *is* the cancellation.
pub trait Sink: Send {
    /// Hands over one event without waiting.
    fn try_send(&mut self, event: Event) -> Result<(), SendError>;
    /// The same for the last events of a stream whose reader took nothing for too long. A channel that keeps room for
    /// them has it here; there are a few at most.
    fn try_send_last(&mut self, event: Event) -> Result<(), SendError> {
        self.try_send(event)
    }
    /// Whether the reader is gone.
    fn is_closed(&self) -> bool;
}
