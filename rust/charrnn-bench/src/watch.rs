//! A run looked at from outside, every second: what its requests did, and what server and generator took.

use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

use charrnn_serve::pb::ModelStats;
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::check::POLL;
use crate::client::Connections;
use crate::plan::Plan;
use crate::process::{server_pid, usage, Usage};
use crate::report::ms;
use crate::run::Run;
use crate::split::Split;
use crate::tally::Interval;

/// Between two looks.
const TICK: Duration = Duration::from_secs(1);

/// A second of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Tick {
    /// From the start of the run, warm-up included, to the end of this interval.
    pub t_s: f64,
    /// How long it is; the last may be short.
    pub interval_s: f64,
    /// Requests under way.
    pub active: u64,
    /// Requests that began.
    pub sent: u64,
    /// Requests that ended, errors included.
    pub ended: u64,
    /// Requests that ended in an error.
    pub errors: u64,
    /// Characters that came.
    pub chars: u64,
    /// Median of the requests that ended.
    pub first_char_p50_ms: Option<f64>,
    /// Their 99th percentile.
    pub first_char_p99_ms: Option<f64>,
    /// Processor seconds a second of the server, if it is on this machine.
    pub server_cores: Option<f64>,
    /// Its resident memory.
    pub server_rss_bytes: Option<u64>,
    /// Processor seconds a second of this process.
    pub generator_cores: Option<f64>,
    /// Its resident memory.
    pub generator_rss_bytes: Option<u64>,
}

/// Looks at a run from outside.
pub(crate) struct Watcher<'a> {
    run: &'a Run,
    pub(crate) plan: Arc<Plan>,
    server: Option<u32>,
    /// To ask the server over.
    line: (Runtime, Connections),
    /// What it said at the start and at the end of the window.
    stats: Option<(ModelStats, ModelStats)>,
    last: (Duration, Option<Usage>, Option<Usage>),
}

impl<'a> Watcher<'a> {
    pub(crate) fn new(run: &'a Run, line: (Runtime, Connections)) -> Self {
        let server = server_pid(&run.plan.address).filter(|&pid| pid != std::process::id());
        let mut watcher =
            Watcher { run, plan: Arc::clone(&run.plan), server, line, stats: None, last: Default::default() };
        watcher.last = (Duration::ZERO, watcher.server_usage(), usage(std::process::id()));
        watcher
    }

    fn server_usage(&self) -> Option<Usage> {
        self.server.and_then(usage)
    }

    /// A tick a second until all threads are done; one falls on the end of the warm-up.
    pub(crate) fn watch(&mut self, look: &mut impl FnMut(Option<&Tick>) -> bool) -> Vec<Tick> {
        let fraction = self.plan.warmup_s.fract();
        let mut at = if fraction > 0.0 { Duration::from_secs_f64(fraction) } else { TICK };
        let mut ticks = Vec::new();
        loop {
            let is_over = self.wait_until(at, look);
            self.ask();
            let tick = self.look();
            self.go_on(look(Some(&tick)));
            ticks.push(tick);
            if is_over {
                return ticks;
            }
            at += TICK;
        }
    }

    /// Notes what the server has counted, as long as it counts in this run.
    fn ask(&mut self) {
        // The tick at the end of the window may come a moment after it.
        if self.run.began.elapsed() < self.plan.warmup()
            || self.run.began.elapsed() > self.plan.end() + TICK / 2
        {
            return;
        }
        let (runtime, connections) = &self.line;
        if let Some(now) = runtime.block_on(connections.stats(&self.plan.model)) {
            let first = self.stats.take().map_or_else(|| now.clone(), |(first, _)| first);
            self.stats = Some((first, now));
        }
    }

    pub(crate) fn split(&self) -> Option<Split> {
        self.stats.as_ref().and_then(|(before, after)| Split::between(before, after))
    }

    fn go_on(&self, goes_on: bool) {
        if !goes_on {
            self.run.stop.send_replace(true);
        }
    }

    /// Whether the run was over before then.
    fn wait_until(&self, at: Duration, look: &mut impl FnMut(Option<&Tick>) -> bool) -> bool {
        loop {
            let left = at.saturating_sub(self.run.began.elapsed());
            if self.run.is_over() {
                return true;
            }
            if left.is_zero() {
                return false;
            }
            self.go_on(look(None));
            thread::sleep(left.min(POLL));
        }
    }

    fn look(&mut self) -> Tick {
        let now = (self.run.began.elapsed(), self.server_usage(), usage(std::process::id()));
        let before = std::mem::replace(&mut self.last, now);
        let interval_s = (now.0 - before.0).as_secs_f64();
        let cores = |now: Option<Usage>, before: Option<Usage>| {
            now.zip(before).map(|(now, before)| (now.cpu_s - before.cpu_s) / interval_s)
        };
        let (active, interval) = self.collect();
        let first_char = |quantile| {
            (!interval.first_char.0.is_empty()).then(|| ms(interval.first_char.0.value_at_quantile(quantile)))
        };
        Tick {
            t_s: now.0.as_secs_f64(),
            interval_s,
            active,
            sent: interval.sent,
            ended: interval.ended,
            errors: interval.errors,
            chars: interval.chars,
            first_char_p50_ms: first_char(0.5),
            first_char_p99_ms: first_char(0.99),
            server_cores: cores(now.1, before.1),
            server_rss_bytes: now.1.map(|usage| usage.rss_bytes),
            generator_cores: cores(now.2, before.2),
            generator_rss_bytes: now.2.map(|usage| usage.rss_bytes),
        }
    }

    fn collect(&self) -> (u64, Interval) {
        let (mut active, mut interval) = (0, Interval::default());
        for tally in &self.run.tallies {
            let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            active += tally.active;
            interval.merge(&std::mem::take(&mut tally.interval));
        }
        (active, interval)
    }
}
