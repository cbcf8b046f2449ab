//! What an engine has done so far, counted as it goes: a few relaxed additions a step, none of them shared by workers
//! that run at the same time but for those of a whole stream.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::event::{FinishReason, StreamError};
use crate::prompt_cache::CacheStats;

/// The last bucket begins at nine minutes, in nanoseconds.
const NUM_BUCKETS: usize = 40;

/// Values counted by their number of bits.
#[derive(Debug)]
pub struct Buckets {
    counts: [AtomicU64; NUM_BUCKETS],
    sum: AtomicU64,
}

impl Default for Buckets {
    fn default() -> Self {
        Buckets { counts: std::array::from_fn(|_| AtomicU64::new(0)), sum: AtomicU64::new(0) }
    }
}

impl Buckets {
    /// Counts `value` `times` times.
    pub(crate) fn add_many(&self, value: u64, times: u64) {
        let bits = (u64::BITS - value.leading_zeros()) as usize;
        self.counts[bits.min(NUM_BUCKETS - 1)].fetch_add(times, Relaxed);
        self.sum.fetch_add(value.saturating_mul(times), Relaxed);
    }

    pub(crate) fn add(&self, value: u64) {
        self.add_many(value, 1);
    }

    /// Counts nanoseconds.
    pub(crate) fn add_time(&self, time: Duration) {
        self.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    fn read(&self) -> Counted {
        let counts = self.counts.iter().map(|count| count.load(Relaxed)).collect();
        Counted { counts, sum: self.sum.load(Relaxed) }
    }
}

/// [`Buckets`] at some moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Of values of 0, 1, 2, ... bits: bucket `i` has those from `2^(i-1)` to `2^i - 1`, the last all above, too.
    pub counts: Vec<u64>,
    /// Of all values.
    pub sum: u64,
}

impl Counted {
    /// How many values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The greatest value of each bucket but the last, which has none.
    pub fn limits(&self) -> impl Iterator<Item = u64> {
        (0..self.counts.len().saturating_sub(1)).map(|bits| (1 << bits) - 1)
    }

    fn merge(mut self, other: Counted) -> Counted {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        self.counts.iter_mut().zip(other.counts).for_each(|(count, more)| *count += more);
        self.sum += other.sum;
        self
    }
}

/// How a stream that was admitted ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its text is complete.
    Finished(FinishReason),
    /// Its text was read.
    Scored,
    /// Its reader went away.
    Cancelled,
    /// The model failed.
    Failed,
    /// The engine stopped before its text was complete.
    Stopped,
}

impl Outcome {
    /// All there are, in the order of [`Stats::ended`].
    pub const ALL: [Outcome; 11] = [
        Outcome::Finished(FinishReason::Length),
        Outcome::Finished(FinishReason::Stop),
        Outcome::Finished(FinishReason::Match),
        Outcome::Finished(FinishReason::End),
        Outcome::Finished(FinishReason::Deadline),
        Outcome::Finished(FinishReason::Drained),
        Outcome::Scored,
        Outcome::Cancelled,
        Outcome::Failed,
        Outcome::Stopped,
        Outcome::Finished(FinishReason::Stalled),
    ];

    /// As in metrics: one of a closed set.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Finished(FinishReason::Length) => "length",
            Outcome::Finished(FinishReason::Stop) => "stop",
            Outcome::Finished(FinishReason::Match) => "match",
            Outcome::Finished(FinishReason::End) => "end",
            Outcome::Finished(FinishReason::Deadline) => "deadline",
            Outcome::Finished(FinishReason::Drained) => "drained",
            Outcome::Finished(FinishReason::Stalled) => "stalled",
            Outcome::Scored => "scored",
            Outcome::Cancelled => "cancelled",
            Outcome::Failed => "failed",
            Outcome::Stopped => "stopped",
        }
    }

    fn index(self) -> usize {
        Outcome::ALL.iter().position(|&outcome| outcome == self).expect("all are listed")
    }
}

impl From<&StreamError> for Outcome {
    fn from(error: &StreamError) -> Self {
        match error {
            StreamError::Model(_) => Outcome::Failed,
            StreamError::Stopping => Outcome::Stopped,
            // It is told so by other words if it asked for a snapshot.
            StreamError::Stalled(_) => Outcome::Finished(FinishReason::Stalled),
        }
    }
}

/// The turns of one worker.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    pub(crate) batch: Buckets,
    pub(crate) step: Buckets,
    pub(crate) sample: Buckets,
    pub(crate) send: Buckets,
    pub(crate) num_parked: AtomicUsize,
}

/// The streams of an engine.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    ended: [AtomicU64; Outcome::ALL.len()],
    pub(crate) queue_full: AtomicU64,
    pub(crate) stopping: AtomicU64,
    pub(crate) queue: Buckets,
    pub(crate) first_char: Buckets,
    pub(crate) inter_char: Buckets,
    pub(crate) chunk_chars: Buckets,
}

