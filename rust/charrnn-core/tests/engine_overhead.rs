//! What the engine costs a character beside the model: `cargo test --release -p charrnn-core --test engine_overhead
//! -- --ignored --nocapture` prints it. No assertion on times: machines differ.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use charrnn_core::engine::Engine;
use charrnn_core::event::{Event, SendError, Sink};
use charrnn_core::request::GenerateRequest;
use charrnn_core::sampler::{Context, Draw, Sampler};
use charrnn_core::state::StateRows;
use charrnn_core::vocab::{Unit, Vocab};
use charrnn_core::{ModelSpec, StateTensor, StepError, StepModel};
use common::{config, request, START};

const NUM_SYMBOLS: usize = 65;
const NUM_CHARS: u32 = 20_000;
const BATCH: usize = 64;

/// A model that takes no time.
struct FreeModel {
    spec: ModelSpec,
    /// `(BATCH, V)`
    logits: Vec<f32>,
}

impl FreeModel {
    fn new() -> Self {
        let state = vec![StateTensor { name: "h0".to_owned(), width: 512 }];
        let logit = |i: usize| (i * 7919 % 101) as f32 / 20.0;
        let logits = (0..BATCH * NUM_SYMBOLS).map(logit).collect();
        FreeModel { spec: ModelSpec { vocab_size: NUM_SYMBOLS, state }, logits }
    }
}

impl StepModel for FreeModel {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn step(&mut self, tokens: &[u32], state: &mut StateRows) -> Result<&[f32], StepError> {
        state.flip();
        Ok(&self.logits[..tokens.len() * NUM_SYMBOLS])
    }
}

/// A reader without cost.
struct Sponge;

impl Sink for Sponge {
    fn try_send(&mut self, event: Event) -> Result<(), SendError> {
        drop(event);
        Ok(())
    }

    fn is_closed(&self) -> bool {
        false
    }
}

/// Time a character of `BATCH` streams through the engine.
fn engine_time(vocab: &Arc<Vocab>, wanted: &GenerateRequest) -> Duration {
    let models: Vec<Box<dyn StepModel>> = vec![Box::new(FreeModel::new())];
    let (engine, mut workers) =
        Engine::unstarted(models, vocab.clone(), config(BATCH, 0), Arc::new(Instant::now));
    for _ in 0..BATCH {
        let valid = wanted.clone().validate(vocab, START, None).expect("a valid request");
        engine.submit(valid, Box::new(Sponge)).expect("room");
    }
    let start = Instant::now();
    while workers[0].turn() {}
    start.elapsed() / (NUM_CHARS * BATCH as u32)
}

/// Time a character of the sampler alone, on the same logits.
fn sampler_time(vocab: &Arc<Vocab>, wanted: &GenerateRequest) -> Duration {
    let valid = wanted.clone().validate(vocab, START, None).expect("a valid request");
    let (logits, mut sampler) = (FreeModel::new().logits, Sampler::new(NUM_SYMBOLS));
    let start = Instant::now();
    for position in 0..NUM_CHARS {
        for row in logits.chunks_exact(NUM_SYMBOLS) {
            let draw = sampler.sample(
                row,
                valid.sampling(),
                valid.sampling().place(u64::from(position), 0),
                Context::default(),
            );
            assert!(matches!(std::hint::black_box(draw), Draw::Token(_)));
        }
    }
    start.elapsed() / (NUM_CHARS * BATCH as u32)
}

#[test]
#[ignore = "a measurement"]
fn overhead_a_character() {
    let symbols = (32..32 + NUM_SYMBOLS as u32).collect();
    let vocab = Arc::new(Vocab::new(Unit::Char, symbols).expect("distinct characters"));
    // Greedy: the cheapest draw, so that what is left after taking it away is not noise.
    let mut plain = request("A", 1, NUM_CHARS);
    plain.sampling.temperature = Some(0.0);
    let (mut chunk_1, mut with_stop) = (plain.clone(), plain.clone());
    chunk_1.output.chunk_chars = Some(1);
    with_stop.stopping.stop = vec!["BABABABA".to_owned(), "ABABABAB".to_owned()];
    for (name, wanted) in [("chunks of 16", plain), ("chunks of 1", chunk_1), ("two stop strings", with_stop)]
    {
        let best =
            |time: fn(&Arc<Vocab>, &GenerateRequest) -> Duration| (0..9).map(|_| time(&vocab, &wanted)).min();
        let (whole, sampler) =
            (best(engine_time).unwrap_or_default(), best(sampler_time).unwrap_or_default());
        println!("{name}: {whole:?} a character, {sampler:?} of it the sampler");
    }
}
