//! Runs a trace on a real engine, turn by turn, and checks what must hold whatever happens.

use std::collections::HashSet;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use charrnn_core::engine::{EngineConfig, SubmitError, KEPT_PART, PATIENCE};
use charrnn_core::meter::Outcome;

use crate::common::requests::poison;
use crate::common::{bytes, letters, pipe_with, Faults, Rig};
use crate::texts::{Rest, Text};
use crate::trace::{Audience, Op, Poison, Trace};
use charrnn_core::vocab::Unit;

/// Many times what the longest text takes.
const MAX_TURNS: usize = 5_000;

/// A reader without haste.
const CALM: Audience = Audience { client: "", capacity: 99, keeps_place: true, time: None };

/// Runs a trace to the end of all its texts, and then those that were cut to their own.
///
/// # Panics
/// With what is wrong.
pub(crate) fn run(trace: Trace) {
    let mut world = World::new(trace.clone());
    trace.ops.into_iter().for_each(|op| world.apply(op));
    world.restart();
    world.complete();
}

struct World {
    trace: Trace,
    rig: Rig,
    stall_timeout: Duration,
    texts: Vec<Text>,
    /// Texts of the engines before this one.
    past: Vec<Text>,
    /// Requests refused because the queue was full, and because the engine was stopping.
    num_refused: (u64, u64),
    /// Clients that were refused for want of room, and when.
    refused: Vec<(&'static str, Instant)>,
    is_stopped: bool,
    is_aborted: bool,
}

impl World {
    fn new(trace: Trace) -> Self {
        World {
            rig: rig(&trace),
            stall_timeout: Duration::from_millis(trace.stall_ms),
            trace,
            texts: Vec::new(),
            past: Vec::new(),
            num_refused: (0, 0),
            refused: Vec::new(),
            is_stopped: false,
            is_aborted: false,
        }
    }

    fn apply(&mut self, op: Op) {
        let now = self.rig.now();
        match op {
            Op::Submit(wanted) => self.submit((*wanted).into()),
            Op::Resume { text, audience } => {
                self.rest(text, audience).into_iter().for_each(|it| self.submit(it))
            }
            Op::Turn { worker, count } => (0..count).for_each(|_| self.turn(worker)),
            Op::Read { text, count } => self.text(text).into_iter().for_each(|text| text.read(count, now)),
            Op::Cancel { text } => self.text(text).into_iter().for_each(Text::cancel),
            Op::Advance { ms } => self.rig.advance(Duration::from_millis(ms)),
            Op::Fail { worker, count } => {
                let worker = worker % self.trace.num_workers;
                self.rig.remotes[worker].num_failing.fetch_add(count, SeqCst);
            }
            Op::Stop => {
                self.rig.engine.stop_admission();
                self.is_stopped = true;
            }
            Op::Abort => {
                self.rig.engine.abort();
                (self.is_stopped, self.is_aborted) = (true, true);
            }
            Op::Restart => {
                self.apply(Op::Abort);
                self.restart();
            }
        }
    }

    /// Has another engine take the place of this one once its texts have ended, which are checked.
    fn restart(&mut self) {
        self.run_out();
        self.check();
        self.past.append(&mut self.texts);
        self.rig = rig(&self.trace);
        (self.num_refused, self.is_stopped, self.is_aborted) = ((0, 0), false, false);
        self.refused.clear();
    }

    /// What is left of the texts that were cut is what it would have been.
    fn complete(&mut self) {
        let rests: Vec<Rest> = self.past.iter().filter_map(|text| text.rest(CALM)).collect();
        for rest in rests {
            self.submit(rest);
            self.run_out();
        }
        self.check();
        assert!(self.texts.iter().all(Text::is_whole), "cut by nobody");
    }

    fn rest(&self, index: usize, audience: Audience) -> Option<Rest> {
        let all = self.past.iter().chain(&self.texts);
        let cut: Vec<&Text> = all.filter(|text| text.snapshot().is_some()).collect();
        cut.get(index % cut.len().max(1))?.rest(audience)
    }

    fn text(&mut self, index: usize) -> Option<&mut Text> {
        let index = index % self.texts.len().max(1);
        self.texts.get_mut(index)
    }

