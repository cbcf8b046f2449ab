//! Streams whose reader takes nothing: off the batch, looked at now and then.

use std::time::{Duration, Instant};

use crate::event::{FinishReason, StreamError};
use crate::state::RowState;

use super::stream::{Flow, Stream};

/// The first look comes after this long, each further one after twice as long, up to `MAX_WAIT`.
const MIN_WAIT: Duration = Duration::from_micros(50);
const MAX_WAIT: Duration = Duration::from_millis(2);

/// A stream off the batch and what it needs to go on.
pub(crate) struct Resting {
    pub(crate) stream: Stream,
    pub(crate) state: RowState,
    pub(crate) token: u32,
}

impl Resting {
    /// Ends the stream if its time is over.
    fn expire(&mut self, now: Instant) {
        self.stream.expire(now);
        if self.stream.wants_state() {
            self.stream.attach(self.state.clone(), self.token);
        }
    }

    /// Ends the stream for it to go on elsewhere, if it can.
    pub(crate) fn drain(&mut self, now: Instant) {
        self.stream.hand_over(FinishReason::Drained, now);
        if self.stream.wants_state() {
            self.stream.attach(self.state.clone(), self.token);
        }
    }

    /// Ends the stream of a reader that took nothing for `timeout`.
    fn stall(mut self, now: Instant, timeout: Duration) {
        self.stream.hand_over(FinishReason::Stalled, now);
        if self.stream.wants_state() {
            self.stream.attach(self.state, self.token);
        }
        self.stream.give_up(StreamError::Stalled(timeout));
    }
}

/// A stream whose reader has no room.
pub(crate) struct Parked {
    resting: Resting,
    blocked_since: Instant,
    next_look: Instant,
    wait: Duration,
}

/// What a look at a parked stream found.
pub(crate) enum Look {
    /// Still no room.
    Blocked(Parked),
    /// It can go on.
    Ready(Resting),
    /// It is over.
    Over,
}

impl Parked {
    pub(crate) fn new(resting: Resting, now: Instant) -> Self {
        Parked { resting, blocked_since: now, next_look: now + MIN_WAIT, wait: MIN_WAIT }
    }

    pub(crate) fn next_look(&self) -> Instant {
        self.next_look
    }

    /// Tries again to hand over what waits; gives up after `stall_timeout` without the reader taking anything.
    pub(crate) fn look(mut self, now: Instant, stall_timeout: Duration) -> Look {
        // The end waits behind what is unread, and costs no slot meanwhile.
        self.resting.expire(now);
        let stream = &mut self.resting.stream;
        let num_unsent = stream.num_unsent();
        match stream.pump() {
            Flow::Open => return Look::Ready(self.resting),
            Flow::Over => return Look::Over,
            Flow::Blocked => {}
        }
        if stream.num_unsent() < num_unsent {
            (self.blocked_since, self.wait) = (now, MIN_WAIT);
        } else if now.saturating_duration_since(self.blocked_since) >= stall_timeout {
            self.resting.stall(now, stall_timeout);
            return Look::Over;
        }
        self.wait = (2 * self.wait).min(MAX_WAIT);
        self.next_look = now + self.wait;
        Look::Blocked(self)
    }

    pub(crate) fn into_resting(self) -> Resting {
        self.resting
    }
}
