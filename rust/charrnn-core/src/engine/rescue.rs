//! After a batch failed: every row alone, so that only the one at fault is lost.

use std::time::Instant;

use crate::event::StreamError;
use crate::model::{ModelSpec, StepError, StepModel};
use crate::scheduler::stream::Stream;
use crate::slots::Slots;
use crate::state::StateRows;

/// Buffers for stepping row by row.
pub(super) struct Rescue {
    /// One row.
    state: StateRows,
    /// `(B, V)`
    logits: Vec<f32>,
}

impl Rescue {
    pub(super) fn new(spec: &ModelSpec) -> Self {
        Rescue { state: StateRows::new(spec, 1), logits: Vec::new() }
    }

    /// Steps each row of a batch that failed with `error`. Rows that fail again end their streams; their
    /// logits are zeros. A batch of one is not tried again: it would fail the same way.
    pub(super) fn step(
        &mut self,
        model: &mut dyn StepModel,
        slots: &mut Slots<Stream>,
        error: StepError,
        now: Instant,
    ) -> &[f32] {
        let (batch, vocab_size) = (slots.len(), model.spec().vocab_size);
        self.logits.clear();
        self.logits.resize(batch * vocab_size, 0.0);
        for row in 0..batch {
            let result = match batch {
                1 => Err(StepError(error.0.clone())),
                _ => self.step_row(model, slots, row),
            };
            if let Err(error) = result {
                slots.owner_mut(row).fail(StreamError::Model(error.0), now);
            }
        }
        &self.logits
    }

    fn step_row(
        &mut self,
        model: &mut dyn StepModel,
        slots: &mut Slots<Stream>,
        row: usize,
    ) -> Result<(), StepError> {
        let (state, token) = slots.read(row);
        self.state.push(&state);
        let result = model.step(&[token], &mut self.state).map(|logits| {
            let vocab_size = logits.len();
            self.logits[row * vocab_size..][..vocab_size].copy_from_slice(logits);
        });
        if result.is_ok() {
            slots.write(row, &self.state.read(0));
        }
        self.state.swap_remove(0);
        result
    }
}