    /// Refused when there is no room, or what there is is kept for clients that were refused, or the engine stops.
    fn submit(&mut self, rest: Rest) {
        let (waiting, running) = self.rig.live();
        let capacity = self.trace.num_workers * self.trace.max_streams + self.trace.max_queue;
        let is_full = waiting + running >= capacity;
        let Audience { client, capacity: room, keeps_place, time } = rest.wanted.audience;
        let (sink, reader) = pipe_with(room, keeps_place);
        let deadline = time.map(|time| self.rig.now() + time);
        let request = self.rig.valid(&rest.wanted.request).until(deadline).of(client.into());
        match self.rig.engine.submit(request, sink) {
            Ok(()) => {
                assert!(!is_full && !self.is_stopped, "admitted: {:?} live", self.rig.live());
                self.texts.push(Text::new(rest, reader, self.rig.now()));
            }
            Err(SubmitError::QueueFull { .. }) => {
                let kept = self.others_refused(client).min(self.trace.max_queue.div_ceil(KEPT_PART));
                let is_full = waiting + running + kept >= capacity;
                assert!(is_full && !self.is_stopped, "no room for another: {:?} live", self.rig.live());
                self.num_refused.0 += 1;
                self.refused.push((client, self.rig.now()));
            }
            Err(SubmitError::Stopping) => {
                assert!(self.is_stopped, "stopped by nobody");
                self.num_refused.1 += 1;
            }
        }
    }

    /// So many other clients were refused a while ago at most.
    fn others_refused(&self, client: &str) -> usize {
        let now = self.rig.now();
        let is_recent = |(_, at): &&(_, Instant)| now.saturating_duration_since(*at) < PATIENCE;
        let recent: HashSet<&str> = self.refused.iter().filter(is_recent).map(|(other, _)| *other).collect();
        recent.into_iter().filter(|other| *other != client).count()
    }

    /// One turn of a worker, which steps no more rows than it has slots and there are texts to work on.
    fn turn(&mut self, worker: usize) {
        let worker = worker % self.trace.num_workers;
        let num_open = self.texts.iter().filter(|text| text.is_open()).count();
        let before = self.rig.rows_stepped();
        self.rig.workers[worker].turn();
        let num_rows = self.rig.rows_stepped() - before;
        assert!(num_rows <= self.trace.max_streams.min(num_open), "{num_rows} rows for {num_open} texts");
        let now = self.rig.now();
        self.texts.iter_mut().for_each(|text| text.look(now, self.stall_timeout));
    }

    /// Reads and turns until every text has ended, and once more.
    fn run_out(&mut self) {
        for _ in 0..MAX_TURNS {
            let (live, now) = (self.rig.live(), self.rig.now());
            self.texts.iter_mut().for_each(|text| text.read(usize::MAX, now));
            (0..self.trace.num_workers).for_each(|worker| self.turn(worker));
            self.rig.advance(Duration::from_millis(1));
            if live == (0, 0) {
                return;
            }
        }
        panic!("texts that never end: {:?} live", self.rig.live());
    }

    /// Every text is right, all that was taken is given back, and the counts add up.
    fn check(&self) {
        self.texts.iter().for_each(|text| text.check(&self.rig, &self.trace, self.is_aborted));
        let stats = self.rig.engine.stats();
        assert_eq!((stats.running, stats.parked, stats.waiting), (0, 0, 0), "left over");
        assert_eq!((stats.queue_full, stats.stopping), self.num_refused, "refused");
        assert_eq!(stats.ended.iter().sum::<u64>(), self.texts.len() as u64, "{:?} ended", stats.ended);
        for (outcome, &counted) in Outcome::ALL.into_iter().zip(&stats.ended) {
            let num_told = self.texts.iter().filter(|text| text.outcome() == Some(outcome)).count() as u64;
            assert!(num_told <= counted, "{counted} counted as {outcome:?}, {num_told} told so");
        }
        let num_failed: usize = self.rig.remotes.iter().map(|remote| remote.num_failed.load(SeqCst)).sum();
        let num_poisoned = self.texts.iter().filter(|text| text.is_poisoned(&self.trace)).count();
        let failed = Outcome::ALL.iter().position(|&outcome| outcome == Outcome::Failed).expect("listed");
        let at_most = (num_failed + num_poisoned) as u64;
        assert!(stats.ended[failed] <= at_most, "{} failed of {at_most}", stats.ended[failed]);
        assert!(self.rig.engine.drain(Duration::ZERO), "not empty");
    }
}

fn rig(trace: &Trace) -> Rig {
    let vocab = match trace.unit {
        Unit::Char => letters(),
        Unit::Byte => bytes(),
    };
    let config = EngineConfig {
        max_streams: trace.max_streams,
        max_queue: trace.max_queue,
        stall_timeout: Duration::from_millis(trace.stall_ms),
        ..EngineConfig::default()
    };
    let mut rig = Rig::with_faults(trace.num_workers, vocab, config, faults(trace));
    rig.end_token = trace.end_token;
    rig
}

fn faults(trace: &Trace) -> Faults {
    let step_time = Duration::from_micros(trace.step_us);
    let faults = Faults { step_time, ..Faults::default() };
    let symbol = Some(poison(trace.unit));
    match trace.poison {
        Poison::Harmless => faults,
        Poison::Nan => Faults { nan: symbol, ..faults },
        Poison::Mute => Faults { mute: symbol, ..faults },
        Poison::Error => Faults { error: symbol, ..faults },
    }
}
