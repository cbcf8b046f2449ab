//! Who may come in, and how many are in: the counters that all workers and the engine's front share.
//!
//! Knows numbers only, no stream. What is counted is given back when its ticket is dropped, whatever the way.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::shares::{Room, Shares};
use crate::meter::{Outcome, Stats, Streams, Turns};

/// Why a request was turned away at the door.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Every slot is taken and so is every place in the queue, but for those kept for others.
    #[error(
        "the queue is full: all slots are taken and max_queue = {max_queue} requests wait, or a place is kept for \
         a client that has fewer texts; try again later"
    )]
    QueueFull {
        /// The limit on waiting requests.
        max_queue: usize,
    },
    /// The engine takes no more requests.
    #[error("the server is stopping; send the request again elsewhere")]
    Stopping,
}

/// One place in so many of the queue is kept for clients that were refused, at most.
pub const KEPT_PART: usize = 8;

/// The load of one worker.
#[derive(Debug, Default)]
struct Load {
    live: AtomicUsize,
    running: AtomicUsize,
    is_dead: AtomicBool,
}

/// The engine-wide limit on live streams (waiting, running or parked) and the switches that end them.
///
/// Slots and queue are one limit, so that parked streams, which hold no slot, still count.
#[derive(Debug)]
pub(crate) struct Admission {
    num_slots: usize,
    max_queue: usize,
    live: AtomicUsize,
    shares: Mutex<Shares>,
    streams: Streams,
    turns: Vec<Turns>,
    loads: Vec<Load>,
    is_stopping: AtomicBool,
    is_aborting: AtomicBool,
    emptied: (Mutex<()>, Condvar),
}

impl Admission {
    /// Room for `num_slots` streams over all workers and `max_queue` more.
    pub(crate) fn new(num_workers: usize, num_slots: usize, max_queue: usize) -> Self {
        Admission {
            num_slots,
            max_queue,
            live: AtomicUsize::new(0),
            shares: Mutex::default(),
            streams: Streams::default(),
            turns: (0..num_workers).map(|_| Turns::default()).collect(),
            loads: (0..num_workers).map(|_| Load::default()).collect(),
            is_stopping: AtomicBool::new(false),
            is_aborting: AtomicBool::new(false),
            emptied: (Mutex::new(()), Condvar::new()),
        }
    }

    /// Takes a place for `client` with the least loaded worker, at once or not at all.
    pub(crate) fn admit(self: &Arc<Self>, client: &Arc<str>, now: Instant) -> Result<Ticket, SubmitError> {
        let ticket = self.take_place(client, now);
        match &ticket {
            Ok(_) => {}
            Err(SubmitError::QueueFull { .. }) => drop(self.streams.queue_full.fetch_add(1, Relaxed)),
            Err(SubmitError::Stopping) => drop(self.streams.stopping.fetch_add(1, Relaxed)),
        }
        ticket
    }

    /// What `admit` would say of any request of `client` just now, if that is that there is no room; it counts as said.
    pub(crate) fn turn_away(&self, client: &Arc<str>, now: Instant) -> Option<SubmitError> {
        let is_full = !self.is_stopping() && !self.shares().admits(client, self.room(), now);
        is_full.then(|| {
            self.streams.queue_full.fetch_add(1, Relaxed);
            SubmitError::QueueFull { max_queue: self.max_queue }
        })
    }

    fn room(&self) -> Room {
        let capacity = self.num_slots.saturating_add(self.max_queue);
        // A slot is kept for nobody: it would be idle. Of the queue not much, or clients that never come back empty it.
        let max_kept = self.max_queue.div_ceil(KEPT_PART);
        Room { capacity, free: capacity.saturating_sub(self.live.load(SeqCst)), max_kept }
    }

