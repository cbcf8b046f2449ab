//! Only what can be run becomes a `ValidRequest`; every refusal says field, value, limit and what to do.

use std::time::Duration;

use charrnn_core::limits;
use charrnn_core::params::SamplingParams;
use charrnn_core::request::{GenerateRequest, Output, Prompt, Stopping, ValidRequest};
use charrnn_core::stop::START;
use charrnn_core::vocab::{Unit, Vocab};
use proptest::prelude::*;

const NEWLINE: u32 = 0;

fn vocab() -> Vocab {
    Vocab::new(Unit::Char, "\nabc".chars().map(u32::from).collect()).expect("distinct")
}

fn request(prompt: &str) -> GenerateRequest {
    GenerateRequest {
        prompt: Prompt::Text(prompt.to_owned()),
        sampling: SamplingParams::default(),
        sample_index: 0,
        stopping: Stopping::default(),
        output: Output::default(),
    }
}

fn validate(request: GenerateRequest) -> Result<ValidRequest, String> {
    request.validate(&vocab(), NEWLINE, None).map_err(|error| error.to_string())
}

fn refusal(change: impl FnOnce(&mut GenerateRequest)) -> String {
    let mut request = request("abc");
    change(&mut request);
    validate(request).expect_err("refused")
}

#[test]
fn defaults_are_resolved() {
    let valid = validate(request("abc")).expect("valid");
    assert_eq!((valid.prompt_tokens(), valid.num_prompt_tokens()), (&[1, 2, 3][..], 3));
    let sampling = valid.sampling();
    assert_eq!(
        (sampling.temperature(), sampling.top_k(), sampling.top_p(), sampling.min_p()),
        (1.0, 0, 1.0, 0.0)
    );
    assert_eq!((valid.max_tokens(), valid.chunk_chars(), valid.max_chunk_delay()), (256, 256, None));
    assert!(valid.stop().is_empty() && !valid.include_stop());
}

#[test]
fn an_empty_prompt_is_the_start_token() {
    for prompt in [Prompt::Text(String::new()), Prompt::Ids(vec![])] {
        let valid = validate(GenerateRequest { prompt, ..request("") }).expect("valid");
        assert_eq!((valid.prompt_tokens(), valid.num_prompt_tokens()), (&[NEWLINE][..], 0));
    }
}

#[test]
fn a_document_begins_after_the_end_of_another() {
    for (prompt, fed) in [("", &[NEWLINE][..]), ("abc", &[NEWLINE, 1, 2, 3])] {
        let valid = request(prompt).validate(&vocab(), NEWLINE, Some(NEWLINE)).expect("valid");
        assert_eq!((valid.prompt_tokens(), valid.num_prompt_tokens() as usize), (fed, prompt.len()));
        assert_eq!(valid.end_token(), Some(NEWLINE));
    }
    let error = request("ab\nc").validate(&vocab(), NEWLINE, Some(NEWLINE)).expect_err("refused").to_string();
    let expected =
        "prompt: character '\\n' (U+000A) at position 2 ends a document of this model, so no prompt";
    assert!(error.starts_with(expected) && error.ends_with("leave it out"), "{error}");
    // No text holds it, so nothing but the end of the text matches it.
    let mut matching = request("a");
    matching.stopping.regex = Some("\n".to_owned());
    let error = matching.validate(&vocab(), NEWLINE, Some(NEWLINE)).expect_err("refused").to_string();
    assert!(error.starts_with("regex: no text of 0 to 256"), "{error}");
}

#[test]
fn a_seed_is_kept_or_drawn() {
    let mut given = request("a");
    given.sampling.seed = Some(0);
    assert_eq!(validate(given).expect("valid").sampling().seed(), 0);
    let drawn = || validate(request("a")).expect("valid").sampling().seed();
    assert_ne!(drawn(), drawn(), "two drawn seeds agree once in 2^64");
}

#[test]
fn stop_strings_become_an_automaton() {
    let mut stopping = request("a");
    stopping.stopping = Stopping {
        stop: vec!["b\n".to_owned()],
        include_stop: true,
        max_tokens: Some(5),
        ..Stopping::default()
    };
    stopping.output = Output { chunk_chars: Some(1), max_chunk_delay_ms: Some(0), ..Output::default() };
    let valid = validate(stopping).expect("valid");
    let step = valid.stop().advance(START, 2);
    assert_eq!((step.matched, valid.stop().held(step.state)), (None, 1));
    assert_eq!(valid.stop().advance(step.state, NEWLINE).matched, Some(0));
    assert_eq!((valid.max_tokens(), valid.include_stop(), valid.chunk_chars()), (5, true, 1));
    assert_eq!(valid.max_chunk_delay(), Some(Duration::ZERO));
}

