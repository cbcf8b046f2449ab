//! Whether a bundle can be served on this machine: every file whole, and the same text in company as alone.

use std::path::Path;

use charrnn_core::manifest::Bundle;
use charrnn_core::state::StateRows;
use charrnn_core::{StepError, StepModel};

use crate::error::ServeError;
use crate::model::{choose_precision, load_graphs, model_info, unlike_alone, ModelInfo};
use crate::onnx::Device;

/// Steps that a row takes in company and alone. The state of the first is zero, that of the last is not.
const NUM_STEPS: usize = 32;
/// Rows of the full batch that are compared.
const NUM_ROWS: usize = 8;

/// What was found of a bundle that can be served.
#[derive(Clone, Debug)]
pub struct Checked {
    /// As clients will see it.
    pub info: ModelInfo,
    /// Of the graph, which every worker holds once.
    pub graph_bytes: u64,
    /// What a stream holds while it runs: its state before and after a step, and its logits.
    pub stream_bytes: u64,
}

/// Checks every file of the bundle at `dir`, loads it, and takes steps in batches of 1 and of `batch`.
pub fn check_bundle(
    dir: &Path,
    dylib: &Path,
    device: Device,
    precision: Option<&str>,
    batch: usize,
) -> Result<Checked, ServeError> {
    let bundle = Bundle::open(dir)?;
    bundle.verify_all()?;
    let precision = choose_precision(&bundle, device, precision)?;
    let graph_bytes = bundle.read(precision)?.len() as u64;
    let mut models = load_graphs(&bundle, dir, (dylib, device), precision, &[1, batch], 1)?;
    check_rows(models[0].as_mut(), batch).map_err(|reason| unlike_alone(precision, dir, reason))?;
    let info = model_info(&bundle, device, precision);
    let stream_bytes = 2 * info.state_bytes + (bundle.spec.vocab_size * size_of::<f32>()) as u64;
    Ok(Checked { info, graph_bytes, stream_bytes })
}

/// What is wrong, in words.
pub(crate) fn check_rows(model: &mut dyn StepModel, batch: usize) -> Result<(), String> {
    let rows: Vec<usize> = (0..batch).collect();
    let compared = rows.iter().copied().step_by(batch.div_ceil(NUM_ROWS));
    let together = steps(model, &rows)?;
    for row in compared {
        let alone = steps(model, &[row])?;
        if let Some(step) = (0..NUM_STEPS).find(|&step| alone[step][0] != together[step][row]) {
            return Err(format!(
                "row {row} of {batch} differs from the same row alone at step {step}, so a text would depend on others"
            ));
        }
    }
    Ok(())
}

/// The bits of the logits of each row after each step, all of them numbers.
fn steps(model: &mut dyn StepModel, rows: &[usize]) -> Result<Vec<Vec<Vec<u32>>>, String> {
    let vocab_size = model.spec().vocab_size;
    let mut state = StateRows::new(model.spec(), rows.len());
    rows.iter().for_each(|_| state.push_zero());
    let mut found = Vec::with_capacity(NUM_STEPS);
    for step in 0..NUM_STEPS {
        let tokens: Vec<u32> = rows.iter().map(|row| ((row * 7 + step * 13) % vocab_size) as u32).collect();
        let logits = model.step(&tokens, &mut state).map_err(|StepError(reason)| reason)?;
        if let Some(index) = logits.iter().position(|logit| !logit.is_finite()) {
            return Err(format!("a logit is {} at step {step}, which is not a number", logits[index]));
        }
        found.push(
            logits.chunks_exact(vocab_size).map(|row| row.iter().map(|x| x.to_bits()).collect()).collect(),
        );
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use charrnn_core::{ModelSpec, StateTensor};

    /// Logits that are the token, and wrong where `fault` says so: given step, row and rows.
    struct Fake {
        spec: ModelSpec,
        logits: Vec<f32>,
        num_steps: usize,
        fault: fn(usize, usize, usize) -> f32,
    }

    impl StepModel for Fake {
        fn spec(&self) -> &ModelSpec {
            &self.spec
        }

        fn step(&mut self, tokens: &[u32], state: &mut StateRows) -> Result<&[f32], StepError> {
            let rows = tokens.len();
            let logit = |(row, &token)| token as f32 + (self.fault)(self.num_steps, row, rows);
            self.logits = tokens.iter().enumerate().flat_map(|at| [logit(at); 3]).collect();
            self.num_steps += 1;
            state.flip();
            Ok(&self.logits)
        }
    }

    fn check(fault: fn(usize, usize, usize) -> f32) -> Result<(), String> {
        let state = vec![StateTensor { name: "h0".to_owned(), width: 1 }];
        let spec = ModelSpec { vocab_size: 3, state };
        check_rows(&mut Fake { spec, logits: Vec::new(), num_steps: 0, fault }, 20)
    }

    #[test]
    fn rows_that_are_the_same_alone_pass() {
        assert_eq!(check(|_, _, _| 0.0), Ok(()));
    }

    #[test]
    fn a_row_that_company_moves_is_named() {
        let found = check(|step, row, rows| if rows > 1 && row == 18 && step > 5 { 1e-3 } else { 0.0 });
        assert!(
            found.as_ref().is_err_and(|found| found.starts_with("row 18 of 20 ") && found.contains("step 6")),
            "{found:?}"
        );
    }

    #[test]
    fn what_is_no_number_is_told() {
        let found = check(|step, row, _| if row == 3 && step == 30 { f32::NAN } else { 0.0 });
        assert_eq!(found, Err("a logit is NaN at step 30, which is not a number".to_owned()));
    }
}