    fn shares(&self) -> MutexGuard<'_, Shares> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_place(self: &Arc<Self>, client: &Arc<str>, now: Instant) -> Result<Ticket, SubmitError> {
        let worker = self.least_loaded().filter(|_| !self.is_stopping()).ok_or(SubmitError::Stopping)?;
        // Places are taken under the lock, so that none is taken twice.
        let mut shares = self.shares();
        if !shares.admits(client, self.room(), now) {
            return Err(SubmitError::QueueFull { max_queue: self.max_queue });
        }
        shares.begin(client);
        self.live.fetch_add(1, SeqCst);
        drop(shares);
        self.loads[worker].live.fetch_add(1, SeqCst);
        let client = Arc::clone(client);
        let ticket = Ticket { admission: Arc::clone(self), client, worker, is_running: false, outcome: None };
        // Again, now that the place shows: either this sees the stop or the drain sees the place.
        if self.is_stopping() {
            return Err(SubmitError::Stopping);
        }
        Ok(ticket)
    }

    fn least_loaded(&self) -> Option<usize> {
        let alive = self.loads.iter().enumerate().filter(|(_, load)| !load.is_dead.load(SeqCst));
        alive.min_by_key(|(_, load)| load.live.load(SeqCst)).map(|(worker, _)| worker)
    }

    /// Streams that had a slot and are not over.
    pub(crate) fn num_running(&self) -> usize {
        self.loads.iter().map(|load| load.running.load(SeqCst)).sum()
    }

    /// Streams that never had a slot yet.
    pub(crate) fn num_waiting(&self) -> usize {
        self.live.load(SeqCst).saturating_sub(self.num_running())
    }

    /// What a worker's turns took so far.
    pub(crate) fn turns(&self, worker: usize) -> &Turns {
        &self.turns[worker]
    }

    /// All of it, at about this moment.
    pub(crate) fn stats(&self) -> Stats {
        let (running, waiting) = (self.num_running(), self.num_waiting());
        Stats { slots: self.num_slots, running, waiting, ..Stats::read(&self.streams, &self.turns) }
    }

    /// From here on `admit` says `Stopping`.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, SeqCst);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(SeqCst)
    }

    /// From here on workers end their streams at their next turn.
    pub(crate) fn abort(&self) {
        self.stop();
        self.is_aborting.store(true, SeqCst);
    }

    pub(crate) fn is_aborting(&self) -> bool {
        self.is_aborting.load(SeqCst)
    }

    /// A worker's thread is gone: nothing is sent there any more.
    pub(crate) fn bury(&self, worker: usize) {
        self.loads[worker].is_dead.store(true, SeqCst);
    }

    /// Whether a worker's thread is gone.
    pub(crate) fn is_broken(&self) -> bool {
        self.loads.iter().any(|load| load.is_dead.load(SeqCst))
    }

    /// Blocks until no stream is live; false after `timeout`.
    pub(crate) fn wait_until_empty(&self, timeout: Duration) -> bool {
        let (mutex, emptied) = &self.emptied;
        let guard = mutex.lock().unwrap_or_else(PoisonError::into_inner);
        let is_live = |_: &mut ()| self.live.load(SeqCst) > 0;
        drop(emptied.wait_timeout_while(guard, timeout, is_live));
        self.live.load(SeqCst) == 0
    }

    fn give_back(&self, client: &Arc<str>, worker: usize, was_running: bool) {
        self.shares().end(client);
        if was_running {
            self.loads[worker].running.fetch_sub(1, SeqCst);
        }
        self.loads[worker].live.fetch_sub(1, SeqCst);
        if self.live.fetch_sub(1, SeqCst) == 1 {
            // Under the lock, or the news could fall between a waiter's look and its sleep.
            let _guard = self.emptied.0.lock().unwrap_or_else(PoisonError::into_inner);
            self.emptied.1.notify_all();
        }
    }
}

/// A live stream's place; dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct Ticket {
    admission: Arc<Admission>,
    client: Arc<str>,
    worker: usize,
    is_running: bool,
    /// None until a stream has it.
    outcome: Option<Outcome>,
}

impl Ticket {
    /// Counts the stream that has it, as cancelled unless `end` says otherwise.
    pub(crate) fn begin(&mut self) {
        self.outcome = Some(Outcome::Cancelled);
    }

    /// How its stream ended.
    pub(crate) fn end(&mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }

    /// What the streams of the engine did so far.
    pub(crate) fn streams(&self) -> &Streams {
        &self.admission.streams
    }

    /// The worker that runs the stream.
    pub(crate) fn worker(&self) -> usize {
        self.worker
    }

    /// The stream got its first slot.
    pub(crate) fn start(&mut self) {
        if !std::mem::replace(&mut self.is_running, true) {
            self.admission.loads[self.worker].running.fetch_add(1, SeqCst);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.outcome.into_iter().for_each(|outcome| self.admission.streams.count(outcome));
        self.admission.give_back(&self.client, self.worker, self.is_running);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(admission: &Arc<Admission>) -> Result<Ticket, SubmitError> {
        admission.admit(&Arc::from("a"), Instant::now())
    }

    fn turn_away(admission: &Admission) -> Option<SubmitError> {
        admission.turn_away(&Arc::from("a"), Instant::now())
    }

    #[test]
    fn requests_go_to_the_least_loaded_worker_alive() {
        let admission = Arc::new(Admission::new(3, 9, 0));
        let mut tickets: Vec<Ticket> = (0..4).map(|_| admit(&admission).expect("room")).collect();
        let workers: Vec<usize> = tickets.iter().map(Ticket::worker).collect();
        assert_eq!(workers, [0, 1, 2, 0]);
        assert!(!admission.is_broken());
        drop(tickets.remove(1));
        admission.bury(0);
        assert_eq!(admit(&admission).expect("room").worker(), 1);
        assert!(admission.is_broken());
        (1..3).for_each(|worker| admission.bury(worker));
        assert_eq!(admit(&admission).expect_err("all dead"), SubmitError::Stopping);
    }

    #[test]
    fn a_dropped_ticket_gives_back_all_it_counted() {
        let admission = Arc::new(Admission::new(1, 1, 1));
        let mut first = admit(&admission).expect("a slot");
        first.start();
        first.start();
        let second = admit(&admission).expect("a place in the queue");
        assert_eq!((admission.num_running(), admission.num_waiting()), (1, 1));
        assert_eq!(admit(&admission).expect_err("full"), SubmitError::QueueFull { max_queue: 1 });
        assert_eq!(turn_away(&admission), Some(SubmitError::QueueFull { max_queue: 1 }));
        assert_eq!(admission.stats().queue_full, 2);
        drop(first);
        assert_eq!(turn_away(&admission), None);
        assert_eq!((admission.num_running(), admission.num_waiting()), (0, 1));
        assert!(!admission.wait_until_empty(Duration::ZERO));
        drop(second);
        assert!(admission.wait_until_empty(Duration::ZERO));
    }

    #[test]
    fn a_stopped_engine_admits_nobody() {
        let admission = Arc::new(Admission::new(1, 1, 0));
        let _ticket = admit(&admission).expect("a slot");
        admission.stop();
        assert_eq!(turn_away(&admission), None);
        assert_eq!(admit(&admission).expect_err("stopped"), SubmitError::Stopping);
        assert_eq!(admission.num_waiting(), 1);
    }
}
