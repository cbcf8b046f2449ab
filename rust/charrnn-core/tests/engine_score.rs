//! Texts that are read and not drawn: how likely they are, among streams that draw.

mod common;

use std::time::Duration;

use charrnn_core::engine::SubmitError;
use charrnn_core::event::{FinishReason, Scored, StreamError};
use charrnn_core::request::{Prompt, ScoreRequest};
use charrnn_core::vocab::Vocab;
use common::{bytes, config, letters, predictions, request, solo, Faults, Rig, Transcript, START};

fn score(prompt: &str, text: &str) -> ScoreRequest {
    let text = Prompt::Text(text.to_owned());
    ScoreRequest { prompt: prompt.to_owned(), text, per_symbol: false, top_logprobs: None }
}

fn told(request: ScoreRequest) -> ScoreRequest {
    ScoreRequest { per_symbol: true, top_logprobs: Some(2), ..request }
}

fn read(rig: &mut Rig, request: &ScoreRequest) -> Scored {
    let reader = rig.score_until(None, request).expect("room");
    while rig.turn() {}
    Transcript::default().read(&reader).scored.clone().expect("a score")
}

/// Of `text` after `read`, the slow way.
fn nats(read: &[u32], text: &[u32], vocab: &Vocab) -> f64 {
    let all: Vec<u32> = read.iter().chain(text).copied().collect();
    let rows = predictions(&all, vocab);
    (read.len()..all.len()).map(|i| -rows[i - 1][all[i] as usize]).sum()
}

fn assert_is(scored: &Scored, num_symbols: usize, nats: f64) {
    assert_eq!(scored.num_symbols as usize, num_symbols);
    assert!((scored.nats - nats).abs() < 1e-9 * nats, "{} {nats}", scored.nats);
}

#[test]
fn a_score_is_the_sum_over_the_text_after_what_was_read() {
    let long = "abcdefg".repeat(40) + "gfedcba";
    for (vocab, texts) in [(letters(), ["a", "gabba", &long]), (bytes(), ["é", "a€\nb€", "ab"])] {
        let mut rig = Rig::new(1, vocab, config(4, 9));
        for text in texts {
            let ids = rig.vocab.encode(text).expect("known");
            let scored = read(&mut rig, &score("", text));
            assert_is(&scored, ids.len(), nats(&[START], &ids, &rig.vocab));
            assert_eq!(scored.symbols, None);
            let prompt = rig.vocab.encode("ab").expect("known");
            let scored = read(&mut rig, &score("ab", text));
            assert_is(&scored, ids.len(), nats(&prompt, &ids, &rig.vocab));
            let by_ids = ScoreRequest { text: Prompt::Ids(ids), ..score("ab", text) };
            assert_eq!(read(&mut rig, &by_ids), scored);
        }
    }
}

#[test]
fn each_symbol_is_told_and_they_sum_up() {
    let mut rig = Rig::new(1, letters(), config(4, 9));
    let text = "gabbadabba";
    let scored = read(&mut rig, &told(score("c", text)));
    let symbols = scored.symbols.expect("asked for");
    assert_eq!(rig.vocab.decode(&symbols.ids), text);
    let sum: f64 = symbols.logprobs.iter().map(|&logprob| f64::from(logprob)).sum();
    assert!((sum + scored.nats).abs() < 1e-5, "{sum} {}", scored.nats);
    let all = rig.vocab.encode(&format!("c{text}")).expect("known");
    let rows = predictions(&all, &rig.vocab);
    assert_eq!(symbols.tops().count(), text.len());
    for (top, row) in symbols.tops().zip(rows) {
        let best = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        assert!((f64::from(top[0].1) - best).abs() < 1e-5 && top[0].1 >= top[1].1, "{top:?} {row:?}");
    }
}

#[test]
fn what_the_model_rules_out_is_infinitely_unlikely() {
    let mut rig = Rig::new(1, letters(), config(1, 0));
    assert_eq!(read(&mut rig, &score("", "abh")).nats, f64::INFINITY);
}

#[test]
fn documents_are_scored_one_by_one() {
    const END: u32 = 2;
    let mut rig = Rig::new(1, letters(), config(2, 9));
    rig.end_token = Some(END);
    let ids = |text: &str| letters().encode(text).expect("known");
    // `c` ends a document: what follows it begins from the zero state.
    let scored = read(&mut rig, &told(score("ab", "dacggc")));
    let first = nats(&[&[END], ids("ab").as_slice()].concat(), &ids("dac"), &rig.vocab);
    assert_is(&scored, 6, first + nats(&[END], &ids("ggc"), &rig.vocab));
    let unread =
        score("abc", "d").validate(&rig.vocab, END, rig.end_token).expect_err("an end in the prompt");
    assert!(unread.to_string().starts_with("prompt: character 'c'"), "{unread}");
}

