//! What one thread of the generator has seen so far: counts, histograms, and rows for the table.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::plan::Plan;
use crate::record::{Outcome, Record};

/// Longer times are counted as an hour.
const MAX_NS: u64 = 3_600_000_000_000;
/// Three digits: a percentile is right to 0.1 %.
const DIGITS: u8 = 3;
/// Different messages kept; one is enough to see what is wrong, a thousand are a flood.
const MAX_MESSAGES: usize = 8;

/// Times in nanoseconds.
#[derive(Clone)]
pub(crate) struct Times(pub(crate) Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        Times(Histogram::new_with_max(MAX_NS, DIGITS).expect("these bounds are valid"))
    }
}

impl Times {
    pub(crate) fn add(&mut self, time: Duration) {
        self.add_many(time, 1);
    }

    pub(crate) fn add_many(&mut self, time: Duration, count: u64) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record_n(ns.max(1), count);
    }

    pub(crate) fn merge(&mut self, other: &Times) {
        self.0.add(&other.0).expect("all have the same bounds");
    }
}

/// Since the last look.
#[derive(Clone, Default)]
pub(crate) struct Interval {
    pub(crate) chars: u64,
    pub(crate) sent: u64,
    pub(crate) ended: u64,
    pub(crate) errors: u64,
    pub(crate) first_char: Times,
}

impl Interval {
    pub(crate) fn merge(&mut self, other: &Interval) {
        self.chars += other.chars;
        self.sent += other.sent;
        self.ended += other.ended;
        self.errors += other.errors;
        self.first_char.merge(&other.first_char);
    }
}

/// Requests that came due within the window, and characters that came within it.
#[derive(Clone, Default)]
pub(crate) struct Tally {
    pub(crate) outcomes: BTreeMap<String, u64>,
    pub(crate) slow: u64,
    /// Neither slow nor cancelled.
    pub(crate) judged: u64,
    /// Of them those that met the SLO.
    pub(crate) good: u64,
    pub(crate) chars: u64,
    pub(crate) lag: Times,
    pub(crate) first_char: Times,
    pub(crate) inter_char: Times,
    pub(crate) inter_chunk: Times,
    pub(crate) request: Times,
    pub(crate) server: ServerTimes,
    /// Characters a second of each text, as a time per character.
    pub(crate) stream_pace: Times,
    pub(crate) messages: Vec<(String, u64)>,
    pub(crate) rows: Vec<Record>,
    pub(crate) active: u64,
    pub(crate) interval: Interval,
}

/// What the server says of the texts it finished.
#[derive(Clone, Default)]
pub(crate) struct ServerTimes {
    pub(crate) queue: Times,
    pub(crate) first_char: Times,
    pub(crate) total: Times,
    pub(crate) steps: u64,
    /// Sum over steps of the batch they were in.
    pub(crate) batch_steps: f64,
}

impl Tally {
    pub(crate) fn chars(&mut self, num_chars: u64, counts: bool) {
        self.interval.chars += num_chars;
        if counts {
            self.chars += num_chars;
        }
    }

    /// A wait between two chunks of a text that is read as fast as it comes.
    pub(crate) fn gap(&mut self, gap: Duration, num_chars: u64) {
        self.inter_chunk.add(gap);
        if num_chars > 0 {
            self.inter_char.add_many(gap.div_f64(num_chars as f64), num_chars);
        }
    }

    /// A request has ended, or never began.
    pub(crate) fn end(&mut self, plan: &Plan, record: Record) {
        self.interval.ended += 1;
        self.interval.errors += u64::from(record.outcome.is_error());
        if !record.is_slow {
            record.first_char().into_iter().for_each(|time| self.interval.first_char.add(time));
        }
        if plan.counts(record.due) {
            self.count(plan, &record);
            if plan.csv.is_some() {
                self.rows.push(record);
            }
        }
    }

    fn count(&mut self, plan: &Plan, record: &Record) {
        *self.outcomes.entry(record.outcome.name()).or_default() += 1;
        record.lag().into_iter().for_each(|lag| self.lag.add(lag));
        if record.is_slow {
            self.slow += 1;
            return;
        }
        self.judged += u64::from(record.outcome != Outcome::Cancelled);
        self.good += u64::from(record.meets(&plan.slo));
        record.first_char().into_iter().for_each(|time| self.first_char.add(time));
        if record.outcome == Outcome::Ok {
            self.request.add(record.request());
            record.inter_char().into_iter().for_each(|time| self.stream_pace.add(time));
        }
        if let Some(timing) = &record.server {
            self.server.add(timing);
        }
    }

    /// Keeps what went wrong, with the first request it happened to.
    pub(crate) fn say(&mut self, what: &str, number: u64) {
        if self.messages.len() < MAX_MESSAGES && !self.messages.iter().any(|(said, _)| said == what) {
            self.messages.push((what.to_owned(), number));
        }
    }

    pub(crate) fn merge(&mut self, other: Tally) {
        other.outcomes.into_iter().for_each(|(name, n)| *self.outcomes.entry(name).or_default() += n);
        self.slow += other.slow;
        self.judged += other.judged;
        self.good += other.good;
        self.chars += other.chars;
        self.lag.merge(&other.lag);
        self.first_char.merge(&other.first_char);
        self.inter_char.merge(&other.inter_char);
        self.inter_chunk.merge(&other.inter_chunk);
        self.request.merge(&other.request);
        self.stream_pace.merge(&other.stream_pace);
        self.server.merge(&other.server);
        other.messages.iter().for_each(|(what, number)| self.say(what, *number));
        self.rows.extend(other.rows);
    }
}

impl ServerTimes {
    fn add(&mut self, timing: &charrnn_serve::pb::Timing) {
        self.queue.add(Duration::from_micros(timing.queue_us));
        self.first_char.add(Duration::from_micros(timing.first_char_us));
        self.total.add(Duration::from_micros(timing.total_us));
        self.steps += timing.steps;
        self.batch_steps += timing.mean_batch * timing.steps as f64;
    }

    fn merge(&mut self, other: &ServerTimes) {
        self.queue.merge(&other.queue);
        self.first_char.merge(&other.first_char);
        self.total.merge(&other.total);
        self.steps += other.steps;
        self.batch_steps += other.batch_steps;
    }
}
