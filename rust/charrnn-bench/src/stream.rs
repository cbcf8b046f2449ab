//! One request, from when it is due to its end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use charrnn_serve::pb::generate_response::Event;
use charrnn_serve::pb::{Chunk, FinishReason, Finished, GenerateResponse, Timing};
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::client::Connections;
use crate::job::Job;
use crate::plan::Plan;
use crate::record::{Outcome, Record};
use crate::tally::Tally;

/// Of a text alone: a server that hangs would otherwise hold up the run for ever.
const SOLO_PATIENCE: Duration = Duration::from_secs(10);

/// What the requests of one thread share.
pub(crate) struct Shard {
    pub(crate) plan: Arc<Plan>,
    pub(crate) began: Instant,
    pub(crate) connections: Connections,
    pub(crate) tally: Arc<Mutex<Tally>>,
    /// The texts of the requests alone, if they are to be compared.
    pub(crate) expected: Arc<Vec<String>>,
}

impl Shard {
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request that was due and is not sent.
    pub(crate) fn drop_one(&self, number: u64, due: Duration) {
        let record = Record { number, due, ended: due, outcome: Outcome::Dropped, ..Record::default() };
        self.tally().end(&self.plan, record);
    }

    /// Sends `job`, which was due then, and reads its text. True if it went as planned.
    pub(crate) async fn send(&self, job: Job, due: Duration) -> bool {
        let mut call = Call::new(self, &job, due);
        let outcome = match job.deadline.map(|deadline| self.began + due + deadline) {
            None => call.run(job).await,
            Some(deadline) => {
                let timed = tokio::time::timeout_at(deadline.into(), call.run(job));
                timed.await.unwrap_or_else(|_| Err(too_late())).map_err(|fault| blame(fault, deadline))
            }
        };
        call.end(outcome)
    }
}

/// Why a call did not end as planned.
enum Fault {
    Status(Status),
    /// The server broke the contract.
    Protocol(String),
    Differs(String),
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        Fault::Status(status)
    }
}

fn too_late() -> Fault {
    Fault::Status(Status::deadline_exceeded("its deadline passed"))
}

/// The transport of this side keeps the deadline too, and says CANCELLED.
fn blame(fault: Fault, deadline: Instant) -> Fault {
    match fault {
        Fault::Status(status) if status.code() == Code::Cancelled && Instant::now() >= deadline => too_late(),
        other => other,
    }
}

/// A call under way. Dropped before its end, it counts as unfinished.
struct Call<'a> {
    shard: &'a Shard,
    record: Record,
    reader: Reader<'a>,
}

impl<'a> Call<'a> {
    fn new(shard: &'a Shard, job: &Job, due: Duration) -> Self {
        let record = Record { number: job.number, is_slow: job.is_slow, due, ..Record::default() };
        let expected = shard.expected.get(job.text as usize).map(String::as_str);
        let mut tally = shard.tally();
        tally.active += 1;
        tally.interval.sent += 1;
        Call { shard, record, reader: Reader { expected, ..Reader::default() } }
    }

    async fn run(&mut self, job: Job) -> Result<Outcome, Fault> {
        let now = self.shard.now();
        self.record.sent = Some(now);
        let left = job.deadline.map(|deadline| (self.record.due + deadline).saturating_sub(now));
        let connections = &self.shard.connections;
        let mut messages = connections.generate(job.request, job.number, job.is_slow, left).await?;
        while let Some(message) = messages.message().await? {
            if let Some(num_chars) = self.reader.take(message)? {
                self.chunk(num_chars);
            }
            if job.cancel_after.is_some_and(|after| self.record.num_chars >= after) {
                return Ok(Outcome::Cancelled);
            }
            if job.is_slow {
                tokio::time::sleep(Duration::from_secs_f64(self.shard.plan.slow_read_ms / 1e3)).await;
            }
        }
        self.record.server = self.reader.finish()?;
        Ok(Outcome::Ok)
    }

    fn chunk(&mut self, num_chars: u64) {
        let now = self.shard.now();
        let gap = self.record.chunk(now, num_chars);
        let mut tally = self.shard.tally();
        let counts = self.shard.plan.counts(now);
        tally.chars(num_chars, counts);
        if let (Some(gap), true, false) = (gap, counts, self.record.is_slow) {
            tally.gap(gap, num_chars);
        }
    }

    fn end(mut self, outcome: Result<Outcome, Fault>) -> bool {
        let (outcome, message) = match outcome {
            Ok(outcome) => (outcome, None),
            Err(Fault::Status(status)) => (Outcome::Failed(status.code()), Some(line(&status))),
            Err(Fault::Protocol(what)) => (Outcome::Protocol, Some(format!("PROTOCOL: {what}"))),
            Err(Fault::Differs(what)) => (Outcome::Differs, Some(format!("DIFFERS: {what}"))),
        };
        let number = self.record.number;
        message.iter().for_each(|what| self.shard.tally().say(what, number));
        self.record.outcome = outcome;
        !self.record.outcome.is_error()
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut record = std::mem::take(&mut self.record);
        record.ended = self.shard.now();
        let mut tally = self.shard.tally();
        tally.active -= 1;
        tally.end(&self.shard.plan, record);
    }
}

