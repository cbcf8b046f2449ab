//! How many requests were not let in, by the word of their refusal: a closed set, so that a page of metrics stays as
//! long as it is whatever clients send.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::status::Refusal;

/// Of refusals that come before any model is asked.
const REASONS: [&str; 6] =
    ["NO_TOKEN", "WRONG_TOKEN", "TOO_MANY_FAILURES", "NO_CERTIFICATE", "NOT_ADMIN", "CLIENT_FULL"];

/// Counts them.
#[derive(Debug, Default)]
pub(crate) struct Denied([AtomicU64; REASONS.len()]);

impl Denied {
    /// Counts one; of another kind, none.
    pub(crate) fn count(&self, refusal: &Refusal) {
        if let Some(index) = REASONS.iter().position(|reason| *reason == refusal.reason()) {
            self.0[index].fetch_add(1, Relaxed);
        }
    }

    /// So far, all of them.
    pub(crate) fn read(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        REASONS.into_iter().zip(self.0.iter().map(|count| count.load(Relaxed)))
    }
}