impl Streams {
    pub(crate) fn count(&self, outcome: Outcome) {
        self.ended[outcome.index()].fetch_add(1, Relaxed);
    }
}

/// What an engine has done so far, and what it is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Rows of all workers' batches.
    pub slots: usize,
    /// Streams that had a slot and are not over.
    pub running: usize,
    /// Of them those whose reader has no room.
    pub parked: usize,
    /// Streams that wait for their first slot.
    pub waiting: usize,
    /// Streams that are over, by [`Outcome::ALL`].
    pub ended: Vec<u64>,
    /// Requests turned away because the queue was full.
    pub queue_full: u64,
    /// Requests turned away because the engine was stopping.
    pub stopping: u64,
    /// Rows of each step.
    pub batch: Counted,
    /// Nanoseconds of each step of the model.
    pub step: Counted,
    /// Nanoseconds of the draws after each step.
    pub sample: Counted,
    /// Nanoseconds of handing over what each step gave.
    pub send: Counted,
    /// Nanoseconds that streams waited for their first slot.
    pub queue: Counted,
    /// Nanoseconds from acceptance to the first character.
    pub first_char: Counted,
    /// Nanoseconds between characters: the wait for a chunk, shared by its characters.
    pub inter_char: Counted,
    /// Characters of each chunk.
    pub chunk_chars: Counted,
    /// Of prompts read before.
    pub cache: CacheStats,
}

impl Stats {
    /// Both together.
    pub fn merge(self, other: Stats) -> Stats {
        let mut ended = self.ended;
        ended.resize(ended.len().max(other.ended.len()), 0);
        ended.iter_mut().zip(other.ended).for_each(|(count, more)| *count += more);
        Stats {
            slots: self.slots + other.slots,
            running: self.running + other.running,
            parked: self.parked + other.parked,
            waiting: self.waiting + other.waiting,
            ended,
            queue_full: self.queue_full + other.queue_full,
            stopping: self.stopping + other.stopping,
            batch: self.batch.merge(other.batch),
            step: self.step.merge(other.step),
            sample: self.sample.merge(other.sample),
            send: self.send.merge(other.send),
            queue: self.queue.merge(other.queue),
            first_char: self.first_char.merge(other.first_char),
            inter_char: self.inter_char.merge(other.inter_char),
            chunk_chars: self.chunk_chars.merge(other.chunk_chars),
            cache: CacheStats {
                hits: self.cache.hits + other.cache.hits,
                misses: self.cache.misses + other.cache.misses,
                num_bytes: self.cache.num_bytes + other.cache.num_bytes,
            },
        }
    }

    /// What is left of an engine that is gone: what it did.
    pub fn of_the_past(self) -> Stats {
        let cache = CacheStats { num_bytes: 0, ..self.cache };
        Stats { slots: 0, running: 0, parked: 0, waiting: 0, cache, ..self }
    }

    pub(crate) fn read(streams: &Streams, turns: &[Turns]) -> Self {
        let over = |part: fn(&Turns) -> &Buckets| {
            turns.iter().map(|turns| part(turns).read()).fold(Counted::default(), Counted::merge)
        };
        Stats {
            parked: turns.iter().map(|turns| turns.num_parked.load(Relaxed)).sum(),
            ended: streams.ended.iter().map(|count| count.load(Relaxed)).collect(),
            queue_full: streams.queue_full.load(Relaxed),
            stopping: streams.stopping.load(Relaxed),
            batch: over(|turns| &turns.batch),
            step: over(|turns| &turns.step),
            sample: over(|turns| &turns.sample),
            send: over(|turns| &turns.send),
            queue: streams.queue.read(),
            first_char: streams.first_char.read(),
            inter_char: streams.inter_char.read(),
            chunk_chars: streams.chunk_chars.read(),
            ..Stats::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_by_their_bits() {
        let buckets = Buckets::default();
        [0, 1, 2, 3, 4, 7, 8].into_iter().for_each(|value| buckets.add(value));
        buckets.add_many(5, 10);
        let counted = buckets.read();
        assert_eq!(counted.counts[..5], [1, 1, 2, 12, 1]);
        assert_eq!((counted.count(), counted.sum), (17, 75));
        assert_eq!(counted.limits().take(5).collect::<Vec<_>>(), [0, 1, 3, 7, 15]);
        buckets.add(u64::MAX);
        assert_eq!(buckets.read().counts.last(), Some(&1));
    }

    #[test]
    fn outcomes_have_names_of_their_own() {
        let streams = Streams::default();
        Outcome::ALL.into_iter().for_each(|outcome| streams.count(outcome));
        assert!(Stats::read(&streams, &[]).ended.iter().all(|&count| count == 1));
        let names: std::collections::BTreeSet<_> = Outcome::ALL.into_iter().map(Outcome::name).collect();
        assert_eq!(names.len(), Outcome::ALL.len());
    }
}
