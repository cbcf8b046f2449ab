//! Random requests that are valid, over few symbols: most texts meet a stop string, a match or an end.

use charrnn_core::params::SamplingParams;
use charrnn_core::request::{GenerateRequest, Output, Prompt, Stopping};
use charrnn_core::vocab::Unit;
use proptest::prelude::*;

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

/// The symbol that no model draws, the last one: a text meets it only in its prompt.
pub(crate) fn poison(unit: Unit) -> u32 {
    match unit {
        Unit::Char => 7,
        Unit::Byte => 8,
    }
}

/// Some prompts end with the poison.
pub(crate) fn generate_request(unit: Unit) -> impl Strategy<Value = GenerateRequest> {
    let last = prop::option::weighted(0.1, Just(poison(unit)));
    let prompt = (prop::collection::vec(0..poison(unit), 0..9), last)
        .prop_map(|(ids, last)| Prompt::Ids(ids.into_iter().chain(last).collect()));
    (prompt, sampling(), 0u32..3, stopping(unit), output()).prop_map(
        |(prompt, sampling, sample_index, stopping, output)| GenerateRequest {
            prompt,
            sampling,
            sample_index,
            stopping,
            output,
        },
    )
}

fn output() -> impl Strategy<Value = Output> {
    let chunks = (prop::option::of(1u32..9), prop::option::of(0u32..20));
    let told = (any::<bool>(), any::<bool>(), prop::option::of(0u32..4));
    (chunks, told, any::<bool>(), any::<bool>()).prop_map(
        |((chunk_chars, max_chunk_delay_ms), (ids, logprobs, top_logprobs), echo_prompt, snapshot)| Output {
            chunk_chars,
            max_chunk_delay_ms,
            ids,
            logprobs,
            top_logprobs,
            echo_prompt,
            snapshot,
        },
    )
}

/// Half of the models are of documents. The end symbol is none that an expression needs for some length.
pub(crate) fn end(unit: Unit) -> impl Strategy<Value = Option<u32>> {
    let symbols = match unit {
        Unit::Char => vec![3, 4, 5, 6],
        Unit::Byte => vec![0, 5, 6, 7],
    };
    prop::option::of(prop::sample::select(symbols))
}

/// No prompt holds the end symbol.
pub(crate) fn leave_out(end_token: Option<u32>, request: &mut GenerateRequest) {
    if let Prompt::Ids(ids) = &mut request.prompt {
        ids.retain(|&id| Some(id) != end_token);
    }
}
