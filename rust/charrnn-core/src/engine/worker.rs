//! The decode loop of one model: admit, step, sample, emit.
//!
//! Knows nothing of threads but that new streams arrive through a channel; `turn` never blocks.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Receiver;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::event::StreamError;
use crate::model::{ModelSpec, StepModel};
use crate::prompt_cache::PromptCache;
use crate::sampler::Draw;
use crate::scheduler::admission::Admission;
use crate::scheduler::drawn::Draws;
use crate::scheduler::stream::{Stream, NO_NUMBERS};
use crate::scheduler::Scheduler;
use crate::slots::Slots;
use crate::vocab::Vocab;

use super::rescue::Rescue;
use super::{Clock, EngineConfig};

/// A chunk waits this long for company, and longer the more streams run: small frames cost more than small batches.
const CHUNK_DELAY: Duration = Duration::from_millis(10);
/// This many running streams double the delay.
const DELAY_STREAMS: u32 = 128;

/// A worker that panics begins anew so many times.
const MAX_RESTARTS: usize = 1;

const PANICKED: &str = "its thread panicked; the server's log has the message";
const RULED_OUT: &str = "the logits for this text, and what the request allows, rule out every symbol";

/// What a worker shares with the engine's front.
pub(super) struct Link {
    pub(super) index: usize,
    pub(super) jobs: Receiver<Stream>,
    pub(super) admission: Arc<Admission>,
    pub(super) clock: Clock,
    pub(super) cache: Arc<PromptCache>,
}

/// One model and the streams that run on it.
pub struct Worker {
    model: Box<dyn StepModel>,
    vocab: Arc<Vocab>,
    config: EngineConfig,
    draws: Draws,
    scheduler: Scheduler,
    rescue: Rescue,
    link: Link,
}

impl Worker {
    pub(super) fn new(
        model: Box<dyn StepModel>,
        vocab: Arc<Vocab>,
        config: &EngineConfig,
        link: Link,
    ) -> Self {
        let spec = model.spec();
        assert_eq!(spec.vocab_size, vocab.size(), "the model and its vocabulary differ in size");
        Worker {
            draws: Draws::new(spec.vocab_size),
            scheduler: scheduler(spec, config, &link),
            rescue: Rescue::new(spec),
            model,
            vocab,
            config: config.clone(),
            link,
        }
    }

    /// Runs until the engine is dropped. After a panic its streams fail and it begins anew; after another no more come
    /// here.
    pub fn run(mut self) {
        for num_panics in 1.. {
            let turns = || while self.turn() || self.wait() {};
            if catch_unwind(AssertUnwindSafe(turns)).is_ok() {
                return;
            }
            let is_last = num_panics > MAX_RESTARTS;
            if is_last {
                self.link.admission.bury(self.link.index);
            }
            self.end_all(&StreamError::Model(PANICKED.to_owned()));
            if is_last {
                return;
            }
            self.begin_anew();
        }
    }

    /// With nothing of what a panic may have left half done.
    fn begin_anew(&mut self) {
        let spec = self.model.spec();
        self.draws = Draws::new(spec.vocab_size);
        self.scheduler = scheduler(spec, &self.config, &self.link);
        self.rescue = Rescue::new(spec);
    }

    /// Takes every live stream one symbol further. False if no stream is in the batch: no step was run.
    pub fn turn(&mut self) -> bool {
        self.admit();
        if self.scheduler.slots().is_empty() {
            return false;
        }
        let began = (self.link.clock)();
        let slots = self.scheduler.slots_mut();
        let batch = slots.len();
        let (tokens, state) = slots.batch();
        let logits = match self.model.step(tokens, state) {
            Ok(logits) => logits,
            Err(error) => self.rescue.step(self.model.as_mut(), slots, error, began),
        };
        let stepped = (self.link.clock)();
        sample(slots, logits, &mut self.draws, &self.vocab, stepped);
        let sampled = (self.link.clock)();
        self.scheduler.emit(stepped, chunk_delay(self.link.admission.num_running()));
        let turns = self.link.admission.turns(self.link.index);
        turns.batch.add(batch as u64);
        turns.step.add_time(stepped.saturating_duration_since(began));
        turns.sample.add_time(sampled.saturating_duration_since(stepped));
        turns.send.add_time((self.link.clock)().saturating_duration_since(sampled));
        true
    }

    /// Takes in what arrived and fills the free slots.
    fn admit(&mut self) {
        if self.link.admission.is_aborting() {
            return self.end_all(&StreamError::Stopping);
        }
        while let Ok(stream) = self.link.jobs.try_recv() {
            self.scheduler.enqueue(stream);
        }
        self.scheduler.admit((self.link.clock)());
        let turns = self.link.admission.turns(self.link.index);
        turns.num_parked.store(self.scheduler.num_parked(), Relaxed);
    }

    /// Sleeps until there is something to do; false once nothing can come any more.
    fn wait(&mut self) -> bool {
        let arrival = match self.scheduler.next_look() {
            None => match self.link.jobs.recv() {
                Ok(stream) => Some(stream),
                Err(_) => return false,
            },
            Some(at) => {
                let timeout = at.saturating_duration_since((self.link.clock)());
                self.link.jobs.recv_timeout(timeout).ok()
            }
        };
        if let Some(stream) = arrival {
            self.scheduler.enqueue(stream);
        }
        true
    }

    fn end_all(&mut self, error: &StreamError) {
        while let Ok(stream) = self.link.jobs.try_recv() {
            self.scheduler.enqueue(stream);
        }
        self.scheduler.fail_all(error, (self.link.clock)());
        self.link.admission.turns(self.link.index).num_parked.store(0, Relaxed);
    }
}

fn scheduler(spec: &ModelSpec, config: &EngineConfig, link: &Link) -> Scheduler {
    Scheduler::new(spec, config.max_streams.max(1), config.stall_timeout, link.cache.clone())
}

/// Takes every row one symbol further: the next of its prompt, or one drawn from its logits, `(B, V)`.
fn sample(slots: &mut Slots<Stream>, logits: &[f32], draws: &mut Draws, vocab: &Vocab, now: Instant) {
    let batch = slots.len();
    // Almost always empty, which allocates nothing.
    let mut beginners = Vec::new();
    let rows = slots.iter_mut().zip(logits.chunks_exact(vocab.size()));
    for (row, ((stream, token), logits)) in rows.enumerate() {
        stream.count_step(batch);
        if stream.is_ended() {
            continue;
        }
        if let Some(next) = stream.next_prompt_token() {
            *token = next;
            if stream.read(next, logits, draws, vocab, now) {
                beginners.push(row);
            }
            continue;
        }
        match stream.draw(logits, draws) {
            Draw::Token(next) => {
                *token = next;
                stream.push(next, draws.measured(), vocab, now);
            }
            Draw::InvalidLogits => stream.fail(StreamError::Model(NO_NUMBERS.to_owned()), now),
            Draw::NoCandidates => stream.fail(StreamError::Model(RULED_OUT.to_owned()), now),
        }
    }
    beginners.into_iter().for_each(|row| slots.zero(row));
}

/// How long a chunk waits for company among that many running streams.
fn chunk_delay(num_running: usize) -> Duration {
    CHUNK_DELAY + CHUNK_DELAY * (num_running as u32) / DELAY_STREAMS
}