#[test]
fn each_refusal_says_what_and_where() {
    type Change = fn(&mut GenerateRequest);
    let cases: [(Change, &str); 15] = [
        (|r| r.prompt = Prompt::Text("ab!".into()), "prompt: character '!' (U+0021) at position 2 is not in"),
        (|r| r.prompt = Prompt::Text("a".repeat(65_537)), "prompt is 65537; it must be 0 to 65536"),
        (
            |r| r.prompt = Prompt::Ids(vec![0, 4]),
            "prompt_ids: id 4 at position 1 is not below the vocabulary's size 4",
        ),
        (|r| r.prompt = Prompt::Ids(vec![0; 65_537]), "prompt is 65537; it must be 0 to 65536"),
        (|r| r.sampling.temperature = Some(-0.1), "temperature is -0.1; it must be at least 0"),
        (|r| r.sampling.temperature = Some(f64::NAN), "temperature is NaN"),
        (|r| r.sampling.top_p = Some(1.01), "top_p is 1.01; it must be 0 to 1"),
        (|r| r.sampling.min_p = Some(-1.0), "min_p is -1; it must be 0 to 1"),
        (|r| r.stopping.max_tokens = Some(0), "max_tokens is 0; it must be 1 to 1000000"),
        (
            |r| r.stopping.stop = vec!["a".into(), "bx".into()],
            "stop string 1: character 'x' (U+0078) at position 1",
        ),
        (|r| r.stopping.stop = vec![String::new()], "length of a stop string is 0; it must be 1 to 256"),
        (|r| r.stopping.stop = vec!["a".into(); 65], "number of stop strings is 65; it must be 0 to 64"),
        (|r| r.output.chunk_chars = Some(0), "chunk_chars is 0; it must be 1 to 4096"),
        (|r| r.output.top_logprobs = Some(21), "top_logprobs is 21; it must be 0 to 20"),
        (
            |r| r.output.max_chunk_delay_ms = Some(60_001),
            "max_chunk_delay_ms is 60001; it must be 0 to 60000",
        ),
    ];
    for (change, expected) in cases {
        let error = refusal(change);
        assert!(error.starts_with(expected) && !error.contains('\n'), "{error}\nexpected {expected}");
    }
}

#[test]
fn a_stop_string_of_a_byte_vocabulary_is_measured_in_bytes() {
    let bytes = Vocab::new(Unit::Byte, (0..256).collect()).expect("bytes");
    let mut request = request("");
    request.stopping.stop = vec!["é".repeat(129)];
    let error = request.validate(&bytes, 10, None).expect_err("258 bytes");
    assert!(error.to_string().starts_with("length of a stop string is 258"), "{error}");
}

proptest! {
    /// Whatever floats and numbers come from the wire: refused with one line, or valid within the limits.
    #[test]
    fn no_number_slips_through(
        temperature: Option<f64>, top_k: Option<u32>, top_p: Option<f64>, min_p: Option<f64>,
        max_tokens: Option<u32>, chunk_chars: Option<u32>, max_chunk_delay_ms: Option<u32>, seed: Option<u64>,
    ) {
        let mut request = request("a");
        request.sampling =
            SamplingParams { temperature, top_k, top_p, min_p, seed, ..SamplingParams::default() };
        request.stopping.max_tokens = max_tokens;
        request.output = Output { chunk_chars, max_chunk_delay_ms, ..Output::default() };
        match validate(request) {
            Err(error) => prop_assert!(error.contains(" is ") && error.contains("it must be")),
            Ok(valid) => {
                prop_assert!(valid.sampling().temperature() >= 0.0);
                prop_assert!((0.0..=1.0).contains(&valid.sampling().top_p()));
                prop_assert!((0.0..=1.0).contains(&valid.sampling().min_p()));
                prop_assert!((1..=1_000_000).contains(&valid.max_tokens()));
                prop_assert!((1..=4096).contains(&valid.chunk_chars()));
            }
        }
    }

    /// The others: what is taken is within the table of limits, and no number that is none is.
    #[test]
    fn no_penalty_slips_through(
        typical_p: Option<f64>, repetition_penalty: Option<f64>, frequency_penalty: Option<f64>,
        presence_penalty: Option<f64>, penalty_window: Option<u32>, no_repeat_ngram_size: Option<u32>,
        bias in prop::option::of((0u32..9, prop::num::f64::ANY)), min_tokens: Option<u32>,
        top_logprobs: Option<u32>, sample_index: u32,
    ) {
        let mut request = request("a");
        request.sampling = SamplingParams {
            typical_p, repetition_penalty, frequency_penalty, presence_penalty, penalty_window,
            no_repeat_ngram_size, logit_bias: bias.into_iter().collect(), ..SamplingParams::default()
        };
        request.sample_index = sample_index;
        request.stopping.min_tokens = min_tokens;
        request.output.top_logprobs = top_logprobs;
        let given = [
            (limits::TYPICAL_P, typical_p), (limits::REPETITION_PENALTY, repetition_penalty),
            (limits::FREQUENCY_PENALTY, frequency_penalty), (limits::PRESENCE_PENALTY, presence_penalty),
            (limits::PENALTY_WINDOW, penalty_window.map(f64::from)),
            (limits::NO_REPEAT_NGRAM_SIZE, no_repeat_ngram_size.map(f64::from)),
            (limits::LOGIT_BIAS, bias.map(|(_, value)| value)), (limits::MIN_TOKENS, min_tokens.map(f64::from)),
            (limits::TOP_LOGPROBS, top_logprobs.map(f64::from)),
        ];
        let is_within = given.iter().all(|(limit, value)| value.is_none_or(|value| limit.check(value).is_ok()));
        match validate(request) {
            Err(error) => prop_assert!(!error.is_empty() && !error.contains('\n')),
            Ok(_) => prop_assert!(is_within, "{given:?}"),
        }
    }
}
