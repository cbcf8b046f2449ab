//! What is told of the symbols of a text: which they are, how likely they were, and the prompt as a part of it.

mod common;

use std::sync::Arc;

use charrnn_core::event::{FinishReason, Symbols};
use charrnn_core::request::{GenerateRequest, Prompt};
use charrnn_core::vocab::Vocab;
use common::{bytes, config, letters, predictions, request, solo_ending, Faults, Rig, Transcript, START};

/// All that can be told.
fn telling(mut request: GenerateRequest) -> GenerateRequest {
    let output = &mut request.output;
    (output.ids, output.logprobs, output.top_logprobs) = (true, true, Some(3));
    request
}

fn echoing(mut request: GenerateRequest) -> GenerateRequest {
    request.output.echo_prompt = true;
    request
}

fn read(rig: &mut Rig, request: &GenerateRequest) -> Transcript {
    let reader = rig.submit(request, 9999).expect("room");
    while rig.turn() {}
    std::mem::take(Transcript::default().read(&reader))
}

/// The symbols of all chunks, each of which holds those of its own text.
fn symbols(transcript: &Transcript, vocab: &Vocab) -> Symbols {
    let mut all = Symbols::default();
    for (text, symbols) in &transcript.pieces {
        assert_eq!(vocab.decode(&symbols.ids), *text);
        all.ids.extend(&symbols.ids);
        all.logprobs.extend(&symbols.logprobs);
        all.top.extend(&symbols.top);
    }
    all
}

/// Each symbol as likely as the row before it says, and the best three of that row.
fn assert_are_predicted(symbols: &Symbols, rows: &[Vec<f64>]) {
    let lens = (symbols.ids.len(), symbols.logprobs.len(), symbols.tops().count());
    assert_eq!(lens, (rows.len(), rows.len(), rows.len()));
    let is_near = |told: f32, exact: f64| (f64::from(told) - exact).abs() < 1e-6 * exact.abs().max(1.0);
    for (((&id, &logprob), top), row) in
        symbols.ids.iter().zip(&symbols.logprobs).zip(symbols.tops()).zip(rows)
    {
        assert!(is_near(logprob, row[id as usize]), "{logprob} {}", row[id as usize]);
        let mut best: Vec<u32> = (0..row.len() as u32).collect();
        best.sort_by(|&a, &b| row[b as usize].total_cmp(&row[a as usize]));
        assert!(top.iter().map(|&(id, _)| id).eq(best[..3].iter().copied()), "{top:?} {row:?}");
        assert!(top.iter().all(|&(id, logprob)| is_near(logprob, row[id as usize])));
    }
}

/// What follows each symbol but the last, and what follows the prompt before them.
fn rows_of(prompt: &[u32], text: &[u32], vocab: &Vocab) -> Vec<Vec<f64>> {
    let read: Vec<u32> = prompt.iter().chain(text).copied().collect();
    predictions(&read, vocab)[prompt.len() - 1..read.len() - 1].to_vec()
}

#[test]
fn symbols_travel_with_their_characters_whatever_holds_them_back() {
    for (vocab, prompt, stops) in
        [(letters(), "abc", ["abdabd", "fg", "ec"]), (bytes(), "é€", ["€é", "ab\n", "éa"])]
    {
        let mut rig = Rig::new(1, vocab, config(2, 99));
        let mut reasons = Vec::new();
        for seed in 0..60 {
            let mut asked = telling(request(prompt, seed, 40));
            asked.output.chunk_chars = Some(1 + seed as u32 % 5);
            asked.sampling.temperature = Some([0.7, 1.0, 3.0][seed as usize % 3]);
            asked.stopping.stop = stops.map(str::to_owned).to_vec();
            asked.stopping.include_stop = seed % 2 == 0;
            let got = read(&mut rig, &asked);
            assert_eq!(got.complete(), solo_ending(&asked, &rig.vocab, None));
            reasons.push(got.complete().reason);
            let symbols = symbols(&got, &rig.vocab);
            let prompt = rig.vocab.encode(prompt).expect("known");
            assert_are_predicted(&symbols, &rows_of(&prompt, &symbols.ids, &rig.vocab));
        }
        assert!([FinishReason::Stop, FinishReason::Length].iter().all(|reason| reasons.contains(reason)));
    }
}

#[test]
fn the_end_symbol_is_not_told() {
    let mut rig = Rig::new(1, letters(), config(2, 99));
    rig.end_token = Some(2);
    let mut num_ended = 0;
    for seed in 0..20 {
        let got = read(&mut rig, &telling(request("ab", seed, 40)));
        num_ended += u32::from(got.complete().reason == FinishReason::End);
        let symbols = symbols(&got, &rig.vocab);
        assert!(!symbols.ids.contains(&2));
        assert_are_predicted(&symbols, &rows_of(&[2, 0, 1], &symbols.ids, &rig.vocab));
    }
    assert!(num_ended > 5);
}

