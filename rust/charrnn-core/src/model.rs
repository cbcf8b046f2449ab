//! The seam between the engine and whatever computes a step: `StepModel`.
//!
//! Knows the shapes of a model and nothing of how its numbers come about.

use crate::state::StateRows;

/// One tensor of the recurrent state: `(B, width)` while running, `width` floats for one stream.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StateTensor {
    /// Name of the graph input; the output is the name followed by `_out`.
    pub name: String,
    /// Floats a stream holds in this tensor.
    pub width: usize,
}

/// The shapes of a step model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSpec {
    /// Number of symbols, `V`.
    pub vocab_size: usize,
    /// The state tensors in graph order, for instance `h0, c0, h1, c1`.
    pub state: Vec<StateTensor>,
}

impl ModelSpec {
    /// Floats of state one stream holds, over all tensors.
    pub fn state_len(&self) -> usize {
        self.state.iter().map(|tensor| tensor.width).sum()
    }
}

/// A step failed for the whole batch.
#[derive(Debug, thiserror::Error)]
#[error("model step failed: {0}")]
pub struct StepError(pub String);

/// `step(token[B], state) -> (logits[B, V], state')`: the only thing a model is.
pub trait StepModel: Send {
    /// The shapes; constant over the model's life.
    fn spec(&self) -> &ModelSpec;

    /// Feeds `tokens[r]` to row `r` of `state`, which holds the new state afterwards.
    ///
    /// `tokens.len() == state.num_rows() > 0`; callers never run a batch of 0. Returns the logits,
    /// `(B, V)` row-major. A row's result must not depend on the other rows. On an error the rows
    /// of `state` are unchanged.
    fn step(&mut self, tokens: &[u32], state: &mut StateRows) -> Result<&[f32], StepError>;
}
