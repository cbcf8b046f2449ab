//! All lanes, a round at a time: so many symbols of each lane, then the bits of all of them.
//!
//! A round in the file is, for every lane that was not done before it, the length of its bits and then the bits; and one
//! checksum of what the round stands for. The state of the model goes on over rounds.

use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use super::header::{read_number, write_number, Header};
use super::lane::{Lane, Meter, Reader, Writer};
use super::{Coder, CompressError, Report, Watch};
use crate::sampler::Sampler;
use crate::state::StateRows;
use crate::vocab::Vocab;
use crate::StepModel;

/// Symbols of each lane in a round: few rounds cost few bytes, and each lane's bits of a round are held in memory.
const ROUND_STEPS: usize = 1 << 17;
/// The most bytes that a round's symbols of one lane can take; more is damage.
const MAX_PAYLOAD: u64 = 16 * ROUND_STEPS as u64;
/// How often whoever waits is told of the progress.
const WATCH_INTERVAL: Duration = Duration::from_millis(50);

/// What all workers count.
#[derive(Debug, Default)]
struct Progress {
    num_bytes: AtomicU64,
    num_symbols: AtomicU64,
    num_escaped: AtomicU64,
    is_stopped: AtomicBool,
}

/// A lane with its place in the file.
struct Placed<L> {
    number: usize,
    lane: L,
}

/// Some lanes and the worker that codes them as one batch.
struct Group<'a, L> {
    model: &'a mut dyn StepModel,
    vocab: &'a Vocab,
    sampler: Sampler,
    state: StateRows,
    /// What each row is fed next.
    tokens: Vec<u32>,
    start_token: u32,
    end_token: Option<u32>,
    /// What its lanes read or write.
    path: &'a Path,
    /// One a row.
    lanes: Vec<Placed<L>>,
    /// Those that ended in this round.
    done: Vec<Placed<L>>,
}

impl<L: Lane> Group<'_, L> {
    fn run(&mut self, progress: &Progress) -> Result<(), CompressError> {
        for _ in 0..ROUND_STEPS {
            self.retire();
            if self.lanes.is_empty() {
                break;
            }
            if progress.is_stopped.load(Relaxed) {
                return Err(CompressError::Stopped);
            }
            self.step(progress)?;
        }
        // Both sides must agree on which lanes the next round has.
        self.retire();
        Ok(())
    }

    fn step(&mut self, progress: &Progress) -> Result<(), CompressError> {
        let logits = self.model.step(&self.tokens, &mut self.state)?;
        let (mut num_bytes, mut num_escaped) = (0, 0);
        let rows = self.lanes.iter_mut().zip(&mut self.tokens).zip(logits.chunks_exact(self.vocab.size()));
        for (row, ((placed, token), logits)) in rows.enumerate() {
            let distribution = self.sampler.distribution(logits).ok_or(CompressError::Logits)?;
            let before = placed.lane.num_left();
            let coded = placed.lane.code(&distribution, self.vocab).map_err(file_error(self.path))?;
            *token = self.vocab.token_id(coded.symbol).unwrap_or(self.start_token);
            // Trained on documents, a model has read the end of one from the zero state only.
            if self.end_token == Some(*token) {
                self.state.zero(row);
            }
            num_bytes += before - placed.lane.num_left();
            num_escaped += u64::from(coded.is_escaped);
        }
        progress.num_bytes.fetch_add(num_bytes, Relaxed);
        progress.num_symbols.fetch_add(self.lanes.len() as u64, Relaxed);
        progress.num_escaped.fetch_add(num_escaped, Relaxed);
        Ok(())
    }

    /// Takes lanes that are done out of the batch.
    fn retire(&mut self) {
        for row in (0..self.lanes.len()).rev() {
            if self.lanes[row].lane.num_left() == 0 {
                self.state.swap_remove(row);
                self.tokens.swap_remove(row);
                self.done.push(self.lanes.swap_remove(row));
            }
        }
    }
}

