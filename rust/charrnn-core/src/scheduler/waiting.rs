//! Streams on their way to their first slot: each client's in the order they came, clients in turn.
//!
//! A client that asks for a thousand texts waits for its own, and nobody waits for more than one of them at a time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::stream::Stream;

/// The queue of one worker.
#[derive(Default)]
pub(crate) struct Waiting {
    /// Of clients that have any.
    queues: HashMap<Arc<str>, VecDeque<Stream>>,
    /// The same clients, the next first.
    turns: VecDeque<Arc<str>>,
}

impl Waiting {
    /// Puts a stream behind the others of its client, and a new client behind the others.
    pub(crate) fn push(&mut self, stream: Stream) {
        let queue = self.queues.entry(Arc::clone(stream.client())).or_default();
        if queue.is_empty() {
            self.turns.push_back(Arc::clone(stream.client()));
        }
        queue.push_back(stream);
    }

    /// The next stream of the client whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<Stream> {
        let client = self.turns.pop_front()?;
        let queue = self.queues.get_mut(&client)?;
        let stream = queue.pop_front();
        match queue.is_empty() {
            true => drop(self.queues.remove(&client)),
            false => self.turns.push_back(client),
        }
        stream
    }

    /// Forgets the streams that are not to be kept.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&mut Stream) -> bool) {
        self.queues.values_mut().for_each(|queue| queue.retain_mut(&mut keep));
        self.queues.retain(|_, queue| !queue.is_empty());
        self.turns.retain(|client| self.queues.contains_key(client));
    }

    /// All of them; none is left.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = Stream> + '_ {
        std::iter::from_fn(|| self.pop())
    }
}
