//! `run_load`: a plan carried out by threads of its own.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::check::prepare;
use crate::client::Connections;
use crate::error::BenchError;
use crate::job::Jobs;
use crate::pacer::{due_times, pace, Arrivals, Due};
use crate::plan::{Load, Plan};
use crate::report::{create_csv, write_csv, Report};
use crate::stream::Shard;
use crate::tally::Tally;
use crate::watch::{Tick, Watcher};

/// What a closed stream waits after an error: a server that refuses at once is not to be asked without a pause.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Carries out `plan`; blocks. `look` sees every second of the run, and is asked in between, every 20 ms and also
/// before the load begins; it ends the run by returning false.
pub fn run_load(plan: Plan, mut look: impl FnMut(Option<&Tick>) -> bool) -> Result<Report, BenchError> {
    let plan = Arc::new(plan.checked()?);
    // Before minutes of load, of which nothing may be lost.
    let csv = plan.csv.as_deref().map(create_csv).transpose()?;
    let runtime = runtime()?;
    let expected = Arc::new(runtime.block_on(prepare(&plan, || look(None)))?);
    let connections =
        runtime.block_on(async { Connections::new(&Plan { connections: 1, ..Plan::clone(&plan) }) })?;
    let run = Run::start(plan, expected)?;
    let mut watcher = Watcher::new(&run, (runtime, connections));
    let ticks = watcher.watch(&mut look);
    let (plan, split) = (Arc::clone(&watcher.plan), watcher.split());
    // A schedule goes on to its end, whether its last requests were early or not.
    let is_whole = matches!(plan.load, Load::Open { .. }) && plan.requests.is_none() && !*run.stop.borrow();
    let (elapsed, tally) = run.join()?;
    let elapsed = if is_whole { elapsed.max(plan.end()) } else { elapsed };
    if let (Some(path), Some(file)) = (&plan.csv, csv) {
        write_csv(path, file, &tally.rows)?;
    }
    Ok(Report::new(&plan, tally, ticks, elapsed, split))
}

fn runtime() -> Result<Runtime, BenchError> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// Threads that send.
pub(crate) struct Run {
    pub(crate) plan: Arc<Plan>,
    pub(crate) began: Instant,
    pub(crate) tallies: Vec<Arc<Mutex<Tally>>>,
    threads: Vec<JoinHandle<()>>,
    pub(crate) stop: watch::Sender<bool>,
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
                num_seen: Cell::new(0),
            };
            let stopped = stop.subscribe();
            threads.push(thread::spawn(move || runtime.block_on(sender.run(stopped))));
        }
        Ok(Run { plan, began, tallies, threads, stop })
    }

    pub(crate) fn is_over(&self) -> bool {
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
    /// Requests of the schedule so far.
    num_seen: Cell<usize>,
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
        self.drop_the_rest();
    }

    /// Counts what came due and was never looked at: the generator fell behind its schedule.
    fn drop_the_rest(&self) {
        let plan = &self.shard.plan;
        let Load::Open { rate, poisson } = plan.load else { return };
        let (now, arrivals) = (self.shard.now(), Arrivals { rate, poisson, seed: plan.seed });
        let limit = usize::try_from(plan.requests.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        let due = due_times(arrivals).take_while(|&at| at < plan.end().min(now)).take(limit).enumerate();
        for (number, at) in due.skip(self.index).step_by(plan.threads).skip(self.num_seen.get()) {
            self.shard.drop_one(number as u64, at);
        }
    }

    async fn open(&self, arrivals: Arrivals, streams: &mut JoinSet<bool>) {
        let plan = &self.shard.plan;
        let place = (self.index, plan.threads);
        let most = plan.max_active.div_ceil(plan.threads);
        let requests = plan.requests.unwrap_or(u64::MAX);
        let mut due = pace(arrivals, place, self.shard.began, plan.end(), requests);
        while let Some(next) = due.recv().await {
            self.num_seen.set(self.num_seen.get() + 1);
            while streams.try_join_next().is_some() {}
            if streams.len() >= most {
                self.shard.drop_one(next.number, next.at);
                continue;
            }
            let (shard, job) = (Arc::clone(&self.shard), self.jobs.get(next.number));
            let unbegun = Unbegun { shard: Arc::clone(&shard), due: Some(next) };
            streams.spawn(async move {
                unbegun.begin();
                shard.send(job, next.at).await
            });
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

/// A request whose task the runtime has yet to look at. If it never does, the request was dropped.
struct Unbegun {
    shard: Arc<Shard>,
    due: Option<Due>,
}

impl Unbegun {
    fn begin(mut self) {
        self.due = None;
    }
}

impl Drop for Unbegun {
    fn drop(&mut self) {
        self.due.take().into_iter().for_each(|due| self.shard.drop_one(due.number, due.at));
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
