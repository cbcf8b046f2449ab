//! Who runs next: the waiting and parked streams of one worker and the slots they want.
//!
//! Knows nothing of models or sampling. Clients take turns, each first come, first served; streams coming back from a
//! pause go first.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::event::StreamError;
use crate::model::ModelSpec;
use crate::prompt_cache::PromptCache;
use crate::slots::Slots;
use crate::state::RowState;

pub(crate) mod admission;
pub(crate) mod drawn;
mod parked;
pub(crate) mod shares;
pub(crate) mod stream;
mod text;
mod waiting;

use parked::{Look, Parked, Resting};
use stream::{Flow, Stream};
use waiting::Waiting;

/// How often streams off the batch are searched for readers that are gone.
const SWEEP_INTERVAL: Duration = Duration::from_millis(10);

/// The streams of one worker, in a slot or on their way to one.
pub(crate) struct Scheduler {
    slots: Slots<Stream>,
    waiting: Waiting,
    /// Streams that were parked and wait for a slot.
    ready: VecDeque<Resting>,
    parked: Vec<Parked>,
    stall_timeout: Duration,
    cache: Arc<PromptCache>,
    next_sweep: Option<Instant>,
}

impl Scheduler {
    pub(crate) fn new(
        spec: &ModelSpec,
        max_streams: usize,
        stall_timeout: Duration,
        cache: Arc<PromptCache>,
    ) -> Self {
        Scheduler {
            slots: Slots::new(spec, max_streams),
            waiting: Waiting::default(),
            ready: VecDeque::new(),
            parked: Vec::new(),
            stall_timeout,
            cache,
            next_sweep: None,
        }
    }

    /// The running batch.
    pub(crate) fn slots(&self) -> &Slots<Stream> {
        &self.slots
    }

    /// The running batch, to step it.
    pub(crate) fn slots_mut(&mut self) -> &mut Slots<Stream> {
        &mut self.slots
    }

    /// Lets a new stream wait for its turn and says so to its reader.
    pub(crate) fn enqueue(&mut self, mut stream: Stream) {
        // Without room even for the first event, `emit` parks it after its first step.
        if stream.pump() != Flow::Over {
            self.waiting.push(stream);
        }
    }

    /// Frees the slots of readers that are gone and fills what is free.
    pub(crate) fn admit(&mut self, now: Instant) {
        for row in (0..self.slots.len()).rev() {
            if self.slots.owner(row).is_closed() {
                self.slots.leave(row);
            }
        }
        self.sweep(now);
        self.look_at_parked(now);
        while !self.slots.is_full() && (self.resume_one() || self.start_one(now)) {}
    }

    /// Forgets streams off the batch whose reader is gone. Not every turn: there may be a thousand of them.
    fn sweep(&mut self, now: Instant) {
        if self.next_sweep.is_some_and(|at| now < at) {
            return;
        }
        // One that is late is never begun.
        self.waiting
            .retain(|stream| !(stream.is_closed() || stream.expire(now) && stream.pump() == Flow::Over));
        self.ready.retain(|resting| !resting.stream.is_closed());
        self.next_sweep = Some(now + SWEEP_INTERVAL);
    }

    fn look_at_parked(&mut self, now: Instant) {
        let mut i = 0;
        while i < self.parked.len() {
            if self.parked[i].next_look() > now {
                i += 1;
                continue;
            }
            match self.parked.swap_remove(i).look(now, self.stall_timeout) {
                // Pushed and swapped back: the order in the list means nothing.
                Look::Blocked(parked) => {
                    self.parked.push(parked);
                    let last = self.parked.len() - 1;
                    self.parked.swap(i, last);
                    i += 1;
                }
                Look::Ready(resting) => self.ready.push_back(resting),
                Look::Over => {}
            }
        }
    }

    /// Gives a slot to a stream that had one; false if none wants to.
    fn resume_one(&mut self) -> bool {
        let Some(resting) = self.ready.pop_front() else { return false };
        if !resting.stream.is_closed() {
            self.slots.join(resting.stream, resting.token, Some(&resting.state));
        }
        true
    }

    /// Gives a slot to the stream whose turn it is; false if none waits.
    fn start_one(&mut self, now: Instant) -> bool {
        let Some(mut stream) = self.waiting.pop() else { return false };
        if stream.is_closed() {
            return true;
        }
        if stream.expire(now) {
            if stream.pump() == Flow::Blocked {
                // Its end waits for its reader; it needs no state for that.
                let resting = Resting { stream, state: RowState::new(Vec::new()), token: 0 };
                self.parked.push(Parked::new(resting, now));
            }
            return true;
        }
        if let Some(token) = stream.next_prompt_token() {
            stream.start(now);
            let (snapshot, cached) = (stream.snapshot(), stream.take_cached());
            let state = snapshot.as_ref().map(|it| &it.state).or(cached.as_deref());
            self.slots.join(stream, token, state);
        }
        true
    }

    /// Hands every row's events over; rows that are over or whose reader has no room leave the batch.
    pub(crate) fn emit(&mut self, now: Instant, default_delay: Duration) {
        for row in (0..self.slots.len()).rev() {
            self.slots.owner_mut(row).expire(now);
            if self.slots.owner(row).wants_state() {
                let (state, token) = self.slots.read(row);
                self.slots.owner_mut(row).attach(state, token);
            }
            if let Some(prompt) = self.slots.owner(row).prompt_to_cache() {
                self.cache.put(prompt, self.slots.read(row).0);
            }
            match self.slots.owner_mut(row).emit(now, default_delay) {
                Flow::Open => {}
                Flow::Over => drop(self.slots.leave(row)),
                Flow::Blocked => self.park(row, now),
            }
        }
    }

    fn park(&mut self, row: usize, now: Instant) {
        let resting = self.rest(row);
        self.parked.push(Parked::new(resting, now));
    }

    /// Takes a row out of the batch.
    fn rest(&mut self, row: usize) -> Resting {
        let (state, token) = self.slots.read(row);
        Resting { stream: self.slots.leave(row), state, token }
    }

    /// Streams off the batch that had a slot.
    pub(crate) fn num_parked(&self) -> usize {
        self.parked.len() + self.ready.len()
    }

    /// When a parked stream wants to be looked at next; none if none is parked.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        self.parked.iter().map(Parked::next_look).min()
    }

    /// Ends every stream with `error`, with the text so far as far as its reader has room. Those that can go on
    /// elsewhere are told how, unless the model is at fault.
    pub(crate) fn fail_all(&mut self, error: &StreamError, now: Instant) {
        let mut begun: Vec<Resting> = (0..self.slots.len()).rev().map(|row| self.rest(row)).collect();
        begun.extend(self.parked.drain(..).map(Parked::into_resting).chain(self.ready.drain(..)));
        if *error == StreamError::Stopping {
            begun.iter_mut().for_each(|resting| resting.drain(now));
        }
        let begun = begun.into_iter().map(|resting| resting.stream);
        for mut stream in begun.chain(self.waiting.take_all()) {
            stream.fail(error.clone(), now);
            if stream.pump() == Flow::Blocked {
                stream.give_up(error.clone());
            }
        }
    }
}
