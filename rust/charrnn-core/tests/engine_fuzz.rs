//! Random traces of joins, cancels, slow readers and passing time: every text is what it would be alone.

mod common;

use std::sync::Arc;
use std::time::Duration;

use charrnn_core::params::SamplingParams;
use charrnn_core::request::{GenerateRequest, Output, Prompt, Stopping};
use charrnn_core::vocab::{Unit, Vocab};
use common::{bytes, config, letters, solo_ending, Reader, Rig, Transcript};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Submit(Box<GenerateRequest>, usize),
    Turn { worker: usize, count: usize },
    Read { stream: usize, count: usize },
    Cancel { stream: usize },
    Advance { ms: u64 },
}

fn sampling() -> impl Strategy<Value = SamplingParams> {
    let temperature = prop_oneof![Just(0.0), Just(1.0), Just(3.0), 0.1..2.0];
    let truncation = (prop::option::of(0u32..4), prop::option::of(0.2..1.0), prop::option::of(0.0..0.2));
    let penalties = (prop::option::of(0.5..2.0), prop::option::of(0u32..9), prop::option::of(0u32..3));
    let bias = prop::collection::btree_map(0u32..8, -2.0..2.0, 0..3);
    (temperature, 0u64..9, truncation, penalties, bias).prop_map(
        |(
            temperature,
            seed,
            (top_k, top_p, min_p),
            (repetition_penalty, penalty_window, ngram_size),
            bias,
        )| {
            SamplingParams {
                temperature: Some(temperature),
                top_k,
                top_p,
                min_p,
                repetition_penalty,
                penalty_window,
                no_repeat_ngram_size: ngram_size,
                logit_bias: bias.into_iter().collect(),
                seed: Some(seed),
                ..SamplingParams::default()
            }
        },
    )
}

/// Expressions that texts of any length match.
fn regex(unit: Unit) -> impl Strategy<Value = Option<String>> {
    let known = match unit {
        Unit::Char => vec!["[a-c]*", "(?:ab|c)*", "a*b*c*", "(?:ca|b)*a*"],
        Unit::Byte => vec!["[ab\né€]*", "(?:ab|é)*b*", "(?s:.)*"],
    };
    prop::option::weighted(0.3, prop::sample::select(known).prop_map(str::to_owned))
}

/// Short stop strings over few symbols: most texts meet one, and they overlap.
fn stopping(unit: Unit) -> impl Strategy<Value = Stopping> {
    let stop = match unit {
        Unit::Char => "[a-c]{1,4}",
        Unit::Byte => "[ab\né€]{1,2}",
    };
    let stop = prop::collection::btree_set(stop, 0..4);
    (1u32..50, 0u32..9, stop, any::<bool>(), regex(unit), any::<bool>()).prop_map(
        |(max_tokens, min_tokens, stop, include_stop, regex, utf8)| Stopping {
            max_tokens: Some(max_tokens),
            min_tokens: Some(min_tokens.min(max_tokens)),
            stop: stop.into_iter().collect(),
            include_stop,
            regex,
            utf8,
        },
    )
}

fn generate_request(unit: Unit) -> impl Strategy<Value = GenerateRequest> {
    let prompt = prop::collection::vec(0u32..8, 0..9).prop_map(Prompt::Ids);
    let output = (prop::option::of(1u32..9), prop::option::of(0u32..20));
    (prompt, sampling(), 0u32..3, stopping(unit), output).prop_map(
        |(prompt, sampling, sample_index, stopping, (chunk_chars, max_chunk_delay_ms))| GenerateRequest {
            prompt,
            sampling,
            sample_index,
            stopping,
            output: Output { chunk_chars, max_chunk_delay_ms },
        },
    )
}

