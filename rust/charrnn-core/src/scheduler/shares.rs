//! Who may have the last places: while a client that has less than its share was refused a moment ago, others that have
//! theirs leave it one.
//!
//! Without that a client that asks again at once has every place that falls free, and one that waits as it is told none.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// So long a place is kept for a client that was refused: some of the delays that a refusal names.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Clients for which one is, at most.
const MAX_REFUSED: usize = 64;

/// The places that there are, and that are left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) capacity: usize,
    pub(crate) free: usize,
    /// No more than so many are kept.
    pub(crate) max_kept: usize,
}

/// The live texts of each client, and the clients that were refused.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    /// Of clients that have any.
    live: HashMap<Arc<str>, usize>,
    /// And when; the longest ago first.
    refused: VecDeque<(Arc<str>, Instant)>,
}

impl Shares {
    /// Whether `client` may have a place now; if not, one is kept for it.
    pub(crate) fn admits(&mut self, client: &Arc<str>, room: Room, now: Instant) -> bool {
        let is_over = |at: Instant| now.saturating_duration_since(at) >= PATIENCE;
        while self.refused.front().is_some_and(|(_, at)| is_over(*at)) {
            self.refused.pop_front();
        }
        let is_admitted = room.free > self.num_kept(client, room.capacity).min(room.max_kept);
        if !is_admitted {
            self.note(client, now);
        }
        is_admitted
    }

    /// A text of `client` has a place.
    pub(crate) fn begin(&mut self, client: &Arc<str>) {
        *self.live.entry(Arc::clone(client)).or_default() += 1;
    }

    /// It has it no longer.
    pub(crate) fn end(&mut self, client: &Arc<str>) {
        match self.live.get_mut(client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.live.remove(client)),
        }
    }

    /// Places that `client` is to leave to others.
    fn num_kept(&self, client: &Arc<str>, capacity: usize) -> usize {
        let others = || self.refused.iter().map(|(other, _)| other).filter(|other| *other != client);
        let num_without = others().filter(|other| !self.live.contains_key(*other)).count();
        let num_clients = self.live.len() + num_without + usize::from(!self.live.contains_key(client));
        let share = (capacity / num_clients).max(1);
        match self.count(client) < share {
            true => 0,
            false => others().filter(|other| self.count(other) < share).count(),
        }
    }

    fn count(&self, client: &str) -> usize {
        self.live.get(client).copied().unwrap_or(0)
    }

    fn note(&mut self, client: &Arc<str>, now: Instant) {
        self.refused.retain(|(other, _)| other != client);
        if self.refused.len() == MAX_REFUSED {
            self.refused.pop_front();
        }
        self.refused.push_back((Arc::clone(client), now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: usize = 8;

    struct Door {
        shares: Shares,
        live: usize,
        now: Instant,
    }

    impl Door {
        /// Whether so many texts of `client` are admitted, one after another.
        fn ask(&mut self, client: &str, count: usize) -> Vec<bool> {
            let client = Arc::from(client);
            let mut one = || {
                let room = Room { capacity: CAPACITY, free: CAPACITY - self.live, max_kept: 4 };
                let is_admitted = self.shares.admits(&client, room, self.now);
                if is_admitted {
                    self.shares.begin(&client);
                    self.live += 1;
                }
                is_admitted
            };
            (0..count).map(|_| one()).collect()
        }

        fn end(&mut self, client: &str) {
            self.shares.end(&Arc::from(client));
            self.live -= 1;
        }
    }

    fn door() -> Door {
        Door { shares: Shares::default(), live: 0, now: Instant::now() }
    }

    #[test]
    fn who_is_alone_may_have_all() {
        let mut door = door();
        assert_eq!(door.ask("a", CAPACITY + 1), [[true; CAPACITY].as_slice(), &[false]].concat());
        door.end("a");
        assert_eq!(door.ask("a", 2), [true, false]);
    }

    #[test]
    fn the_next_place_is_of_who_was_refused_until_it_has_its_share() {
        let mut door = door();
        door.ask("greedy", CAPACITY);
        assert_eq!(door.ask("polite", 1), [false]);
        for _ in 0..CAPACITY / 2 {
            door.end("greedy");
            assert_eq!(door.ask("greedy", 2), [false, false]);
            assert_eq!(door.ask("polite", 2), [true, false]);
        }
        // Both have half of it.
        door.end("greedy");
        assert_eq!(door.ask("greedy", 1), [true]);
    }

    #[test]
    fn a_place_is_kept_for_a_while_only() {
        let mut door = door();
        door.ask("greedy", CAPACITY);
        door.ask("polite", 1);
        door.end("greedy");
        door.now += PATIENCE - Duration::from_millis(1);
        assert_eq!(door.ask("greedy", 1), [false]);
        door.now += Duration::from_millis(1);
        assert_eq!(door.ask("greedy", 1), [true]);
    }

    #[test]
    fn no_more_is_kept_than_told_and_nothing_is_kept_of_who_is_gone() {
        let mut door = door();
        door.ask("greedy", CAPACITY);
        let others: Vec<String> = (0..100).map(|i| format!("other {i}")).collect();
        others.iter().for_each(|other| drop(door.ask(other, 1)));
        assert_eq!(door.shares.refused.len(), MAX_REFUSED);
        (0..5).for_each(|_| door.end("greedy"));
        // Its share is one text now, of which it has three.
        assert_eq!(door.ask("greedy", 2), [true, false]);
        (0..4).for_each(|_| door.end("greedy"));
        assert!(door.shares.live.is_empty());
    }
}
