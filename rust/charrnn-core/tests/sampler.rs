//! The sampler against golden vectors of a slow reference and against a sampler that sorts everything.

use std::collections::BTreeMap;

use charrnn_core::params::{SamplingParams, ValidSampling};
use charrnn_core::philox::{uniform64, PURPOSE_SAMPLE};
use charrnn_core::sampler::{Context, Draw, Path, Sampler};
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    logits: Vec<f32>,
    seed: u64,
    position: u64,
    token: u32,
    temperature: f64,
    top_k: u32,
    top_p: f64,
    min_p: f64,
    typical_p: f64,
    repetition_penalty: f64,
    frequency_penalty: f64,
    presence_penalty: f64,
    penalty_window: u32,
    no_repeat_ngram_size: u32,
    logit_bias: BTreeMap<u32, f64>,
    allowed: Option<Vec<u32>>,
    history: Vec<u32>,
}

impl Case {
    fn params(&self) -> ValidSampling {
        let params = SamplingParams {
            logit_bias: self.logit_bias.clone().into_iter().collect(),
            allowed: self.allowed.clone(),
            repetition_penalty: Some(self.repetition_penalty),
            frequency_penalty: Some(self.frequency_penalty),
            presence_penalty: Some(self.presence_penalty),
            penalty_window: Some(self.penalty_window),
            no_repeat_ngram_size: Some(self.no_repeat_ngram_size),
            temperature: Some(self.temperature),
            top_k: Some(self.top_k),
            top_p: Some(self.top_p),
            min_p: Some(self.min_p),
            typical_p: Some(self.typical_p),
            seed: Some(self.seed),
            ..SamplingParams::default()
        };
        params.validate().expect("within limits")
    }
}

fn params(temperature: f64, top_k: u32, top_p: f64, min_p: f64, seed: u64) -> ValidSampling {
    let (temperature, top_k, top_p, min_p) = (Some(temperature), Some(top_k), Some(top_p), Some(min_p));
    let seed = Some(seed);
    SamplingParams { temperature, top_k, top_p, min_p, seed, ..SamplingParams::default() }
        .validate()
        .expect("within limits")
}

#[test]
fn golden_vectors_on_every_path() {
    let json = include_str!("../../../tests/golden/sampler.json");
    let cases: Vec<Case> = serde_json::from_str(json).expect("golden vectors");
    for path in Path::available() {
        for (index, case) in cases.iter().enumerate() {
            let (params, context) = (case.params(), Context { history: &case.history, mask: None });
            let mut sampler = Sampler::with_path(case.logits.len(), path);
            let draw = sampler.sample(&case.logits, &params, params.place(case.position, 0), context);
            assert_eq!(draw, Draw::Token(case.token), "case {index} on {path:?}");
        }
    }
}