#[test]
fn scores_and_texts_share_a_batch_and_do_not_know_of_each_other() {
    let mut rig = Rig::new(1, letters(), config(3, 99));
    let wanted: Vec<_> = (0..6).map(|seed| request("ab", seed, 30)).collect();
    let texts = ["gabbadabba", "ab", "feedbag", "cabbage", "deadbeef".trim_end_matches('f'), "face"];
    let alone: Vec<_> = texts.map(|text| read(&mut rig, &told(score("", text)))).into();
    let streams: Vec<_> = wanted
        .iter()
        .zip(texts)
        .map(|(request, text)| {
            let score = rig.score_until(None, &told(score("", text))).expect("room");
            (rig.submit(request, 99).expect("room"), score)
        })
        .collect();
    while rig.turn() {}
    for (((text, score), request), alone) in streams.iter().zip(&wanted).zip(alone) {
        assert_eq!(Transcript::default().read(text).complete(), solo(request, &rig.vocab));
        assert_eq!(Transcript::default().read(score).scored, Some(alone));
    }
    let names: Vec<_> = charrnn_core::meter::Outcome::ALL.into_iter().map(|it| it.name()).collect();
    let ended = rig.engine.stats().ended;
    assert_eq!(names.iter().zip(ended).find(|(&name, _)| name == "scored").map(|(_, n)| n), Some(12));
}

#[test]
fn a_deadline_ends_a_score_without_one_and_a_reader_that_goes_frees_the_slot() {
    let mut rig = Rig::new(1, letters(), config(1, 1));
    let text = "ab".repeat(100);
    let late = rig.score_until(Some(Duration::from_millis(5)), &score("", &text)).expect("room");
    let waiting = rig.score_until(None, &score("", "ab")).expect("room");
    assert!(matches!(
        rig.score_until(None, &score("", "ab")).map(drop),
        Err(SubmitError::QueueFull { max_queue: 1 })
    ));
    rig.turns(3);
    rig.advance(Duration::from_millis(5));
    rig.turns(9);
    let mut late = std::mem::take(Transcript::default().read(&late));
    assert_eq!((late.finished.take().map(|it| it.reason), late.scored), (Some(FinishReason::Deadline), None));
    assert!(Transcript::default().read(&waiting).scored.is_some());
    let dropped = rig.score_until(None, &score("", &text)).expect("room");
    rig.turns(3);
    assert_eq!(rig.live(), (0, 1));
    drop(dropped);
    rig.turn();
    assert_eq!(rig.live(), (0, 0));
}

#[test]
fn logits_that_are_no_numbers_and_a_stop_end_a_score() {
    let faults = Faults { nan: Some(7), ..Faults::default() };
    let mut rig = Rig::with_faults(1, letters(), config(2, 9), faults);
    let poisoned = rig.score_until(None, &score("", "abha")).expect("room");
    while rig.turn() {}
    let failed = Transcript::default().read(&poisoned).failed.clone().expect("NaN").to_string();
    assert!(failed.contains("are not numbers"), "{failed}");
    let stopped = rig.score_until(None, &score("", "abababab")).expect("room");
    rig.turns(2);
    rig.engine.abort();
    rig.turn();
    assert_eq!(Transcript::default().read(&stopped).failed, Some(StreamError::Stopping));
}

#[test]
fn each_refusal_of_a_score_says_what_and_where() {
    let refusal =
        |request: ScoreRequest| request.validate(&letters(), START, None).expect_err("refused").to_string();
    let of_ids = |ids| ScoreRequest { text: Prompt::Ids(ids), ..score("", "") };
    let cases = [
        (score("", ""), "text is 0; it must be 1 to 65536"),
        (of_ids(vec![]), "text is 0; it must be 1 to 65536"),
        (score("", &"a".repeat(65_537)), "text is 65537; it must be 1 to 65536"),
        (score(&"a".repeat(65_537), "a"), "prompt is 65537; it must be 0 to 65536"),
        (score("", "abx"), "text: character 'x' (U+0078) at position 2 is not in"),
        (score("x", "ab"), "prompt: character 'x' (U+0078) at position 0 is not in"),
        (of_ids(vec![0, 8]), "ids: id 8 at position 1 is not below the vocabulary's size 8"),
        (ScoreRequest { top_logprobs: Some(21), ..score("", "a") }, "top_logprobs is 21; it must be 0 to 20"),
    ];
    for (request, expected) in cases {
        let error = refusal(request);
        assert!(error.starts_with(expected) && !error.contains('\n'), "{error}\nexpected {expected}");
    }
}
