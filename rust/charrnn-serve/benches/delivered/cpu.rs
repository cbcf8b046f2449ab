//! Characters, and what they took in time and in processor time.

use std::fs;
use std::time::{Duration, Instant};

/// Linux counts in hundredths of a second for programs, whatever its own clock.
const TICKS_PER_SECOND: f64 = 100.0;

/// The start of a measurement.
pub(crate) struct Stopwatch {
    began: Instant,
    cpu: f64,
}

/// Characters made over some time by the whole process.
#[derive(Clone, Copy)]
pub(crate) struct Yield {
    num_chars: f64,
    elapsed: Duration,
    cpu_s: f64,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Stopwatch { began: Instant::now(), cpu: process_cpu_s() }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn stop(&self, num_chars: u64) -> Yield {
        Yield { num_chars: num_chars as f64, elapsed: self.elapsed(), cpu_s: process_cpu_s() - self.cpu }
    }
}

impl Yield {
    pub(crate) fn per_second(&self) -> f64 {
        self.num_chars / self.elapsed.as_secs_f64()
    }

    /// Processor microseconds a character, over all threads; NaN where the system does not say.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.cpu_s * 1e6 / self.num_chars
    }
}

/// User and system time of all threads: fields 14 and 15, counted from the end of the name in parentheses.
fn process_cpu_s() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|field| field.parse::<f64>().ok()).unwrap_or(f64::NAN);
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}