fn file_error(path: &Path) -> impl Fn(io::Error) -> CompressError + '_ {
    |source| CompressError::Io { path: path.to_owned(), verb: "read or written", source }
}

/// Cuts the file into lanes and deals them out, neighbours to the same worker.
fn groups<'a, L: Lane>(
    coder: &'a mut Coder,
    header: &Header,
    path: &'a Path,
    open: impl Fn(&Path, Range<u64>) -> io::Result<L>,
) -> Result<Vec<Group<'a, L>>, CompressError> {
    let (num_lanes, num_groups) = (header.num_lanes(), coder.models.len());
    let mut groups = Vec::new();
    for (index, model) in coder.models.iter_mut().enumerate() {
        let numbers = index * num_lanes / num_groups..(index + 1) * num_lanes / num_groups;
        let mut state = StateRows::new(model.spec(), numbers.len());
        let (tokens, sampler) =
            (vec![coder.start_token; numbers.len()], Sampler::new(model.spec().vocab_size));
        let mut lanes = Vec::new();
        for number in numbers {
            let part = header.lane_start(number)..header.lane_start(number + 1);
            let lane = open(path, part).map_err(file_error(path))?;
            lanes.push(Placed { number, lane });
            state.push_zero();
        }
        let mut group = Group {
            model: model.as_mut(),
            vocab: coder.vocab.as_ref(),
            sampler,
            state,
            tokens,
            start_token: coder.start_token,
            end_token: coder.end_token,
            path,
            lanes,
            done: Vec::new(),
        };
        group.retire();
        group.done.clear();
        groups.push(group);
    }
    Ok(groups)
}

