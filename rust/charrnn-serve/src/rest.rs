//! A pause of the thread that serves connections, after it had to refuse requests because too many wait.
//!
//! Such refusals come one by one, and to wake up, read and write for each costs the decode threads as much processor time
//! as all the rest of it. Those that come while the thread rests are read, refused and written together.

use std::cell::Cell;
use std::thread;
use std::time::Duration;

/// A refusal is to arrive within 5 ms, and the next character of a text needs longer than this with a full batch.
const REST: Duration = Duration::from_millis(1);

thread_local! {
    static HAS_REFUSED: Cell<bool> = const { Cell::new(false) };
}

/// Notes that this thread has refused a request because too many wait.
pub(crate) fn has_refused() {
    HAS_REFUSED.set(true);
}

/// Called when the thread has nothing to do: it rests if it has refused any since it last did.
pub(crate) fn rest() {
    if HAS_REFUSED.take() {
        thread::sleep(REST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_thread_rests_once_for_all_it_has_refused() {
        has_refused();
        has_refused();
        let began = Instant::now();
        rest();
        assert!(began.elapsed() >= REST);
        assert!(!HAS_REFUSED.get());
    }
}
