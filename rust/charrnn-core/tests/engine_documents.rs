//! Models of documents: the end symbol begins every text, ends it, and is no part of it.

mod common;

use charrnn_core::event::FinishReason;
use charrnn_core::params::SamplingParams;
use charrnn_core::request::{GenerateRequest, Prompt};
use common::{bytes, config, letters, request, solo_ending, Rig, Solo, Transcript};

/// `c` of `letters()`, `b` of `bytes()`.
const END: u32 = 2;

/// The texts of some requests, which are as the slow way makes them.
fn texts(rig: &mut Rig, requests: &[GenerateRequest]) -> Vec<Transcript> {
    rig.end_token = Some(END);
    let readers: Vec<_> = requests.iter().map(|it| rig.submit(it, 999).expect("room")).collect();
    while rig.turn() {}
    let read = |reader| std::mem::take(Transcript::default().read(reader));
    let texts: Vec<Transcript> = readers.iter().map(read).collect();
    for (request, text) in requests.iter().zip(&texts).filter(|(_, text)| text.failed.is_none()) {
        assert_eq!(text.complete(), solo_ending(request, &rig.vocab, Some(END)), "{request:?}");
    }
    texts
}

fn over_letters(requests: &[GenerateRequest]) -> Vec<Transcript> {
    texts(&mut Rig::new(1, letters(), config(9, 99)), requests)
}

fn ends(texts: &[Transcript]) -> Vec<Solo> {
    texts.iter().map(Transcript::complete).collect()
}

#[test]
fn the_end_symbol_ends_a_text_and_is_no_part_of_it() {
    let requests: Vec<_> = (0..40).map(|seed| request("ab", seed, 60)).collect();
    let texts = over_letters(&requests);
    let (ended, rest): (Vec<_>, Vec<_>) =
        texts.iter().partition(|text| text.complete().reason == FinishReason::End);
    // A sixth of all draws or so end a text.
    assert!(ended.len() > 30, "{} of 40", ended.len());
    for text in &ended {
        assert!(!text.text.contains('c') && text.text.len() < 60, "{text:?}");
        let finished = text.finished.as_ref().expect("complete");
        // The end symbol, the prompt, and the text, of which the last was read too.
        assert_eq!(finished.timing.num_steps, 1 + 2 + text.text.len() as u64);
        assert_eq!(text.started.as_ref().expect("first").num_prompt_tokens, 2);
    }
    assert!(rest.iter().all(|text| text.text.len() == 60 && !text.text.contains('c')));
}

#[test]
fn an_empty_prompt_is_the_beginning_of_a_document() {
    let mut rig = Rig::new(1, letters(), config(9, 99));
    let written = texts(&mut rig, &[request("", 5, 30)]);
    rig.end_token = None;
    // Without documents the same symbol is a prompt.
    let plain = request("c", 5, 30);
    let reader = rig.submit(&plain, 999).expect("room");
    while rig.turn() {}
    let plain = std::mem::take(Transcript::default().read(&reader)).text;
    assert_eq!(written[0].text, plain.split('c').next().expect("the part before"));
}

#[test]
fn no_end_comes_before_min_tokens() {
    let mut requests: Vec<_> = (0..40).map(|seed| request("a", seed, 30)).collect();
    requests.iter_mut().for_each(|it| it.stopping.min_tokens = Some(25));
    let texts = ends(&over_letters(&requests));
    assert!(texts.iter().all(|text| text.text.len() >= 25 && !text.text.contains('c')));
    assert!(texts.iter().any(|text| text.reason == FinishReason::End));
    assert!(texts.iter().any(|text| text.reason == FinishReason::Length));
}

#[test]
fn where_only_the_end_may_be_drawn_min_tokens_leaves_nothing() {
    let only_end = SamplingParams { allowed: Some(vec![END]), seed: Some(1), ..SamplingParams::default() };
    let mut asked = GenerateRequest { sampling: only_end, ..request("a", 1, 9) };
    assert_eq!(
        ends(&over_letters(std::slice::from_ref(&asked))),
        [Solo { text: String::new(), reason: FinishReason::End, matched_stop: None }]
    );
    asked.stopping.min_tokens = Some(1);
    let failed = over_letters(&[asked]).remove(0).failed.expect("nothing to draw").to_string();
    assert!(failed.contains("rule out every symbol"), "{failed}");
}

#[test]
fn a_banned_end_never_comes() {
    let mut asked = request("a", 1, 200);
    asked.sampling.logit_bias = vec![(END, f64::NEG_INFINITY)];
    let text = ends(&over_letters(&[asked])).remove(0);
    assert_eq!((text.text.len(), text.reason), (200, FinishReason::Length));
}

#[test]
fn the_end_symbol_is_not_in_the_alphabet_of_an_expression() {
    let matching = |regex: &str, seed| {
        let mut asked = request("a", seed, 40);
        asked.stopping.regex = Some(regex.to_owned());
        asked
    };
    // Everything but the end symbol continues a match of the first, so only it can end the text.
    let any: Vec<_> = (0..20).map(|seed| matching(".*", seed)).collect();
    let texts = ends(&over_letters(&any));
    assert!(texts.iter().all(|text| !text.text.contains('c')));
    assert!(texts.iter().filter(|text| text.reason == FinishReason::Match).count() > 10);
    let exact: Vec<_> = (0..20).map(|seed| matching("[a-f]{7}", seed)).collect();
    for text in ends(&over_letters(&exact)) {
        assert_eq!((text.text.len(), text.reason), (7, FinishReason::Match));
        assert!(!text.text.contains('c'));
    }
}

#[test]
fn a_stop_string_still_stops_and_what_it_withheld_comes_with_the_end() {
    let mut requests: Vec<_> = (0..60).map(|seed| request("a", seed, 60)).collect();
    for (index, asked) in requests.iter_mut().enumerate() {
        // The second can never appear; the first and third hold back most letters.
        asked.stopping.stop = ["fg", "ec", "abdabd"].map(str::to_owned).to_vec();
        asked.stopping.include_stop = index % 2 == 0;
    }
    let texts = ends(&over_letters(&requests));
    for reason in [FinishReason::End, FinishReason::Stop] {
        assert!(texts.iter().any(|text| text.reason == reason), "{reason:?}");
    }
    assert!(texts.iter().all(|text| text.matched_stop.as_deref() != Some("ec")));
}

#[test]
fn a_byte_text_that_stays_utf8_ends_between_characters() {
    let ask = |seed| {
        let mut asked = request("", seed, 60);
        asked.prompt = Prompt::Text("é".to_owned());
        asked.stopping.utf8 = true;
        asked.stopping.min_tokens = Some(3);
        asked
    };
    // `bytes()` has the line end, `a`, `b` and the bytes of two longer characters.
    let mut rig = Rig::new(2, bytes(), config(9, 99));
    let requests: Vec<_> = (0..40).map(ask).collect();
    let texts = ends(&texts(&mut rig, &requests));
    assert!(texts.iter().filter(|text| text.reason == FinishReason::End).count() > 20);
    assert!(texts.iter().all(|text| !text.text.contains([char::REPLACEMENT_CHARACTER, 'b'])));
}