/// Runs one round of all groups, each on a thread of its own.
fn run<L: Lane>(
    groups: &mut [Group<'_, L>],
    progress: &Progress,
    watch: Watch<'_>,
) -> Result<(), CompressError> {
    let caller = thread::current();
    thread::scope(|scope| {
        let start = |group| {
            let caller = caller.clone();
            scope.spawn(move || {
                let result = Group::run(group, progress);
                caller.unpark();
                result
            })
        };
        let workers: Vec<_> = groups.iter_mut().filter(|group| !group.lanes.is_empty()).map(start).collect();
        while !workers.iter().all(thread::ScopedJoinHandle::is_finished) {
            thread::park_timeout(WATCH_INTERVAL);
            if !watch(progress.num_bytes.load(Relaxed)) {
                progress.is_stopped.store(true, Relaxed);
            }
        }
        let join = |worker: thread::ScopedJoinHandle<'_, _>| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        workers.into_iter().try_for_each(join)
    })
}

/// The lanes of the round that has just run, in the order of the file.
fn in_order<'a, L>(groups: &'a mut [Group<'_, L>]) -> Vec<&'a mut Placed<L>> {
    let lanes = groups.iter_mut().flat_map(|group| group.lanes.iter_mut().chain(&mut group.done));
    let mut lanes: Vec<_> = lanes.collect();
    lanes.sort_by_key(|placed| placed.number);
    lanes
}

fn is_active<L>(groups: &[Group<'_, L>]) -> bool {
    groups.iter().any(|group| !group.lanes.is_empty())
}

/// The whole of a file.
pub(super) struct Rounds<'a> {
    coder: &'a mut Coder,
    header: &'a Header,
    progress: Progress,
    num_coded: u64,
}

impl<'a> Rounds<'a> {
    pub(super) fn new(coder: &'a mut Coder, header: &'a Header) -> Self {
        Rounds { coder, header, progress: Progress::default(), num_coded: 0 }
    }

    pub(super) fn report(&self, num_compressed: u64) -> Report {
        Report {
            num_bytes: self.header.num_bytes,
            num_symbols: self.progress.num_symbols.load(Relaxed),
            num_escaped: self.progress.num_escaped.load(Relaxed),
            num_compressed,
            num_coded: self.num_coded,
        }
    }

    pub(super) fn compress(
        &mut self,
        input: &Path,
        output: &mut dyn Write,
        watch: Watch<'_>,
    ) -> Result<(), RoundError> {
        let mut groups = groups(self.coder, self.header, input, Reader::open)?;
        while is_active(&groups) {
            run(&mut groups, &self.progress, watch)?;
            let (mut round, mut crc) = (Vec::new(), crc32fast::Hasher::new());
            for placed in in_order(&mut groups) {
                let (bits, checksum) = placed.lane.finish();
                write_number(&mut round, bits.len() as u64);
                round.extend(bits);
                crc.update(&checksum.to_le_bytes());
            }
            groups.iter_mut().for_each(|group| group.done.clear());
            round.extend(crc.finalize().to_le_bytes());
            self.num_coded += round.len() as u64;
            output.write_all(&round).map_err(RoundError::Output)?;
        }
        Ok(())
    }

    /// Bits of information in the file.
    pub(super) fn measure(&mut self, input: &Path, watch: Watch<'_>) -> Result<f64, CompressError> {
        let mut groups = groups(self.coder, self.header, input, Meter::open)?;
        let mut bits = 0.0;
        while is_active(&groups) {
            run(&mut groups, &self.progress, watch)?;
            bits += in_order(&mut groups)
                .into_iter()
                .map(|placed| std::mem::take(&mut placed.lane.bits))
                .sum::<f64>();
            groups.iter_mut().for_each(|group| group.done.clear());
        }
        Ok(bits)
    }

    pub(super) fn decompress(
        &mut self,
        input: &mut dyn Read,
        output: &Path,
        watch: Watch<'_>,
    ) -> Result<(), RoundError> {
        let mut groups = groups(self.coder, self.header, output, Writer::open)?;
        while is_active(&groups) {
            for placed in in_order(&mut groups) {
                let bits =
                    read_payload(input).map_err(|_| RoundError::Damage("it ends too early".to_owned()))?;
                self.num_coded += bits.len() as u64;
                placed.lane.start(bits);
            }
            run(&mut groups, &self.progress, watch)?;
            let mut crc = crc32fast::Hasher::new();
            for placed in in_order(&mut groups) {
                crc.update(&placed.lane.finish().map_err(file_error(output))?.to_le_bytes());
            }
            groups.iter_mut().for_each(|group| group.done.clear());
            let mut expected = [0; 4];
            input
                .read_exact(&mut expected)
                .map_err(|_| RoundError::Damage("it ends too early".to_owned()))?;
            if u32::from_le_bytes(expected) != crc.finalize() {
                let so_far = self.progress.num_bytes.load(Relaxed);
                return Err(RoundError::Damage(format!(
                    "a checksum differs within the first {so_far} bytes"
                )));
            }
        }
        Ok(())
    }
}

/// Why a file cannot be compressed or restored.
pub(super) enum RoundError {
    /// The compressed file cannot be written.
    Output(io::Error),
    /// No fault of the file.
    Other(CompressError),
    /// What is wrong with it.
    Damage(String),
}

impl RoundError {
    /// The same with the names of the files.
    pub(super) fn named(self, input: &Path, output: &Path) -> CompressError {
        match self {
            RoundError::Output(source) => {
                CompressError::Io { path: output.to_owned(), verb: "written", source }
            }
            RoundError::Other(error) => error,
            RoundError::Damage(reason) => CompressError::Damaged { path: input.to_owned(), reason },
        }
    }
}

impl From<CompressError> for RoundError {
    fn from(error: CompressError) -> Self {
        RoundError::Other(error)
    }
}

fn read_payload(input: &mut dyn Read) -> io::Result<Vec<u8>> {
    let num = read_number(input)?;
    if num > MAX_PAYLOAD {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bits = vec![0; num as usize];
    input.read_exact(&mut bits)?;
    Ok(bits)
}
