//! A deterministic automaton over token ids. Symbols that no state tells apart share a class.

use std::collections::VecDeque;

/// The first state.
pub(super) const START: u32 = 0;
/// In a table of transitions: no match can be reached that way.
pub(super) const DEAD: u32 = u32::MAX;
/// The class of symbols that lead nowhere from any state.
pub(super) const NO_CLASS: u32 = u32::MAX;

/// Every state but perhaps the first can reach a match.
#[derive(Debug)]
pub(super) struct Automaton {
    /// Class of each symbol, `(V,)`.
    classes: Vec<u32>,
    num_classes: usize,
    /// `(S, C)`
    next: Vec<u32>,
    /// Symbols to the nearest match, `(S,)`: 0 in a match, `DEAD` where there is none.
    to_match: Vec<u32>,
    max_to_match: u32,
    /// `(S, words_of(V))`
    masks: Vec<u64>,
}

/// Words of 64 bits for a bit a symbol.
pub(super) fn words_of(vocab_size: usize) -> usize {
    vocab_size.div_ceil(64)
}

impl Automaton {
    /// From the classes of symbols, transitions `(S, C)` and which states match.
    pub(super) fn new(classes: Vec<u32>, num_classes: usize, mut next: Vec<u32>, is_match: &[bool]) -> Self {
        let to_match = distances(&next, num_classes, is_match);
        for target in &mut next {
            if *target != DEAD && to_match[*target as usize] == DEAD {
                *target = DEAD;
            }
        }
        let max_to_match = to_match.iter().copied().filter(|&distance| distance != DEAD).max().unwrap_or(0);
        let masks = masks(&classes, num_classes, &next);
        Automaton { classes, num_classes, next, to_match, max_to_match, masks }
    }

    /// A checksum of what decides where a text leads.
    pub(super) fn fingerprint(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        for part in [&self.classes, &self.next, &self.to_match] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            part.iter().for_each(|number| hasher.update(&number.to_le_bytes()));
        }
        hasher.finalize()
    }

    pub(super) fn num_states(&self) -> u32 {
        self.to_match.len() as u32
    }

    pub(super) fn next(&self, state: u32, token: u32) -> Option<u32> {
        let class = self.classes[token as usize];
        if class == NO_CLASS {
            return None;
        }
        let next = self.next[state as usize * self.num_classes + class as usize];
        (next != DEAD).then_some(next)
    }

    pub(super) fn successors(&self, state: u32) -> impl Iterator<Item = u32> + '_ {
        let start = state as usize * self.num_classes;
        self.next[start..start + self.num_classes].iter().copied().filter(|&next| next != DEAD)
    }

    pub(super) fn to_match(&self, state: u32) -> u32 {
        self.to_match[state as usize]
    }

    /// The largest distance of a state that can reach a match.
    pub(super) fn max_to_match(&self) -> u32 {
        self.max_to_match
    }

    /// Symbols that lead on from `state`.
    pub(super) fn mask(&self, state: u32) -> &[u64] {
        let num_words = words_of(self.classes.len());
        &self.masks[state as usize * num_words..][..num_words]
    }
}

/// Symbols from each state to the nearest match, by going backwards from the matches.
fn distances(next: &[u32], num_classes: usize, is_match: &[bool]) -> Vec<u32> {
    let mut before = vec![Vec::new(); is_match.len()];
    for (index, &target) in next.iter().enumerate() {
        if target != DEAD {
            before[target as usize].push((index / num_classes) as u32);
        }
    }
    let mut to_match: Vec<u32> = is_match.iter().map(|&is_match| if is_match { 0 } else { DEAD }).collect();
    let mut queue: VecDeque<u32> = (0..is_match.len() as u32).filter(|&s| is_match[s as usize]).collect();
    while let Some(state) = queue.pop_front() {
        for &previous in &before[state as usize] {
            if to_match[previous as usize] == DEAD {
                to_match[previous as usize] = to_match[state as usize] + 1;
                queue.push_back(previous);
            }
        }
    }
    to_match
}

fn masks(classes: &[u32], num_classes: usize, next: &[u32]) -> Vec<u64> {
    let num_words = words_of(classes.len());
    let num_states = next.len().checked_div(num_classes).unwrap_or(1);
    let mut masks = vec![0; num_states * num_words];
    for (row, mask) in masks.chunks_exact_mut(num_words).enumerate() {
        for (id, &class) in classes.iter().enumerate() {
            if class != NO_CLASS && next[row * num_classes + class as usize] != DEAD {
                mask[id / 64] |= 1 << (id % 64);
            }
        }
    }
    masks
}