#[test]
fn each_of_them_is_told_only_if_asked_for() {
    let mut rig = Rig::new(1, letters(), config(2, 99));
    for (ids, logprobs, top_logprobs, expected) in [
        (false, false, None, None),
        (false, false, Some(0), None),
        (true, false, None, Some((9, 0, 0))),
        (false, true, None, Some((9, 9, 0))),
        (false, false, Some(2), Some((9, 9, 18))),
        // There are no more than eight.
        (true, true, Some(20), Some((9, 9, 72))),
    ] {
        let mut asked = request("a", 1, 9);
        let output = &mut asked.output;
        (output.ids, output.logprobs, output.top_logprobs) = (ids, logprobs, top_logprobs);
        let got = read(&mut rig, &asked);
        assert_eq!(got.pieces.is_empty(), expected.is_none());
        let all = symbols(&got, &rig.vocab);
        let lens = (all.ids.len(), all.logprobs.len(), all.top.len());
        assert_eq!(lens, expected.unwrap_or_default());
    }
}

fn check_echo(vocab: Arc<Vocab>, end_token: Option<u32>, prompt: &str) {
    let mut rig = Rig::new(1, vocab, config(3, 99));
    rig.end_token = end_token;
    let ids = rig.vocab.encode(prompt).expect("known");
    // Neighbours come and go.
    let _others = [17, 31].map(|len| rig.submit(&request("ba", 9, len), 9999).expect("room"));
    for seed in 0..20 {
        let mut asked = telling(echoing(request(prompt, seed, 30)));
        asked.output.chunk_chars = Some(1 + seed as u32 % 4);
        let got = read(&mut rig, &asked);
        let alone = solo_ending(&asked, &rig.vocab, end_token);
        assert_eq!(got.text, format!("{prompt}{}", alone.text));
        // A byte may complete two characters: one that is no UTF-8, and itself.
        assert!(got.chunk_chars.iter().all(|&num| u64::from(num) <= 2 + seed % 4));
        let symbols = symbols(&got, &rig.vocab);
        let before = [end_token.unwrap_or(START)];
        let rows = match end_token {
            Some(_) => rows_of(&before, &symbols.ids, &rig.vocab),
            // The start symbol is read for the first symbol alone, and forgotten.
            None => [
                rows_of(&before, &symbols.ids[..1], &rig.vocab),
                rows_of(&ids[..1], &symbols.ids[1..], &rig.vocab),
            ]
            .concat(),
        };
        assert_are_predicted(&symbols, &rows);
    }
}

#[test]
fn an_echoed_prompt_is_told_of_like_the_text_which_it_does_not_change() {
    check_echo(letters(), None, "abcdefgabc");
    check_echo(letters(), Some(2), "abdabd");
    check_echo(bytes(), None, "aé€\n€b");
    check_echo(letters(), None, "a");
}

#[test]
fn an_echo_means_nothing_to_stop_strings_and_an_empty_one_is_nothing() {
    let mut rig = Rig::new(1, letters(), config(1, 99));
    let mut asked = echoing(request("abcabc", 3, 30));
    let plain = read(&mut rig, &asked).text;
    // The last two letters of the prompt and the first of the text, and what stands in the prompt.
    asked.stopping.stop = vec![plain[4..7].to_owned(), "cab".to_owned()];
    asked.stopping.max_tokens = Some(2);
    assert_eq!(read(&mut rig, &asked).text, plain[..8]);
    let asked = request("", 3, 30);
    assert_eq!(read(&mut rig, &echoing(asked.clone())).text, read(&mut rig, &asked).text);
}

#[test]
fn what_a_prompt_leaves_unfinished_does_not_join_the_text() {
    let mut rig = Rig::new(1, bytes(), config(1, 99));
    let euro = rig.vocab.encode("€").expect("known");
    for seed in 0..40 {
        let mut asked = request("", seed, 12);
        asked.prompt = Prompt::Ids(euro[..2].to_vec());
        let plain = read(&mut rig, &asked).text;
        assert_eq!(read(&mut rig, &echoing(asked)).text, format!("\u{fffd}{plain}"));
    }
}

#[test]
fn the_first_character_drawn_goes_at_once_with_what_is_left_of_the_echo() {
    let mut rig = Rig::new(1, letters(), config(1, 99));
    let mut asked = echoing(request("abcdef", 1, 40));
    asked.output.chunk_chars = Some(4);
    let got = read(&mut rig, &asked);
    assert_eq!(got.chunk_chars[..4], [4, 3, 4, 4]);
}

#[test]
fn an_echo_of_what_the_model_cannot_predict_fails() {
    let faults = Faults { nan: Some(7), ..Faults::default() };
    let mut rig = Rig::with_faults(1, letters(), config(1, 99), faults);
    let asked = echoing(request("abhc", 1, 40));
    let plain = read(&mut rig, &asked);
    assert_eq!((plain.text.len(), plain.failed), (44, None));
    let told = read(&mut rig, &telling(asked));
    assert_eq!(told.text, "abh");
    assert!(told.failed.expect("NaN").to_string().contains("are not numbers"));
}
