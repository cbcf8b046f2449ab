//! What the model gives without engine, sampler or network: full batches stepped in bare loops.

use std::sync::Barrier;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use charrnn_core::manifest::Bundle;
use charrnn_core::state::StateRows;
use charrnn_core::StepModel;
use charrnn_serve::{OrtModel, OrtRuntime};

use crate::cpu::{Stopwatch, Yield};
use crate::options::Options;
use crate::Result;

/// Rows of each worker's batch: the default limit of the engine.
pub(crate) const BATCH: usize = 64;

/// One session a worker, as in the server.
pub(crate) struct Ceiling(Vec<OrtModel>);

impl Ceiling {
    pub(crate) fn load(options: &Options) -> Result<Self> {
        let bundle = Bundle::open(&options.bundle)?;
        let precision = options.precision.as_deref().unwrap_or(bundle.default_precision());
        let bytes = bundle.read(precision)?;
        let runtime = OrtRuntime::load(&options.onnxruntime)?;
        let load = |_| OrtModel::load(runtime, precision, &bytes, bundle.spec.clone());
        Ok(Ceiling((0..options.workers).map(load).collect::<Result<_, _>>()?))
    }

    pub(crate) fn num_workers(&self) -> usize {
        self.0.len()
    }

    /// All workers at once, each on its thread.
    pub(crate) fn measure(&mut self, window: Duration) -> Result<Yield> {
        let start = Barrier::new(self.0.len());
        let stopwatch = Stopwatch::start();
        let num_chars = thread::scope(|scope| {
            let (start, stopwatch) = (&start, &stopwatch);
            let spawn = |model| scope.spawn(move || step_loop(model, start, stopwatch, window));
            let threads: Vec<_> = self.0.iter_mut().map(spawn).collect();
            let join =
                |thread: ScopedJoinHandle<'_, Result<u64>>| thread.join().map_err(|_| "a loop panicked")?;
            threads.into_iter().map(join).sum::<Result<u64>>()
        })?;
        Ok(stopwatch.stop(num_chars))
    }
}

fn step_loop(model: &mut OrtModel, start: &Barrier, stopwatch: &Stopwatch, window: Duration) -> Result<u64> {
    let mut state = StateRows::new(model.spec(), BATCH);
    (0..BATCH).for_each(|_| state.push_zero());
    let tokens: Vec<u32> = (0..BATCH).map(|row| (row % model.spec().vocab_size) as u32).collect();
    start.wait();
    let mut num_chars = 0;
    while stopwatch.elapsed() < window {
        model.step(&tokens, &mut state)?;
        num_chars += BATCH as u64;
    }
    Ok(num_chars)
}
