//! A real bundle through ONNX Runtime: rows do not depend on their neighbours, errors leave the state alone.
//!
//! Needs `CHARRNN_TEST_BUNDLE` (an exported folder with fp32 and int8) and `CHARRNN_TEST_ONNXRUNTIME` (the shared
//! library); without them each test says that it is skipped.

use std::path::{Path, PathBuf};

use charrnn_core::manifest::Bundle;
use charrnn_core::state::StateRows;
use charrnn_core::{ModelSpec, StepModel};
use charrnn_serve::{Device, OrtError, OrtModel, OrtRuntime};

const PRECISIONS: [&str; 2] = ["fp32", "int8"];
const STEPS: usize = 12;

struct Setup {
    bundle: Bundle,
    dylib: PathBuf,
}

impl Setup {
    fn from_env() -> Option<Self> {
        let path = |name| std::env::var_os(name).map(PathBuf::from);
        let (Some(dir), Some(dylib)) = (path("CHARRNN_TEST_BUNDLE"), path("CHARRNN_TEST_ONNXRUNTIME")) else {
            println!("skipped: CHARRNN_TEST_BUNDLE and CHARRNN_TEST_ONNXRUNTIME are not both set");
            return None;
        };
        Some(Setup { bundle: Bundle::open(&dir).expect("a bundle"), dylib })
    }

    fn load(&self, precision: &str, spec: ModelSpec) -> Result<OrtModel, OrtError> {
        let runtime = OrtRuntime::load(&self.dylib).expect("ONNX Runtime");
        OrtModel::load(
            runtime,
            Device::Cpu,
            precision,
            &self.bundle.read(precision).expect("a sound file"),
            spec,
        )
    }

    fn model(&self, precision: &str) -> OrtModel {
        self.load(precision, self.bundle.spec.clone()).expect("a step graph")
    }
}

/// A token for stream `stream` at step `step`, without a pattern that batches share.
fn token(stream: usize, step: usize, vocab_size: usize) -> u32 {
    ((stream * 7919 + step * 104_729 + stream * step * 31) % vocab_size) as u32
}

/// Bits of the logits of each stream of `streams` at every step, run as one batch in that order.
fn run(model: &mut OrtModel, streams: &[usize]) -> Vec<Vec<u32>> {
    let vocab_size = model.spec().vocab_size;
    let mut state = StateRows::new(model.spec(), streams.len());
    streams.iter().for_each(|_| state.push_zero());
    let mut bits = vec![Vec::new(); streams.len()];
    for step in 0..STEPS {
        let tokens: Vec<u32> = streams.iter().map(|&stream| token(stream, step, vocab_size)).collect();
        let logits = model.step(&tokens, &mut state).expect("a step");
        for (bits, row) in bits.iter_mut().zip(logits.chunks_exact(vocab_size)) {
            bits.extend(row.iter().map(|logit| logit.to_bits()));
        }
    }
    bits
}

#[test]
fn a_row_is_the_same_bits_in_any_batch_at_any_place() {
    let Some(setup) = Setup::from_env() else { return };
    for precision in PRECISIONS {
        let mut model = setup.model(precision);
        let alone: Vec<_> = (0..64).map(|stream| run(&mut model, &[stream]).remove(0)).collect();
        assert_ne!(alone[0], alone[1], "streams that must differ do not");
        for batch in 1..=64 {
            // Each batch size puts the streams at other places.
            let streams: Vec<usize> = (0..batch).map(|row| (row * 37 + batch * 11) % 64).collect();
            for (row, bits) in run(&mut model, &streams).into_iter().enumerate() {
                let same = bits == alone[streams[row]];
                assert!(same, "{precision}: row {row} of {batch} is not what its stream gives alone");
            }
        }
        println!("{precision}: every row bit-identical over batches of 1 to 64");
    }
}

#[test]
fn what_was_read_before_changes_what_comes_next() {
    let Some(setup) = Setup::from_env() else { return };
    for precision in PRECISIONS {
        let mut model = setup.model(precision);
        let mut last_logits = |tokens: [u32; 2]| {
            let mut state = StateRows::new(model.spec(), 1);
            state.push_zero();
            let [.., last] = tokens.map(|token| model.step(&[token], &mut state).expect("a step").to_vec());
            last
        };
        assert_ne!(last_logits([1, 2]), last_logits([0, 2]), "{precision}");
        assert_eq!(last_logits([1, 2]), last_logits([1, 2]), "{precision}");
    }
}

#[test]
fn an_error_leaves_the_state_as_it_was() {
    let Some(setup) = Setup::from_env() else { return };
    let mut model = setup.model("fp32");
    let mut state = StateRows::new(model.spec(), 2);
    state.push_zero();
    state.push_zero();
    model.step(&[0, 1], &mut state).expect("a step");
    let before = (state.read(0), state.read(1));
    let outside = model.spec().vocab_size as u32;
    model.step(&[0, outside], &mut state).expect_err("no such token");
    let too_few = model.step(&[0], &mut state).expect_err("two rows");
    assert_eq!(too_few.to_string(), "model step failed: a step needs one token a row; got 1 tokens, 2 rows");
    model.step(&[], &mut StateRows::new(&setup.bundle.spec, 1)).expect_err("no rows");
    assert_eq!((state.read(0), state.read(1)), before);
    model.step(&[0, 1], &mut state).expect("the model still runs");
    assert_ne!(state.read(0), before.0);
}

#[test]
fn a_graph_of_other_shapes_is_refused() {
    let Some(setup) = Setup::from_env() else { return };
    let refused = |edit: fn(&mut ModelSpec)| {
        let mut spec = setup.bundle.spec.clone();
        edit(&mut spec);
        match setup.load("fp32", spec).map(drop) {
            Err(OrtError::Graph { problem, .. }) => problem,
            other => panic!("{other:?}"),
        }
    };
    let wider = refused(|spec| spec.state[0].width += 1);
    assert!(wider.starts_with("expected input h0 to be Tensor<f32>(batch, "), "{wider}");
    let renamed = refused(|spec| spec.state[0].name = "x0".to_owned());
    assert!(renamed.starts_with("expected the inputs token, x0"), "{renamed}");
    let larger = refused(|spec| spec.vocab_size += 1);
    assert!(larger.starts_with("expected output logits to be Tensor<f32>(batch, "), "{larger}");
}

#[test]
fn bytes_that_are_no_graph_and_a_second_library_are_refused() {
    let Some(setup) = Setup::from_env() else { return };
    let runtime = OrtRuntime::load(&setup.dylib).expect("ONNX Runtime");
    let error = OrtModel::load(runtime, Device::Cpu, "noise", b"noise", setup.bundle.spec.clone()).map(drop);
    let error = error.expect_err("no graph");
    assert!(matches!(&error, OrtError::Load { graph, .. } if graph == "noise"), "{error}");
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let error = OrtRuntime::load(&other).expect_err("another library");
    assert!(matches!(error, OrtError::OtherLibrary { .. }), "{error}");
}
