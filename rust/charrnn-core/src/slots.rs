//! Slots: the rows of a running batch, each leased to one owner with the symbol it is fed next.
//!
//! Knows that a row, its owner and its symbol move together, and nothing of why anybody joins or leaves.

use crate::model::ModelSpec;
use crate::state::{RowState, StateRows};

/// The running batch: state rows, next symbols and owners, index for index.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    state: StateRows,
    /// `(B,)`
    tokens: Vec<u32>,
    owners: Vec<T>,
    capacity: usize,
}

impl<T> Slots<T> {
    /// All slots free.
    pub(crate) fn new(spec: &ModelSpec, capacity: usize) -> Self {
        Slots {
            state: StateRows::new(spec, capacity),
            tokens: Vec::with_capacity(capacity),
            owners: Vec::with_capacity(capacity),
            capacity,
        }
    }

    /// Slots in use, `B`.
    pub(crate) fn len(&self) -> usize {
        self.owners.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.owners.len() == self.capacity
    }

    /// Leases the next row to `owner`: from the zero state, or from where it left off.
    pub(crate) fn join(&mut self, owner: T, token: u32, state: Option<&RowState>) {
        match state {
            Some(row) => self.state.push(row),
            None => self.state.push_zero(),
        }
        self.tokens.push(token);
        self.owners.push(owner);
    }

    /// Frees a row; the last one takes its place, so walk downwards when freeing several.
    pub(crate) fn leave(&mut self, row: usize) -> T {
        self.state.swap_remove(row);
        self.tokens.swap_remove(row);
        self.owners.swap_remove(row)
    }

    /// What `join` needs to go on where the row stands: its state and next symbol.
    pub(crate) fn read(&self, row: usize) -> (RowState, u32) {
        (self.state.read(row), self.tokens[row])
    }

    /// Overwrites a row's state.
    pub(crate) fn write(&mut self, row: usize, state: &RowState) {
        self.state.write(row, state);
    }

    /// Makes a row's state zero.
    pub(crate) fn zero(&mut self, row: usize) {
        self.state.zero(row);
    }

    /// The arguments of a step: `(B,)` symbols and the state rows.
    pub(crate) fn batch(&mut self) -> (&[u32], &mut StateRows) {
        (&self.tokens, &mut self.state)
    }

    pub(crate) fn owner(&self, row: usize) -> &T {
        &self.owners[row]
    }

    pub(crate) fn owner_mut(&mut self, row: usize) -> &mut T {
        &mut self.owners[row]
    }

    /// Every owner with the place for its next symbol, in row order.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&mut T, &mut u32)> {
        self.owners.iter_mut().zip(&mut self.tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::StateTensor;

    fn slots() -> Slots<char> {
        let state = vec![StateTensor { name: "h0".to_owned(), width: 2 }];
        Slots::new(&ModelSpec { vocab_size: 9, state }, 3)
    }

    fn row(first: f32) -> RowState {
        RowState::new(vec![first, -first])
    }

    #[test]
    fn a_row_its_symbol_and_its_owner_move_together() {
        let mut slots = slots();
        for (owner, token, first) in [('a', 1, 10.0), ('b', 2, 20.0), ('c', 3, 30.0)] {
            slots.join(owner, token, Some(&row(first)));
        }
        assert!(slots.is_full());
        assert_eq!(slots.leave(0), 'a');
        assert_eq!((*slots.owner(0), slots.read(0)), ('c', (row(30.0), 3)));
        assert_eq!((*slots.owner(1), slots.read(1)), ('b', (row(20.0), 2)));
        slots.join('d', 4, None);
        assert_eq!((*slots.owner(2), slots.read(2)), ('d', (row(0.0), 4)));
        let (tokens, state) = slots.batch();
        assert_eq!((tokens, state.num_rows()), ([3, 2, 4].as_slice(), 3));
    }

    #[test]
    fn the_last_slot_can_leave() {
        let mut slots = slots();
        slots.join('a', 1, None);
        assert_eq!(slots.leave(0), 'a');
        assert!(slots.is_empty() && !slots.is_full());
    }
}
