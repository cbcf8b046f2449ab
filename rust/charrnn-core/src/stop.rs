//! Stop strings: an Aho-Corasick automaton over token ids, with an exact hold-back.
//!
//! Aho, Corasick: "Efficient string matching" (1975). The whole memory of a stream is one state number, which
//! says how long the longest suffix is that may yet become a stop string: exactly what must not be shown yet.

use std::collections::{BTreeMap, VecDeque};

/// The state before any symbol.
pub const START: u32 = 0;

/// One node: a prefix of some pattern.
#[derive(Clone, Debug, Default)]
struct Node {
    children: BTreeMap<u32, u32>,
    /// The longest proper suffix of this prefix that is a prefix too.
    fallback: u32,
    depth: usize,
    /// Length of the longest suffix that is a proper prefix of some pattern.
    held: usize,
    /// The longest pattern that ends here.
    matched: Option<usize>,
}

/// What one symbol led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopStep {
    /// The state to go on from.
    pub state: u32,
    /// Index of the longest pattern that ends with this symbol.
    pub matched: Option<usize>,
}

/// Patterns to look for, all at once.
#[derive(Clone, Debug)]
pub struct StopSet {
    nodes: Vec<Node>,
}

impl StopSet {
    /// Builds the automaton, in time and memory linear in the patterns' length. Empty patterns match nothing.
    pub fn new(patterns: &[Vec<u32>]) -> Self {
        let mut set = StopSet { nodes: vec![Node::default()] };
        for (index, pattern) in patterns.iter().enumerate() {
            set.insert(index, pattern);
        }
        set.link();
        set
    }

    fn insert(&mut self, index: usize, pattern: &[u32]) {
        let mut node = START as usize;
        for &token in pattern {
            let next = self.nodes.len() as u32;
            let depth = self.nodes[node].depth + 1;
            let child = *self.nodes[node].children.entry(token).or_insert(next);
            if child == next {
                self.nodes.push(Node { depth, ..Node::default() });
            }
            node = child as usize;
        }
        if !pattern.is_empty() {
            self.nodes[node].matched.get_or_insert(index);
        }
    }

    /// Sets the fallbacks, shallow nodes first, and hands matches down from them.
    fn link(&mut self) {
        let mut queue: VecDeque<u32> = self.nodes[START as usize].children.values().copied().collect();
        while let Some(node) = queue.pop_front() {
            let fallback = self.nodes[node as usize].fallback;
            let is_prefix = !self.nodes[node as usize].children.is_empty();
            let depth = self.nodes[node as usize].depth;
            self.nodes[node as usize].held =
                if is_prefix { depth } else { self.nodes[fallback as usize].held };
            if self.nodes[node as usize].matched.is_none() {
                self.nodes[node as usize].matched = self.nodes[fallback as usize].matched;
            }
            for (token, child) in self.nodes[node as usize].children.clone() {
                self.nodes[child as usize].fallback = self.goto(fallback, token);
                queue.push_back(child);
            }
        }
    }

    /// The longest prefix that `state` followed by `token` ends with.
    fn goto(&self, mut state: u32, token: u32) -> u32 {
        loop {
            let node = &self.nodes[state as usize];
            match node.children.get(&token) {
                Some(&child) => return child,
                None if state == START => return START,
                None => state = node.fallback,
            }
        }
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }

    /// Goes on from `state` by one symbol.
    pub fn advance(&self, state: u32, token: u32) -> StopStep {
        let state = self.goto(state, token);
        StopStep { state, matched: self.nodes[state as usize].matched }
    }

    /// How many of the last symbols may be the beginning of a stop string.
    pub fn held(&self, state: u32) -> usize {
        self.nodes[state as usize].held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The longest pattern that `text` ends with.
    fn naive_match(patterns: &[Vec<u32>], text: &[u32]) -> Option<Vec<u32>> {
        patterns.iter().filter(|pattern| text.ends_with(pattern)).max_by_key(|pattern| pattern.len()).cloned()
    }

    /// The longest suffix of `text` that is a proper prefix of a pattern.
    fn naive_held(patterns: &[Vec<u32>], text: &[u32]) -> usize {
        let is_prefix = |n: &usize| {
            let suffix = &text[text.len() - n..];
            patterns.iter().any(|pattern| pattern.len() > *n && pattern.starts_with(suffix))
        };
        (0..=text.len()).rev().find(is_prefix).unwrap_or(0)
    }

    #[test]
    fn no_patterns_hold_nothing_back() {
        let set = StopSet::new(&[]);
        assert!(set.is_empty());
        assert_eq!(set.advance(START, 5), StopStep { state: START, matched: None });
        assert_eq!(set.held(START), 0);
    }

    proptest! {
        /// Three symbols make repeats and overlaps frequent.
        #[test]
        fn agrees_with_a_naive_search(
            patterns in prop::collection::vec(prop::collection::vec(0u32..3, 1..5), 1..5),
            text in prop::collection::vec(0u32..3, 0..40),
        ) {
            let set = StopSet::new(&patterns);
            let mut state = START;
            for end in 1..=text.len() {
                let step = set.advance(state, text[end - 1]);
                let matched = step.matched.map(|index| patterns[index].clone());
                prop_assert_eq!(&matched, &naive_match(&patterns, &text[..end]));
                // After a match too: before min_tokens the text goes on.
                prop_assert_eq!(set.held(step.state), naive_held(&patterns, &text[..end]));
                state = step.state;
            }
        }
    }
}
