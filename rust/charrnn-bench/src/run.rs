//! `run_load`: a plan carried out by threads of its own, and a look at it every second.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::check::solo_texts;
use crate::client::{probe, Connections};
use crate::error::BenchError;
use crate::job::Jobs;
use crate::pacer::{pace, Arrivals};
use crate::plan::{Load, Plan};
use crate::process::{server_pid, usage, Usage};
use crate::report::{ms, write_csv, Report};
use crate::stream::Shard;
use crate::tally::{Interval, Tally};

/// Between two looks.
const TICK: Duration = Duration::from_secs(1);
/// How soon the end of a run is noticed.
const POLL: Duration = Duration::from_millis(20);
/// What a closed stream waits after an error: a server that refuses at once is not to be asked without a pause.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

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

/// Carries out `plan`; blocks. `on_tick` sees every second and ends the run by returning false.
pub fn run_load(plan: Plan, mut on_tick: impl FnMut(&Tick) -> bool) -> Result<Report, BenchError> {
    let plan = Arc::new(plan.checked()?);
    let runtime = runtime()?;
    runtime.block_on(probe(&plan))?;
    let expected = Arc::new(runtime.block_on(solo_texts(&plan))?);
    drop(runtime);
    let run = Run::start(plan, expected)?;
    let mut watcher = Watcher::new(&run);
    let ticks = watcher.watch(&mut on_tick);
    let plan = watcher.plan;
    let (elapsed, tally) = run.join()?;
    plan.csv.iter().try_for_each(|path| write_csv(path, &tally.rows))?;
    Ok(Report::new(&plan, tally, ticks, elapsed))
}

fn runtime() -> Result<Runtime, BenchError> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// Threads that send.
struct Run {
    plan: Arc<Plan>,
    began: Instant,
    tallies: Vec<Arc<Mutex<Tally>>>,
    threads: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

impl Run {
    fn start(plan: Arc<Plan>, expected: Arc<Vec<String>>) -> Result<Self, BenchError> {
        let (stop, _) = watch::channel(false);
        let next = Arc::new(AtomicU64::new(0));
        let tallies: Vec<_> = (0..plan.threads).map(|_| Arc::new(Mutex::new(Tally::default()))).collect();
        // Each connection belongs to one thread.
        let share = Plan { connections: plan.connections.div_ceil(plan.threads), ..Plan::clone(&plan) };
        let runtimes = (0..plan.threads).map(|_| runtime()).collect::<Result<Vec<_>, _>>()?;
        let began = Instant::now();
        let mut threads = Vec::new();
        for (index, runtime) in runtimes.into_iter().enumerate() {
            let connections = {
                let _guard = runtime.enter();
                Connections::new(&share)?
            };
            let (plan, expected) = (Arc::clone(&plan), Arc::clone(&expected));
            let shard = Shard { plan, began, connections, tally: Arc::clone(&tallies[index]), expected };
            let sender = Sender {
                jobs: Jobs::new(Plan::clone(&shard.plan)),
                shard: Arc::new(shard),
                index,
                next: Arc::clone(&next),
            };
            let stopped = stop.subscribe();
            threads.push(thread::spawn(move || runtime.block_on(sender.run(stopped))));
        }
        Ok(Run { plan, began, tallies, threads, stop })
    }