/// Weights by the standard library's exp, every filter by a full sort.
fn reference(logits: &[f32], params: &ValidSampling, bits: u64) -> (u32, f64) {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let ids_by = |key: &dyn Fn(usize) -> f64| {
        let mut ids: Vec<usize> = (0..logits.len()).collect();
        ids.sort_by(|&a, &b| key(b).total_cmp(&key(a)).then(a.cmp(&b)));
        ids
    };
    let exact =
        |l: f32| (((f64::from(l) - f64::from(best)) / params.temperature()).exp() * 2_f64.powi(46)).floor();
    let mut weights: Vec<f64> = logits.iter().map(|&l| exact(l)).collect();
    if params.top_k() > 0 {
        let dropped = ids_by(&|id| f64::from(logits[id]));
        dropped.iter().skip(params.top_k() as usize).for_each(|&id| weights[id] = 0.0);
    }
    if params.top_p() < 1.0 {
        let (total, mut mass) = (weights.iter().sum::<f64>(), 0.0);
        let snapshot = weights.clone();
        for (rank, id) in ids_by(&|id| snapshot[id]).into_iter().enumerate() {
            if rank > 0 && mass >= params.top_p() * total {
                weights[id] = 0.0;
            }
            mass += weights[id];
        }
    }
    let largest = weights.iter().copied().fold(0.0, f64::max);
    weights.iter_mut().for_each(|w| *w = if *w >= params.min_p() * largest { *w } else { 0.0 });
    let total: f64 = weights.iter().sum();
    let (target, mut below) = (bits as f64 / 2_f64.powi(64) * total, 0.0);
    for (id, weight) in weights.iter().enumerate() {
        if target < below + weight {
            return (id as u32, (target - below).min(below + weight - target) / total);
        }
        below += weight;
    }
    (logits.len() as u32 - 1, 0.0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Quarters make ties frequent; draws within 2^-30 of a boundary may go either way.
    #[test]
    fn agrees_with_a_sampler_that_sorts(
        quarters in prop::collection::vec(-40_i16..40, 1..120),
        temperature in prop::sample::select(vec![0.2, 0.7, 1.0, 4.0]),
        top_k in prop::sample::select(vec![0, 1, 3, 50, 1000]),
        top_p in prop::sample::select(vec![0.0, 0.3, 0.9, 1.0]),
        min_p in prop::sample::select(vec![0.0, 0.02, 1.0]),
        seed: u64,
        position: u64,
    ) {
        let logits: Vec<f32> = quarters.iter().map(|&q| f32::from(q) / 4.0).collect();
        let params = params(temperature, top_k, top_p, min_p, seed);
        let (expected, margin) = reference(&logits, &params, uniform64(seed, position, 0, PURPOSE_SAMPLE));
        let draw = Sampler::new(logits.len()).sample(&logits, &params, params.place(position, 0), Context::default());
        prop_assert!(draw == Draw::Token(expected) || margin < 2_f64.powi(-30), "{draw:?}, not {expected}");
    }

    /// Excluded symbols are never drawn, whatever the parameters, and a sampler keeps nothing from one row to the next.
    #[test]
    fn an_excluded_symbol_is_never_drawn(
        allowed in prop::collection::vec(any::<bool>(), 2..80),
        temperature in prop::sample::select(vec![0.0, 1e-300, 1.0, 1e9, f64::INFINITY]),
        top_p in prop::sample::select(vec![0.5, 1.0]),
        seed: u64,
    ) {
        let logits: Vec<f32> = allowed.iter().map(|&a| if a { 0.0 } else { f32::NEG_INFINITY }).collect();
        let params = params(temperature, 0, top_p, 0.0, seed);
        let mut used = Sampler::new(logits.len());
        for position in 0..20 {
            let draw = used.sample(&logits, &params, params.place(position, 0), Context::default());
            prop_assert_eq!(draw, Sampler::new(logits.len()).sample(&logits, &params, params.place(position, 0), Context::default()));
            match draw {
                Draw::Token(token) => prop_assert!(allowed[token as usize]),
                other => prop_assert!(other == Draw::NoCandidates && !allowed.contains(&true)),
            }
        }
    }
}

/// Prints nanoseconds a row; `cargo test --release -p charrnn-core --test sampler -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn nanoseconds_a_row() {
    for vocab_size in [65, 96, 256, 8192, 65_536] {
        let logits: Vec<f32> = (0..vocab_size).map(|i| ((i * 37 % 10_007) as f32).sin() * 4.0).collect();
        for path in Path::available() {
            let mut sampler = Sampler::with_path(vocab_size, path);
            for (name, params) in [
                ("plain", params(0.8, 0, 1.0, 0.0, 1)),
                ("top_k 40", params(0.8, 40, 1.0, 0.0, 1)),
                ("top_p 0.95", params(0.8, 0, 0.95, 0.0, 1)),
                ("top_k 40, top_p 0.95", params(0.8, 40, 0.95, 0.0, 1)),
            ] {
                let rounds = 20_000_000 / vocab_size as u64;
                let start = std::time::Instant::now();
                for position in 0..rounds {
                    std::hint::black_box(sampler.sample(
                        std::hint::black_box(&logits),
                        &params,
                        params.place(position, 0),
                        Context::default(),
                    ));
                }
                let ns = start.elapsed().as_nanos() as f64 / rounds as f64;
                println!("V={vocab_size} {path:?} {name}: {ns:.0} ns");
            }
        }
    }
}