pub(crate) fn line(status: &Status) -> String {
    format!("{}: {}", Outcome::Failed(status.code()).name(), status.message())
}

/// Holds a stream to its contract: one Started, chunks without a gap, one Finished that agrees with them.
#[derive(Default)]
struct Reader<'a> {
    is_started: bool,
    finished: Option<Finished>,
    num_chars: u64,
    num_bytes: usize,
    expected: Option<&'a str>,
}

impl Reader<'_> {
    /// The characters of a chunk; none of another message.
    fn take(&mut self, message: GenerateResponse) -> Result<Option<u64>, Fault> {
        let event = message.event.ok_or_else(|| protocol("a message without an event"))?;
        if self.finished.is_some() {
            return Err(protocol("a message after Finished"));
        }
        match event {
            Event::Started(_) if self.is_started => Err(protocol("Started came twice")),
            Event::Started(_) => {
                self.is_started = true;
                Ok(None)
            }
            _ if !self.is_started => Err(protocol("the first message is not Started")),
            Event::Chunk(chunk) => self.chunk(&chunk).map(Some),
            Event::Finished(finished) => {
                self.finished = Some(finished);
                Ok(None)
            }
            Event::Refused(_) => Err(protocol("Refused is no answer of Generate")),
        }
    }

    fn chunk(&mut self, chunk: &Chunk) -> Result<u64, Fault> {
        let num_chars = chunk.text.chars().count() as u64;
        if chunk.offset != self.num_chars || u64::from(chunk.n) != num_chars {
            let (n, offset, at) = (chunk.n, chunk.offset, self.num_chars);
            let said = format!("a chunk of {num_chars} characters at {at} says n {n}, offset {offset}");
            return Err(Fault::Protocol(said));
        }
        self.compare(&chunk.text)?;
        self.num_chars += num_chars;
        self.num_bytes += chunk.text.len();
        Ok(num_chars)
    }

    fn compare(&self, text: &str) -> Result<(), Fault> {
        let Some(expected) = self.expected else { return Ok(()) };
        let rest = expected.get(self.num_bytes..).unwrap_or_default();
        if rest.starts_with(text) {
            return Ok(());
        }
        let same = rest.chars().zip(text.chars()).take_while(|(a, b)| a == b).count();
        let at = self.num_chars + same as u64;
        let (got, alone) = (text.chars().nth(same), rest.chars().nth(same));
        Err(Fault::Differs(format!("character {at} is {}, alone it was {}", shown(got), shown(alone))))
    }

    /// Called at the end of the stream.
    fn finish(&mut self) -> Result<Option<Timing>, Fault> {
        let finished = self.finished.take().ok_or_else(|| protocol("the stream ended without Finished"))?;
        if finished.chars != self.num_chars {
            let (says, came) = (finished.chars, self.num_chars);
            return Err(Fault::Protocol(format!("Finished says {says} characters, {came} came")));
        }
        // The server keeps the deadline too, and ends the text with what there is.
        if finished.reason() == FinishReason::Deadline {
            return Err(too_late());
        }
        match self.expected {
            Some(expected) if expected.len() != self.num_bytes => {
                let alone = expected.chars().count();
                Err(Fault::Differs(format!("it has {} characters, alone it had {alone}", self.num_chars)))
            }
            _ => Ok(finished.timing),
        }
    }
}

fn protocol(what: &str) -> Fault {
    Fault::Protocol(what.to_owned())
}

fn shown(letter: Option<char>) -> String {
    letter.map_or_else(|| "absent".to_owned(), |letter| format!("{letter:?}"))
}

/// The text of `job`, alone.
pub(crate) async fn read_text(connections: &Connections, job: Job) -> Result<String, String> {
    let mut reader = Reader::default();
    let mut text = String::new();
    let said = |fault: Fault| match fault {
        Fault::Status(status) => line(&status),
        Fault::Protocol(what) | Fault::Differs(what) => what,
    };
    let call = connections.generate(job.request, job.number, false, None);
    let silent = |_| format!("nothing came for {} s", SOLO_PATIENCE.as_secs());
    let mut messages = timeout(SOLO_PATIENCE, call).await.map_err(silent)?.map_err(|status| line(&status))?;
    loop {
        let message = timeout(SOLO_PATIENCE, messages.message()).await.map_err(silent)?;
        let Some(message) = message.map_err(|status| line(&status))? else { break };
        if let Some(Event::Chunk(chunk)) = &message.event {
            text.push_str(&chunk.text);
        }
        reader.take(message).map_err(said)?;
    }
    reader.finish().map_err(said)?;
    Ok(text)
}
