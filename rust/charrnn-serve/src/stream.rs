//! The bounded channel between a decode thread and the reader of one stream.
//!
//! Dropping the reading end is the cancellation; the decode thread sees it before its next step.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use charrnn_core::event::{Event, SendError, Sink, StreamError};
use tokio::sync::mpsc;
use tokio_stream::Stream;

/// Events that wait for a slow reader before its stream is parked: half a kilobyte of text at the default chunk.
const CAPACITY: usize = 32;
/// Places kept for the end, so that a reader who took nothing still learns how the text ended; if it stalled and asked to
/// go on, after what waited at that moment: a chunk, and one that was written with the end.
const KEPT: usize = 3;

/// Both ends of a new stream.
pub(crate) fn channel() -> (ChannelSink, EventStream) {
    let (sender, receiver) = mpsc::channel(CAPACITY + KEPT);
    (ChannelSink(sender), EventStream { receiver, ended: false })
}

/// The decode thread's end.
pub(crate) struct ChannelSink(mpsc::Sender<Event>);

impl Sink for ChannelSink {
    fn try_send(&mut self, event: Event) -> Result<(), SendError> {
        if !is_end(&event) && self.0.capacity() <= KEPT && !self.0.is_closed() {
            return Err(SendError::Full(event));
        }
        self.try_send_last(event)
    }

    fn try_send_last(&mut self, event: Event) -> Result<(), SendError> {
        self.0.try_send(event).map_err(|error| match error {
            mpsc::error::TrySendError::Full(event) => SendError::Full(event),
            mpsc::error::TrySendError::Closed(_) => SendError::Closed,
        })
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

fn is_end(event: &Event) -> bool {
    match event {
        Event::Started(_) | Event::Chunk(_) => false,
        Event::Finished(_) | Event::Scored(_) | Event::Failed(_) => true,
    }
}

/// The events of one stream, read by awaiting them or by blocking. Dropping it cancels the stream.
#[derive(Debug)]
pub struct EventStream {
    receiver: mpsc::Receiver<Event>,
    ended: bool,
}

/// Nothing came in time; the stream goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nothing came in time")]
pub struct TimedOut;

impl EventStream {
    /// Blocks for the next event, at most `timeout`; `None` after the last one. Not for async code.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Event>, TimedOut> {
        let deadline = Instant::now() + timeout;
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(event) = self.poll_event(&mut context) {
                return Ok(event);
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(TimedOut);
            }
            thread::park_timeout(deadline - now);
        }
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let lost = || Event::Failed(StreamError::Model("its decode thread is gone".to_owned()));
        let event = ready!(self.receiver.poll_recv(context)).unwrap_or_else(lost);
        self.ended = is_end(&event);
        Poll::Ready(Some(event))
    }
}

impl Stream for EventStream {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.poll_event(context)
    }
}

/// Wakes a blocked reader.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use charrnn_core::event::{Chunk, Started};

    fn chunk(offset: u64) -> Event {
        Event::Chunk(Chunk { text: "a".to_owned(), num_chars: 1, offset, symbols: None })
    }

    #[test]
    fn a_full_channel_gives_the_event_back_but_takes_the_end() {
        let (mut sink, mut stream) = channel();
        let taken = (0..).take_while(|&offset| sink.try_send(chunk(offset)).is_ok()).count();
        assert_eq!(taken, CAPACITY);
        let Err(SendError::Full(event)) = sink.try_send(chunk(7)) else { panic!("not full") };
        assert_eq!(event, chunk(7));
        sink.try_send(Event::Failed(StreamError::Stopping)).expect("room for the end");
        let read: Vec<_> =
            std::iter::from_fn(|| stream.next_timeout(Duration::ZERO).expect("ready")).collect();
        assert_eq!(read.len(), CAPACITY + 1);
        assert_eq!(read.last(), Some(&Event::Failed(StreamError::Stopping)));
    }

    #[test]
    fn a_dropped_stream_closes_the_sink() {
        let (mut sink, stream) = channel();
        assert!(!sink.is_closed());
        drop(stream);
        assert!(sink.is_closed());
        assert!(matches!(sink.try_send(chunk(0)), Err(SendError::Closed)));
    }

    #[test]
    fn a_sink_dropped_before_the_end_is_a_failure() {
        let (sink, mut stream) = channel();
        drop(sink);
        let event = stream.next_timeout(Duration::ZERO).expect("ready");
        assert!(matches!(event, Some(Event::Failed(StreamError::Model(_)))), "{event:?}");
        assert_eq!(stream.next_timeout(Duration::ZERO), Ok(None));
    }

    #[test]
    fn a_blocked_reader_wakes_for_an_event_and_otherwise_times_out() {
        let (mut sink, mut stream) = channel();
        assert_eq!(stream.next_timeout(Duration::from_millis(1)), Err(TimedOut));
        let started = Event::Started(Started { seed: 1, num_prompt_tokens: 0, num_cached_tokens: 0 });
        let sent = started.clone();
        let reader = thread::spawn(move || stream.next_timeout(Duration::from_secs(60)));
        sink.try_send(sent).expect("room");
        assert_eq!(reader.join().expect("no panic"), Ok(Some(started)));
    }
}
