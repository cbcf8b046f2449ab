//! `OrtModel`: one step graph in one single-threaded session, run without copying state.

use charrnn_core::state::StateRows;
use charrnn_core::{ModelSpec, StepError, StepModel};
use ort::memory::MemoryInfo;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::Session;

use super::graph;
use super::value::{self, Names, RawTensor};
use super::{Device, OrtError, OrtRuntime};

/// A step graph loaded into its own ONNX Runtime session; give every decode thread one.
pub struct OrtModel {
    session: Session,
    spec: ModelSpec,
    memory: MemoryInfo<'static>,
    input_names: Names,
    output_names: Names,
    /// `(B,)`
    token_ids: Vec<i64>,
    /// `(B, V)`
    logits: Vec<f32>,
}

impl OrtModel {
    /// Loads a graph from its bytes onto `device` and checks it against `spec`; `name` is for errors.
    pub fn load(
        runtime: &OrtRuntime,
        device: Device,
        name: &str,
        bytes: &[u8],
        spec: ModelSpec,
    ) -> Result<Self, OrtError> {
        let unusable =
            |error: ort::Error| OrtError::Load { graph: name.to_owned(), reason: error.to_string() };
        let unfit = |problem| OrtError::Graph { graph: name.to_owned(), problem };
        let builder = device.on(options(runtime).map_err(unusable)?)?;
        let session = { builder }.commit_from_memory(bytes).map_err(unusable)?;
        graph::check(&session, &spec).map_err(unfit)?;
        let names = |names| Names::new(names).ok_or_else(|| unfit("a name holds a NUL".to_owned()));
        Ok(OrtModel {
            session,
            input_names: names(graph::input_names(&spec))?,
            output_names: names(graph::output_names(&spec))?,
            spec,
            memory: MemoryInfo::default(),
            token_ids: Vec::new(),
            logits: Vec::new(),
        })
    }

    /// Runs one step at each batch size, so that no request pays for first-time allocations.
    pub fn warm_up(&mut self, batch_sizes: &[usize]) -> Result<(), StepError> {
        for &batch in batch_sizes {
            let mut state = StateRows::new(&self.spec, batch);
            (0..batch).for_each(|_| state.push_zero());
            self.step(&vec![0; batch], &mut state)?;
        }
        Ok(())
    }

    /// ONNX Runtime aborts the process on a batch of 0 and reads past arenas that are too short.
    fn check(&self, batch: usize, state: &StateRows) -> Result<(), StepError> {
        let rows = state.num_rows();
        if batch == 0 || batch != rows {
            return Err(StepError(format!("a step needs one token a row; got {batch} tokens, {rows} rows")));
        }
        let floats = |i| state.tensor(i).len();
        match self.spec.state.iter().enumerate().find(|(i, tensor)| floats(*i) != batch * tensor.width) {
            Some((_, tensor)) => Err(StepError(format!("state {} is of another model", tensor.name))),
            None => Ok(()),
        }
    }

    /// Runs the graph from the state's current arenas into its other ones and into `logits`.
    fn run(&mut self, state: &mut StateRows) -> ort::Result<()> {
        let batch = self.token_ids.len();
        let mut inputs = Vec::with_capacity(1 + self.spec.state.len());
        let mut outputs = Vec::with_capacity(1 + self.spec.state.len());
        // SAFETY: `token_ids` holds `batch` and `logits` `batch * V` elements, the arenas `batch * width`
        // floats each, in and out apart; all outlive the run below, and inputs are only read.
        unsafe {
            let logits_shape = [batch, self.spec.vocab_size];
            inputs.push(RawTensor::new(&self.memory, self.token_ids.as_mut_ptr(), &[batch])?);
            outputs.push(RawTensor::new(&self.memory, self.logits.as_mut_ptr(), &logits_shape)?);
            for (i, tensor) in self.spec.state.iter().enumerate() {
                let (current, next) = state.in_out_ptr(i);
                inputs.push(RawTensor::new(&self.memory, current.cast_mut(), &[batch, tensor.width])?);
                outputs.push(RawTensor::new(&self.memory, next, &[batch, tensor.width])?);
            }
        }
        value::run(&mut self.session, (&self.input_names, &inputs), (&self.output_names, &mut outputs))
    }
}

impl StepModel for OrtModel {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn step(&mut self, tokens: &[u32], state: &mut StateRows) -> Result<&[f32], StepError> {
        let batch = tokens.len();
        self.check(batch, state)?;
        self.token_ids.clear();
        self.token_ids.extend(tokens.iter().map(|&token| i64::from(token)));
        self.logits.resize(batch * self.spec.vocab_size, 0.0);
        self.run(state).map_err(|error| StepError(error.to_string()))?;
        state.flip();
        Ok(&self.logits)
    }
}

/// One thread and no spinning: parallelism comes from several workers, each with its own session.
fn options(runtime: &OrtRuntime) -> ort::Result<SessionBuilder> {
    let options = Session::builder(runtime.environment())?
        .with_intra_threads(1)?
        .with_inter_threads(1)?
        .with_parallel_execution(false)?
        .with_intra_op_spinning(false)?
        .with_inter_op_spinning(false)?
        .with_optimization_level(GraphOptimizationLevel::All)?;
    Ok(options)
}
