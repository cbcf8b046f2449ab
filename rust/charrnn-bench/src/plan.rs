//! `Plan`: all of a run in one JSON object, which the report repeats.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::BenchError;
use crate::spread::Spread;

/// A rate above this needs more than one machine, and a schedule of nanoseconds would lose its order.
const MAX_RATE: f64 = 1e6;
const MAX_SECONDS: f64 = 7.0 * 24.0 * 3600.0;

/// What to send, when, and what counts as good.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// `host:port`.
    pub address: String,
    /// Encryption; absent means none.
    pub tls: Option<Tls>,
    /// Sent as `authorization: Bearer TOKEN`; not repeated in the report.
    #[serde(skip_serializing)]
    pub token: Option<String>,
    /// The model asked for; may be empty where the server has one.
    pub model: String,
    /// When requests are sent.
    pub load: Load,
    /// Seconds that count.
    pub duration_s: f64,
    /// Seconds before them.
    pub warmup_s: f64,
    /// Seconds that requests under way at the end still get.
    pub drain_s: f64,
    /// Of the schedule and of every request.
    pub seed: u64,
    /// Each request takes one of them, equally likely.
    pub prompts: Vec<Prompt>,
    /// Characters of a text.
    pub max_tokens: Spread,
    /// Of every request.
    pub temperature: Option<f64>,
    /// Of every request.
    pub top_k: Option<u32>,
    /// Of every request.
    pub top_p: Option<f64>,
    /// Characters a chunk holds before it is sent.
    pub chunk_chars: Option<u32>,
    /// Longest wait of a character before its chunk is sent.
    pub max_chunk_delay_ms: Option<u32>,
    /// Share of requests that the client cancels at a random character.
    pub cancel_fraction: f64,
    /// Share of requests read slowly, over a connection with hardly a window.
    pub slow_fraction: f64,
    /// What a slow reader waits between messages.
    pub slow_read_ms: f64,
    /// Time a request is given from when it was due; absent means all it takes.
    pub deadline_ms: Option<Spread>,
    /// What a request has to meet to be counted as good.
    pub slo: Slo,
    /// So many different texts, sent again and again; absent makes every request its own.
    pub distinct: Option<u64>,
    /// Compare each text with the same request run alone before; needs `distinct`.
    pub check: bool,
    /// Stop after so many requests.
    pub requests: Option<u64>,
    /// Requests under way at once; one that comes due beyond them is not sent and counted as dropped.
    pub max_active: usize,
    /// Connections that requests take in turns.
    pub connections: usize,
    /// Send requests on calls that they share (`GenerateMany`), but for those that are read slowly.
    pub multiplex: bool,
    /// Threads of the generator.
    pub threads: usize,
    /// Where to write a line for every request.
    pub csv: Option<PathBuf>,
}

/// Whom to trust.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the authority; absent means the system's.
    pub ca: Option<PathBuf>,
    /// Name in the server's certificate, where it is not the host of the address.
    pub server_name: Option<String>,
    /// PEM files of this client's certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// When requests are sent.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Load {
    /// By a schedule, whatever the server does.
    Open {
        /// Requests a second.
        rate: f64,
        /// Independent of one another, or one every `1 / rate`.
        poisson: bool,
    },
    /// Each of so many streams sends its next request when the last has ended.
    Closed {
        /// How many.
        streams: usize,
    },
}

/// What a text begins with.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// May be empty.
    pub text: String,
    /// Characters of the text, in place of the plan's.
    pub max_tokens: Option<u64>,
}

/// Limits of one request; an absent one holds always.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Slo {
    /// From when it was due to its first character.
    pub first_char_ms: Option<f64>,
    /// From its first chunk to its last, for each character after the first chunk.
    pub inter_char_ms: Option<f64>,
    /// From when it was due to its end.
    pub request_ms: Option<f64>,
}

impl Plan {
    /// The plan, if all of it can be done.
    pub fn checked(self) -> Result<Self, BenchError> {
        self.check_load()?;
        check("duration_s", self.duration_s, f64::MIN_POSITIVE, MAX_SECONDS)?;
        check("warmup_s", self.warmup_s, 0.0, MAX_SECONDS)?;
        check("drain_s", self.drain_s, 0.0, MAX_SECONDS)?;
        check("cancel_fraction", self.cancel_fraction, 0.0, 1.0)?;
        check("slow_fraction", self.slow_fraction, 0.0, 1.0)?;
        check("slow_read_ms", self.slow_read_ms, 0.0, MAX_SECONDS)?;
        check("max_active", self.max_active as f64, 1.0, 1e6)?;
        check("connections", self.connections as f64, 1.0, 10_000.0)?;
        check("threads", self.threads as f64, 1.0, 1024.0)?;
        self.max_tokens.check("max_tokens")?;
        self.deadline_ms.iter().try_for_each(|spread| spread.check("deadline_ms"))?;
        self.check_texts()?;
        Ok(self)
    }

    fn check_load(&self) -> Result<(), BenchError> {
        match self.load {
            Load::Open { rate, .. } => check("rate", rate, f64::MIN_POSITIVE, MAX_RATE),
            Load::Closed { streams } => check("streams", streams as f64, 1.0, 1e6),
        }
    }

    fn check_texts(&self) -> Result<(), BenchError> {
        if self.prompts.is_empty() {
            return Err(BenchError::Plan(
                "prompts is empty; give one, which may be an empty text".to_owned(),
            ));
        }
        if self.check && !matches!(self.distinct, Some(1..)) {
            let why = "check needs distinct of 1 or more: so many texts are run alone first";
            return Err(BenchError::Plan(why.to_owned()));
        }
        Ok(())
    }

    /// Before which nothing counts.
    pub(crate) fn warmup(&self) -> Duration {
        Duration::from_secs_f64(self.warmup_s)
    }

    /// After which nothing is due.
    pub(crate) fn end(&self) -> Duration {
        Duration::from_secs_f64(self.warmup_s + self.duration_s)
    }

    /// Whether something that happens then, from the start of the run, counts.
    pub(crate) fn counts(&self, at: Duration) -> bool {
        (self.warmup()..self.end()).contains(&at)
    }
}

fn check(name: &str, value: f64, low: f64, high: f64) -> Result<(), BenchError> {
    match (low..=high).contains(&value) {
        true => Ok(()),
        false if low > 0.0 && low < 1.0 => {
            Err(BenchError::Plan(format!("{name} is {value}; it must be above 0 and at most {high}")))
        }
        false => Err(BenchError::Plan(format!("{name} is {value}; it must be {low} to {high}"))),
    }
}
