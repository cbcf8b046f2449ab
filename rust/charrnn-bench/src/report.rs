//! `Report`: what a run showed, as JSON and as a table of requests.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::error::BenchError;
use crate::plan::Plan;
use crate::record::Record;
use crate::split::Split;
use crate::tally::{ServerTimes, Tally, Times};
use crate::watch::Tick;

/// What a run showed. Times are milliseconds.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The plan, but for its token.
    pub plan: Plan,
    /// Seconds that counted.
    pub window_s: f64,
    /// Requests that came due in the window, by how they ended.
    pub outcomes: BTreeMap<String, u64>,
    /// Of them those that were read slowly on purpose; they are in no latency.
    pub slow: u64,
    /// Requests a second that came due.
    pub rate: f64,
    /// Requests a second that met the SLO.
    pub goodput: f64,
    /// Their share of all but the cancelled and the slow ones.
    pub good_share: Option<f64>,
    /// Characters that came in the window.
    pub chars: u64,
    /// The same a second.
    pub chars_per_s: f64,
    /// Of a text from its first chunk to its last; `p1` is slower than 99 % of texts.
    pub stream_chars_per_s: Option<Pace>,
    /// From when a request was due until its first character.
    pub first_char_ms: Option<Quantiles>,
    /// Between characters: the wait for a chunk, shared by its characters.
    pub inter_char_ms: Option<Quantiles>,
    /// Between chunks.
    pub inter_chunk_ms: Option<Quantiles>,
    /// From when a request was due until its end, of whole texts.
    pub request_ms: Option<Quantiles>,
    /// How late requests were sent: the generator's own.
    pub lag_ms: Option<Quantiles>,
    /// What the server says of the texts it finished.
    pub server: Option<ServerReport>,
    /// Where its time went, if it counts (GetStats).
    pub split: Option<Split>,
    /// Different messages of errors, a few.
    pub messages: Vec<String>,
    /// Second by second, warm-up and drain included.
    pub ticks: Vec<Tick>,
}

/// Characters a second of single texts.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "quantiles")]
pub struct Pace {
    pub p1: f64,
    pub p50: f64,
    pub p99: f64,
}

/// Of some times, in milliseconds.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "quantiles")]
pub struct Quantiles {
    pub count: u64,
    pub mean: f64,
    pub min: f64,
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
    /// Pairs of a share of the times and the time that share stays within.
    pub cdf: Vec<(f64, f64)>,
}

/// What the server says of the texts it finished, in its own clock.
#[derive(Debug, Serialize)]
pub struct ServerReport {
    /// From acceptance to the first step.
    pub queue_ms: Option<Quantiles>,
    /// From acceptance to the first character.
    pub first_char_ms: Option<Quantiles>,
    /// From acceptance to the end.
    pub total_ms: Option<Quantiles>,
    /// Streams in a batch, over all steps.
    pub mean_batch: f64,
}

impl Report {
    pub(crate) fn new(
        plan: &Plan,
        tally: Tally,
        ticks: Vec<Tick>,
        elapsed: Duration,
        split: Option<Split>,
    ) -> Self {
        let window_s = (elapsed.min(plan.end()).saturating_sub(plan.warmup())).as_secs_f64();
        let per_second = |count: u64| if window_s > 0.0 { count as f64 / window_s } else { 0.0 };
        let num_due: u64 = tally.outcomes.values().sum();
        Report {
            plan: plan.clone(),
            window_s,
            slow: tally.slow,
            rate: per_second(num_due),
            goodput: per_second(tally.good),
            good_share: (tally.judged > 0).then(|| tally.good as f64 / tally.judged as f64),
            chars: tally.chars,
            chars_per_s: per_second(tally.chars),
            stream_chars_per_s: Pace::new(&tally.stream_pace),
            first_char_ms: Quantiles::new(&tally.first_char),
            inter_char_ms: Quantiles::new(&tally.inter_char),
            inter_chunk_ms: Quantiles::new(&tally.inter_chunk),
            request_ms: Quantiles::new(&tally.request),
            lag_ms: Quantiles::new(&tally.lag),
            server: ServerReport::new(&tally.server),
            split,
            outcomes: tally.outcomes,
            messages: tally
                .messages
                .iter()
                .map(|(what, number)| format!("{what} (request {number})"))
                .collect(),
            ticks,
        }
    }
}

impl Pace {
    /// From times a character.
    fn new(times: &Times) -> Option<Self> {
        let pace = |quantile| 1e9 / times.0.value_at_quantile(1.0 - quantile) as f64;
        (!times.0.is_empty()).then(|| Pace { p1: pace(0.01), p50: pace(0.5), p99: pace(0.99) })
    }
}

impl Quantiles {
    fn new(times: &Times) -> Option<Self> {
        let at = |quantile| ms(times.0.value_at_quantile(quantile));
        (!times.0.is_empty()).then(|| Quantiles {
            count: times.0.len(),
            mean: times.0.mean() / 1e6,
            min: ms(times.0.min()),
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            max: ms(times.0.max()),
            cdf: cdf_shares(times.0.len()).map(|share| (share, at(share))).collect(),
        })
    }
}

/// Twenty steps for each decimal of the tail, as long as single times can be told apart.
fn cdf_shares(count: u64) -> impl Iterator<Item = f64> {
    let shares = (0..5).flat_map(|digits: i32| {
        let tail = 0.1f64.powi(digits);
        (0..18).map(move |step| 1.0 - tail + tail * f64::from(step) / 20.0)
    });
    let finest = 1.0 - 1.0 / count as f64;
    shares.take_while(move |&share| share <= finest).chain([1.0])
}

impl ServerReport {
    fn new(times: &ServerTimes) -> Option<Self> {
        (times.steps > 0).then(|| ServerReport {
            queue_ms: Quantiles::new(&times.queue),
            first_char_ms: Quantiles::new(&times.first_char),
            total_ms: Quantiles::new(&times.total),
            mean_batch: times.batch_steps / times.steps as f64,
        })
    }
}

pub(crate) fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// The file of the table of requests, empty.
pub(crate) fn create_csv(path: &Path) -> Result<File, BenchError> {
    File::create(path).map_err(|source| BenchError::Write { path: path.to_owned(), source })
}

/// A line for each request that counted.
pub(crate) fn write_csv(path: &Path, file: File, rows: &[Record]) -> Result<(), BenchError> {
    write_rows(file, rows).map_err(|source| BenchError::Write { path: path.to_owned(), source })
}

fn write_rows(file: File, rows: &[Record]) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    writeln!(
        out,
        "request,outcome,slow,due_s,lag_ms,first_char_ms,inter_char_ms,request_ms,chars,chunks,server_queue_ms"
    )?;
    for row in rows {
        let ms = |time: Option<Duration>| {
            time.map_or_else(String::new, |time| format!("{:.6}", time.as_secs_f64() * 1e3))
        };
        let queue = row.server.as_ref().map(|timing| Duration::from_micros(timing.queue_us));
        let (lag, first, inter, request) =
            (ms(row.lag()), ms(row.first_char()), ms(row.inter_char()), ms(Some(row.request())));
        writeln!(
            out,
            "{},{},{},{:.9},{lag},{first},{inter},{request},{},{},{}",
            row.number,
            row.outcome.name(),
            u8::from(row.is_slow),
            row.due.as_secs_f64(),
            row.num_chars,
            row.num_chunks,
            ms(queue)
        )?;
    }
    out.flush()
}