    fn is_over(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    fn join(self) -> Result<(Duration, Tally), BenchError> {
        for thread in self.threads {
            thread.join().map_err(|_| std::io::Error::other("a thread of the generator panicked"))?;
        }
        let elapsed = self.began.elapsed();
        let mut all = Tally::default();
        for tally in self.tallies {
            all.merge(std::mem::take(&mut *tally.lock().unwrap_or_else(PoisonError::into_inner)));
        }
        all.rows.sort_by_key(|row| row.number);
        Ok((elapsed, all))
    }
}

/// One thread's part of the requests.
struct Sender {
    jobs: Jobs,
    shard: Arc<Shard>,
    index: usize,
    next: Arc<AtomicU64>,
}

impl Sender {
    /// Sends all that is due, then waits for what is under way as long as the plan says.
    async fn run(self, mut stopped: watch::Receiver<bool>) {
        let plan = Arc::clone(&self.shard.plan);
        let last = plan.end() + Duration::from_secs_f64(plan.drain_s);
        let mut streams = JoinSet::new();
        let work = async {
            match plan.load {
                Load::Open { rate, poisson } => {
                    let arrivals = Arrivals { rate, poisson, seed: plan.seed };
                    self.open(arrivals, &mut streams).await;
                }
                Load::Closed { streams: count } => self.closed(count, &mut streams),
            }
            while streams.join_next().await.is_some() {}
        };
        tokio::select! {
            () = work => {}
            _ = stopped.wait_for(|&stopped| stopped) => {}
            () = tokio::time::sleep_until((self.shard.began + last).into()) => {}
        }
        streams.shutdown().await;
    }

    async fn open(&self, arrivals: Arrivals, streams: &mut JoinSet<bool>) {
        let plan = &self.shard.plan;
        let place = (self.index, plan.threads);
        let most = plan.max_active.div_ceil(plan.threads);
        let requests = plan.requests.unwrap_or(u64::MAX);
        let mut due = pace(arrivals, place, self.shard.began, plan.end(), requests);
        while let Some(next) = due.recv().await {
            while streams.try_join_next().is_some() {}
            if streams.len() >= most {
                self.shard.drop_one(next.number, next.at);
                continue;
            }
            let (shard, job) = (Arc::clone(&self.shard), self.jobs.get(next.number));
            streams.spawn(async move { shard.send(job, next.at).await });
        }
    }

    fn closed(&self, count: usize, streams: &mut JoinSet<bool>) {
        for _ in (self.index..count).step_by(self.shard.plan.threads) {
            let (shard, jobs, next) = (Arc::clone(&self.shard), self.jobs.clone(), Arc::clone(&self.next));
            streams.spawn(async move {
                send_in_turn(&shard, &jobs, &next).await;
                true
            });
        }
    }
}

/// One stream of a closed load.
async fn send_in_turn(shard: &Shard, jobs: &Jobs, next: &AtomicU64) {
    let requests = shard.plan.requests.unwrap_or(u64::MAX);
    while shard.now() < shard.plan.end() {
        let number = next.fetch_add(1, Relaxed);
        if number >= requests {
            return;
        }
        if !shard.send(jobs.get(number), shard.now()).await {
            tokio::time::sleep(ERROR_PAUSE).await;
        }
    }
}

/// Looks at a run from outside.
struct Watcher<'a> {
    run: &'a Run,
    plan: Arc<Plan>,
    server: Option<u32>,
    last: (Duration, Option<Usage>, Option<Usage>),
}

impl<'a> Watcher<'a> {
    fn new(run: &'a Run) -> Self {
        let server = server_pid(&run.plan.address).filter(|&pid| pid != std::process::id());
        let mut watcher = Watcher { run, plan: Arc::clone(&run.plan), server, last: Default::default() };
        watcher.last = (Duration::ZERO, watcher.server_usage(), usage(std::process::id()));
        watcher
    }

    fn server_usage(&self) -> Option<Usage> {
        self.server.and_then(usage)
    }

    /// A tick a second until all threads are done; one falls on the end of the warm-up.
    fn watch(&mut self, on_tick: &mut impl FnMut(&Tick) -> bool) -> Vec<Tick> {
        let fraction = self.plan.warmup_s.fract();
        let mut at = if fraction > 0.0 { Duration::from_secs_f64(fraction) } else { TICK };
        let mut ticks = Vec::new();
        loop {
            let is_over = self.wait_until(at);
            let tick = self.look();
            if !on_tick(&tick) {
                self.run.stop.send_replace(true);
            }
            ticks.push(tick);
            if is_over {
                return ticks;
            }
            at += TICK;
        }
    }

    /// Whether the run was over before then.
    fn wait_until(&self, at: Duration) -> bool {
        loop {
            let left = at.saturating_sub(self.run.began.elapsed());
            if self.run.is_over() {
                return true;
            }
            if left.is_zero() {
                return false;
            }
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
