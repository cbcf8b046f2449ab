//! States after prompts, for texts that begin with a prompt read before: a look-up takes the place of its steps.
//!
//! Knows symbols and rows, no streams. All workers of an engine share it: looked at once a text, never in between.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::state::RowState;

/// To read fewer symbols takes less than to keep what they lead to.
pub const MIN_SYMBOLS: usize = 8;
/// What an entry takes besides its numbers: keys in two maps, counts, lengths.
const ENTRY_BYTES: usize = 256;

/// What a cache has done so far, and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Prompts found.
    pub hits: u64,
    /// Prompts not found.
    pub misses: u64,
    /// Bytes held.
    pub num_bytes: usize,
}

struct Entry {
    state: Arc<RowState>,
    /// In `by_use`.
    used: u64,
}

#[derive(Default)]
struct Entries {
    by_prompt: HashMap<Arc<[u32]>, Entry>,
    /// The one not used for longest comes first.
    by_use: BTreeMap<u64, Arc<[u32]>>,
    num_uses: u64,
    stats: CacheStats,
}

/// The states of the prompts used last, as many as fit.
pub(crate) struct PromptCache {
    max_bytes: usize,
    entries: Mutex<Entries>,
}

impl PromptCache {
    /// At most so many bytes; 0 keeps nothing.
    pub(crate) fn new(max_bytes: usize) -> Self {
        PromptCache { max_bytes, entries: Mutex::default() }
    }

    /// The state after these symbols, if they were read before.
    pub(crate) fn get(&self, prompt: &[u32]) -> Option<Arc<RowState>> {
        if self.max_bytes == 0 {
            return None;
        }
        let mut entries = self.lock();
        let found = entries.touch(prompt);
        match found {
            Some(_) => entries.stats.hits += 1,
            None => entries.stats.misses += 1,
        }
        found
    }

    /// Keeps a state, and lets go of those not used for longest to make room for it.
    pub(crate) fn put(&self, prompt: &[u32], state: RowState) {
        let num_bytes = bytes_of(prompt, &state);
        if num_bytes > self.max_bytes || !state.is_finite() {
            return;
        }
        let mut entries = self.lock();
        if entries.touch(prompt).is_some() {
            return;
        }
        while entries.stats.num_bytes + num_bytes > self.max_bytes {
            entries.drop_oldest();
        }
        entries.insert(prompt.into(), state, num_bytes);
    }

    pub(crate) fn stats(&self) -> CacheStats {
        self.lock().stats
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    /// Makes an entry the one used last.
    fn touch(&mut self, prompt: &[u32]) -> Option<Arc<RowState>> {
        let entry = self.by_prompt.get_mut(prompt)?;
        let key = self.by_use.remove(&entry.used)?;
        self.num_uses += 1;
        entry.used = self.num_uses;
        self.by_use.insert(self.num_uses, key);
        Some(Arc::clone(&entry.state))
    }

    fn insert(&mut self, prompt: Arc<[u32]>, state: RowState, num_bytes: usize) {
        self.num_uses += 1;
        self.stats.num_bytes += num_bytes;
        self.by_use.insert(self.num_uses, Arc::clone(&prompt));
        self.by_prompt.insert(prompt, Entry { state: Arc::new(state), used: self.num_uses });
    }

    fn drop_oldest(&mut self) {
        let oldest = self.by_use.pop_first().map(|(_, prompt)| prompt);
        if let Some((prompt, entry)) = oldest.and_then(|prompt| self.by_prompt.remove_entry(&prompt)) {
            self.stats.num_bytes -= bytes_of(&prompt, &entry.state);
        }
    }
}

fn bytes_of(prompt: &[u32], state: &RowState) -> usize {
    size_of_val(prompt) + size_of_val(state.floats()) + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: f32) -> RowState {
        RowState::new(vec![value; 4])
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let cache = PromptCache::new(2 * (12 + 16 + ENTRY_BYTES));
        let prompts = [[1, 2, 3], [1, 2, 4], [1, 2, 5]];
        cache.put(&prompts[0], row(0.0));
        cache.put(&prompts[1], row(1.0));
        assert_eq!(cache.get(&prompts[0]).as_deref(), Some(&row(0.0)));
        cache.put(&prompts[2], row(2.0));
        let found = prompts.map(|prompt| cache.get(&prompt).is_some());
        assert_eq!(found, [true, false, true]);
        let num_bytes = 2 * (12 + 16 + ENTRY_BYTES);
        assert_eq!(cache.stats(), CacheStats { hits: 3, misses: 1, num_bytes });
    }

    #[test]
    fn nothing_beyond_its_room_and_no_numbers_that_are_none_are_kept() {
        let prompt = [7; 9];
        let room = 36 + 16 + ENTRY_BYTES;
        for (cache, state) in [
            (PromptCache::new(0), row(1.0)),
            (PromptCache::new(room - 1), row(1.0)),
            (PromptCache::new(room), row(f32::NAN)),
        ] {
            cache.put(&prompt, state);
            assert_eq!((cache.get(&prompt), cache.stats().num_bytes), (None, 0));
        }
        let cache = PromptCache::new(room);
        (0..3).for_each(|_| cache.put(&prompt, row(1.0)));
        assert_eq!((cache.get(&prompt).is_some(), cache.stats().num_bytes), (true, room));
    }
}
