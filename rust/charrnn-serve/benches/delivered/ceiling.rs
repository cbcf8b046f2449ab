//! What the model gives without engine, sampler or network: full batches stepped in bare loops.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use charrnn_core::manifest::Bundle;
use charrnn_core::state::StateRows;
use charrnn_core::StepModel;
use charrnn_serve::{OrtModel, OrtRuntime};

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

    /// Characters a second, all workers together.
    pub(crate) fn measure(&mut self, window: Duration) -> Result<f64> {
        let start = Barrier::new(self.0.len());
        let rates = thread::scope(|scope| {
            let start = &start;
            let threads: Vec<_> =
                self.0.iter_mut().map(|model| scope.spawn(move || step_loop(model, start, window))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().map_err(|_| "a loop panicked")?)
                .collect::<Result<Vec<_>>>()
        })?;
        Ok(rates.into_iter().sum())
    }
}

fn step_loop(model: &mut OrtModel, start: &Barrier, window: Duration) -> Result<f64> {
    let mut state = StateRows::new(model.spec(), BATCH);
    (0..BATCH).for_each(|_| state.push_zero());
    let tokens: Vec<u32> = (0..BATCH).map(|row| (row % model.spec().vocab_size) as u32).collect();
    model.step(&tokens, &mut state)?;
    start.wait();
    let (began, mut num_chars) = (Instant::now(), 0);
    while began.elapsed() < window {
        model.step(&tokens, &mut state)?;
        num_chars += BATCH;
    }
    Ok(num_chars as f64 / began.elapsed().as_secs_f64())
}