fn op(unit: Unit) -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (generate_request(unit), 1usize..5).prop_map(|(request, capacity)| Op::Submit(Box::new(request), capacity)),
        6 => (0usize..2, 1usize..12).prop_map(|(worker, count)| Op::Turn { worker, count }),
        4 => (0usize..9, 1usize..9).prop_map(|(stream, count)| Op::Read { stream, count }),
        1 => (0usize..9).prop_map(|stream| Op::Cancel { stream }),
        2 => (0u64..12).prop_map(|ms| Op::Advance { ms }),
    ]
}

/// A stream's request, its reader unless cancelled, and what was read.
type Live = (GenerateRequest, Option<Reader>, Transcript);

fn apply(rig: &mut Rig, streams: &mut Vec<Live>, op: Op) {
    let num_streams = streams.len().max(1);
    match op {
        Op::Submit(request, capacity) => {
            let reader = rig.submit(&request, capacity).expect("room for every stream of a trace");
            streams.push((*request, Some(reader), Transcript::default()));
        }
        Op::Turn { worker, count } => {
            let worker = worker % rig.workers.len();
            for _ in 0..count {
                rig.workers[worker].turn();
            }
        }
        Op::Read { stream, count } => {
            if let Some((_, Some(reader), transcript)) = streams.get_mut(stream % num_streams) {
                (0..count).map_while(|_| reader.take()).for_each(|event| transcript.add(event));
            }
        }
        Op::Cancel { stream } => {
            if let Some((_, reader, _)) = streams.get_mut(stream % num_streams) {
                *reader = None;
            }
        }
        Op::Advance { ms } => rig.advance(Duration::from_millis(ms)),
    }
}

/// Reads and turns until every stream has ended.
fn run_out(rig: &mut Rig, streams: &mut [Live]) {
    for _ in 0..2_000 {
        for (_, reader, transcript) in streams.iter_mut() {
            if let Some(reader) = reader {
                transcript.read(reader);
            }
        }
        if rig.live() == (0, 0) {
            return;
        }
        rig.turn();
        rig.advance(Duration::from_millis(1));
    }
    panic!("streams that never end: {:?} live", rig.live());
}

/// Runs a trace on a model of documents if there is an `end_token`, which then is in no prompt.
fn check_trace(
    num_workers: usize,
    max_streams: usize,
    vocab: Arc<Vocab>,
    end_token: Option<u32>,
    mut ops: Vec<Op>,
) {
    let mut rig = Rig::new(num_workers, vocab, config(max_streams, 99));
    rig.end_token = end_token;
    for op in &mut ops {
        if let Op::Submit(request, _) = op {
            if let Prompt::Ids(ids) = &mut request.prompt {
                ids.retain(|&id| Some(id) != end_token);
            }
        }
    }
    let mut streams = Vec::new();
    ops.into_iter().for_each(|op| apply(&mut rig, &mut streams, op));
    run_out(&mut rig, &mut streams);
    for (request, reader, transcript) in &streams {
        let alone = solo_ending(request, &rig.vocab, end_token);
        match reader {
            Some(_) => assert_eq!(transcript.complete(), alone, "{request:?}"),
            None => assert!(
                alone.text.starts_with(&transcript.text),
                "{transcript:?} is not the start of {alone:?}"
            ),
        }
    }
}

fn trace(unit: Unit) -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(unit), 0..60)
}

/// Half of the models are of documents. The end symbol is none that an expression needs for some length.
fn end(unit: Unit) -> impl Strategy<Value = Option<u32>> {
    let symbols = match unit {
        Unit::Char => vec![3, 4, 5, 6],
        Unit::Byte => vec![0, 5, 6, 7],
    };
    prop::option::of(prop::sample::select(symbols))
}

proptest! {
    #[test]
    fn characters(
        num_workers in 1usize..3, max_streams in 1usize..6, end in end(Unit::Char), ops in trace(Unit::Char),
    ) {
        check_trace(num_workers, max_streams, letters(), end, ops);
    }

    #[test]
    fn byte_symbols(
        num_workers in 1usize..3, max_streams in 1usize..6, end in end(Unit::Byte), ops in trace(Unit::Byte),
    ) {
        check_trace(num_workers, max_streams, bytes(), end, ops);
    }
}
