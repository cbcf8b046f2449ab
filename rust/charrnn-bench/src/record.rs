//! What became of one request.

use std::time::Duration;

use charrnn_serve::pb::Timing;
use tonic::Code;

use crate::plan::Slo;

/// How a request ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was under way when the run ended.
    #[default]
    Unfinished,
    /// It came due beyond `max_active` and was not sent.
    Dropped,
    /// The whole text arrived.
    Ok,
    /// This client cancelled it, as planned.
    Cancelled,
    /// The server, or the way to it, failed.
    Failed(Code),
    /// The server broke the contract of the stream.
    Protocol,
    /// The text is not the one the same request gave alone.
    Differs,
}

impl Outcome {
    /// As in reports: gRPC's names, and ours for what gRPC has no name for.
    pub(crate) fn name(&self) -> String {
        match self {
            Outcome::Unfinished => "unfinished".to_owned(),
            Outcome::Dropped => "dropped".to_owned(),
            Outcome::Ok => "ok".to_owned(),
            Outcome::Cancelled => "cancelled".to_owned(),
            Outcome::Failed(code) => screaming(&format!("{code:?}")),
            Outcome::Protocol => "PROTOCOL".to_owned(),
            Outcome::Differs => "DIFFERS".to_owned(),
        }
    }

    pub(crate) fn is_error(&self) -> bool {
        matches!(self, Outcome::Failed(_) | Outcome::Protocol | Outcome::Differs)
    }
}

/// `DeadlineExceeded` as `DEADLINE_EXCEEDED`.
fn screaming(name: &str) -> String {
    let mut result = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !result.is_empty() {
            result.push('_');
        }
        result.push(letter.to_ascii_uppercase());
    }
    result
}

/// One request; times are from the start of the run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) number: u64,
    pub(crate) is_slow: bool,
    /// When it was to be sent.
    pub(crate) due: Duration,
    pub(crate) sent: Option<Duration>,
    /// When its first and last chunk came.
    pub(crate) chunks: Option<(Duration, Duration)>,
    pub(crate) ended: Duration,
    pub(crate) num_chars: u64,
    pub(crate) num_chunks: u64,
    /// Characters of the first chunk.
    pub(crate) first_chars: u64,
    pub(crate) outcome: Outcome,
    pub(crate) server: Option<Timing>,
}

impl Record {
    /// Notes a chunk; gives the time since the one before.
    pub(crate) fn chunk(&mut self, now: Duration, num_chars: u64) -> Option<Duration> {
        let gap = self.chunks.map(|(_, last)| now.saturating_sub(last));
        self.chunks = Some((self.chunks.map_or(now, |(first, _)| first), now));
        if gap.is_none() {
            self.first_chars = num_chars;
        }
        self.num_chars += num_chars;
        self.num_chunks += 1;
        gap
    }

    /// How late it was sent: the generator's own fault.
    pub(crate) fn lag(&self) -> Option<Duration> {
        self.sent.map(|sent| sent.saturating_sub(self.due))
    }

    pub(crate) fn first_char(&self) -> Option<Duration> {
        self.chunks.map(|(first, _)| first.saturating_sub(self.due))
    }

    /// From the first chunk to the last, for each character after the first chunk.
    pub(crate) fn inter_char(&self) -> Option<Duration> {
        let ((first, last), num_later) = (self.chunks?, self.num_chars - self.first_chars);
        (num_later > 0).then(|| (last - first).div_f64(num_later as f64))
    }

    pub(crate) fn request(&self) -> Duration {
        self.ended.saturating_sub(self.due)
    }

    /// Whether a whole text came as fast as asked. A text without characters has no times to miss.
    pub(crate) fn meets(&self, slo: &Slo) -> bool {
        let within = |time: Option<Duration>, limit_ms: Option<f64>| match (time, limit_ms) {
            (Some(time), Some(limit)) => time.as_secs_f64() * 1e3 <= limit,
            _ => true,
        };
        self.outcome == Outcome::Ok
            && within(self.first_char(), slo.first_char_ms)
            && within(self.inter_char(), slo.inter_char_ms)
            && within(Some(self.request()), slo.request_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn done() -> Record {
        let mut record = Record { due: 100 * MS, outcome: Outcome::Ok, ..Record::default() };
        assert_eq!(record.chunk(150 * MS, 4), None);
        assert_eq!(record.chunk(190 * MS, 8), Some(40 * MS));
        record.ended = 200 * MS;
        record
    }

    #[test]
    fn times_count_from_when_it_was_due() {
        let record = Record { sent: Some(103 * MS), ..done() };
        assert_eq!(record.lag(), Some(3 * MS));
        assert_eq!(record.first_char(), Some(50 * MS));
        assert_eq!(record.inter_char(), Some(5 * MS));
        assert_eq!(record.request(), 100 * MS);
    }

    #[test]
    fn every_limit_of_an_slo_counts_and_only_whole_texts_are_good() {
        let slo = |first, inter, request| Slo {
            first_char_ms: Some(first),
            inter_char_ms: Some(inter),
            request_ms: Some(request),
        };
        assert!(done().meets(&slo(50.0, 5.0, 100.0)) && done().meets(&Slo::default()));
        for missed in [slo(49.0, 5.0, 100.0), slo(50.0, 4.9, 100.0), slo(50.0, 5.0, 99.0)] {
            assert!(!done().meets(&missed));
        }
        for outcome in [Outcome::Cancelled, Outcome::Unfinished, Outcome::Failed(Code::Internal)] {
            assert!(!Record { outcome, ..done() }.meets(&Slo::default()));
        }
    }

    #[test]
    fn codes_have_their_names_in_grpc() {
        assert_eq!(Outcome::Failed(Code::DeadlineExceeded).name(), "DEADLINE_EXCEEDED");
        assert_eq!(Outcome::Failed(Code::Unavailable).name(), "UNAVAILABLE");
    }
}
