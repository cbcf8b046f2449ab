//! A text that is cut, anywhere and as often as one likes, goes on in another engine as if it never had been.

mod common;

use std::sync::Arc;
use std::time::Duration;

use charrnn_core::event::{FinishReason, StreamError};
use charrnn_core::request::{GenerateRequest, Output, Prompt};
use charrnn_core::snapshot::Snapshot;
use charrnn_core::vocab::{Unit, Vocab};
use common::requests::{end, generate_request, leave_out};
use common::{bytes, config, letters, request, sent, solo_ending, Rig, Solo, Transcript, START};
use proptest::prelude::*;
use serde_json::Value;

const MS: Duration = Duration::from_millis(1);

/// What ends a part of a text.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// That many symbols more than the text has.
    Length(u32),
    /// The deadline, after so many turns.
    Deadline(u64),
    /// The engine's end, after so many turns.
    Drain(usize),
}

fn cut() -> impl Strategy<Value = Cut> {
    prop_oneof![
        (1u32..12).prop_map(Cut::Length),
        (0u64..20).prop_map(Cut::Deadline),
        (0usize..20).prop_map(Cut::Drain),
    ]
}

/// Another length changes what an expression allows near the end, so it is no cut of the same text.
fn applicable(cut: Cut, request: &GenerateRequest, num_tokens: u32) -> Cut {
    let stopping = &request.stopping;
    let (min, max) = (stopping.min_tokens.unwrap_or(0), stopping.max_tokens.expect("given"));
    match cut {
        Cut::Length(more) => match num_tokens + more {
            length
                if stopping.regex.is_none()
                    && !stopping.utf8
                    && length < max
                    && length >= min.max(num_tokens + 1) =>
            {
                Cut::Length(length)
            }
            _ => Cut::Deadline(u64::from(more)),
        },
        cut => cut,
    }
}

/// Runs a request in an engine of its own, until the cut or its end; `text` is what there was before.
fn part(
    request: &GenerateRequest,
    vocab: &Arc<Vocab>,
    end: Option<u32>,
    cut: Option<Cut>,
    text: String,
) -> Transcript {
    let mut rig = Rig::new(1, vocab.clone(), config(1, 0));
    rig.end_token = end;
    let mut request = request.clone();
    if let Some(Cut::Length(length)) = cut {
        request.stopping.max_tokens = Some(length);
    }
    let time = match cut {
        Some(Cut::Deadline(turns)) => Some(MS * turns as u32),
        _ => None,
    };
    let reader = rig.submit_until(time, &request, 99).expect("room");
    let mut transcript = Transcript::after(text);
    let num_turns = match cut {
        Some(Cut::Drain(turns)) => turns,
        _ => 200,
    };
    for _ in 0..num_turns {
        rig.turn();
        transcript.read(&reader);
        rig.advance(MS);
    }
    drop(rig.engine);
    rig.workers[0].turn();
    std::mem::take(transcript.read(&reader))
}

/// The text of a request that is cut again and again, and how many cuts there were.
fn in_parts(request: &GenerateRequest, vocab: &Arc<Vocab>, end: Option<u32>, cuts: &[Cut]) -> (Solo, usize) {
    let mut request = request.clone();
    request.output.snapshot = true;
    let (mut text, mut num_tokens, mut num_cuts) = (String::new(), 0, 0);
    for &cut in cuts {
        let transcript = part(&request, vocab, end, Some(applicable(cut, &request, num_tokens)), text);
        text = transcript.text.clone();
        let Some(finished) = transcript.finished.clone() else {
            assert_eq!(transcript.failed, Some(StreamError::Stopping));
            let is_begun = text.len() > echo(&request, vocab).len();
            assert!(!is_begun || num_cuts > 0, "a begun text was lost: {transcript:?}");
            continue;
        };
        match (&finished.snapshot, finished.reason) {
            (Some(snapshot), FinishReason::Length | FinishReason::Deadline | FinishReason::Drained) => {
                num_tokens = snapshot.num_tokens();
                num_cuts += 1;
                if num_tokens == request.stopping.max_tokens.expect("given") {
                    return (transcript.complete(), num_cuts);
                }
                request.prompt = Prompt::Resume(sent(snapshot));
            }
            (None, FinishReason::Deadline) => {}
            (None, FinishReason::Stop | FinishReason::Match | FinishReason::End) => {
                return (transcript.complete(), num_cuts);
            }
            other => panic!("{other:?}"),
        }
    }
    (part(&request, vocab, end, None, text).complete(), num_cuts)
}

fn check(request: &mut GenerateRequest, vocab: &Arc<Vocab>, end: Option<u32>, cuts: &[Cut]) {
    leave_out(end, request);
    let (text, _) = in_parts(request, vocab, end, cuts);
    let alone = solo_ending(request, vocab, end);
    assert_eq!(text, Solo { text: echo(request, vocab) + &alone.text, ..alone }, "{request:?}");
}

/// What comes before the text.
fn echo(request: &GenerateRequest, vocab: &Vocab) -> String {
    match &request.prompt {
        Prompt::Ids(ids) if request.output.echo_prompt => vocab.decode(ids),
        _ => String::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn characters(
        mut request in generate_request(Unit::Char), end in end(Unit::Char),
        cuts in prop::collection::vec(cut(), 0..5),
    ) {
        check(&mut request, &letters(), end, &cuts);
    }

    #[test]
    fn byte_symbols(
        mut request in generate_request(Unit::Byte), end in end(Unit::Byte),
        cuts in prop::collection::vec(cut(), 0..5),
    ) {
        check(&mut request, &bytes(), end, &cuts);
    }
}

/// A request that looks back, holds back and is guided.
fn rich() -> GenerateRequest {
    let mut rich = request("abc", 5, 60);
    rich.sampling.repetition_penalty = Some(1.7);
    rich.sampling.no_repeat_ngram_size = Some(3);
    rich.stopping.regex = Some("(?:[a-e]{2}|f)*".to_owned());
    rich.stopping.min_tokens = Some(50);
    rich.stopping.stop = vec!["abcabcabc".to_owned()];
    rich
}

#[test]
fn a_text_is_cut_after_every_symbol_and_every_second_one() {
    for (first, rest, least) in [(Cut::Drain(3), Cut::Drain(1), 49), (Cut::Deadline(4), Cut::Deadline(1), 24)]
    {
        let cuts = [&[first], [rest; 70].as_slice()].concat();
        let (text, num_cuts) = in_parts(&rich(), &letters(), None, &cuts);
        assert_eq!(text, solo_ending(&rich(), &letters(), None));
        assert!(num_cuts >= least, "{num_cuts} cuts");
    }
}

#[test]
fn what_a_stop_string_might_cut_is_not_decided_at_max_tokens() {
    let plain = solo_ending(&request("a", 1, 20), &letters(), None).text;
    let mut wanted = request("a", 1, 20);
    wanted.stopping.stop = vec![plain[8..12].to_owned()];
    wanted.output.snapshot = true;
    let cut = part(&wanted, &letters(), None, Some(Cut::Length(10)), String::new());
    assert_eq!((cut.text.as_str(), cut.complete().reason), (&plain[..10], FinishReason::Length));
    let snapshot = cut.finished.expect("the end").snapshot.expect("asked for");
    let rest = GenerateRequest { prompt: Prompt::Resume(sent(&snapshot)), ..wanted };
    let whole = part(&rest, &letters(), None, None, cut.text).complete();
    assert_eq!((whole.text.as_str(), whole.reason), (&plain[..8], FinishReason::Stop));
}

/// Where a text of `request` stands after some turns.
fn snapshot_of(request: &GenerateRequest) -> Snapshot {
    let mut request = request.clone();
    request.output.snapshot = true;
    let finished = part(&request, &letters(), None, Some(Cut::Drain(9)), String::new()).finished;
    *finished.expect("an end").snapshot.expect("begun")
}

#[test]
fn no_snapshot_comes_unasked_or_of_a_text_that_is_complete_or_not_begun() {
    let unasked = part(&request("a", 1, 5), &letters(), None, None, String::new());
    assert_eq!(unasked.finished.expect("an end").snapshot, None);
    let unasked = part(&request("a", 1, 50), &letters(), None, Some(Cut::Drain(9)), String::new());
    assert_eq!((unasked.text.len(), unasked.failed), (9, Some(StreamError::Stopping)));
    let asked = |mut request: GenerateRequest, cut| {
        request.output = Output { snapshot: true, ..request.output };
        part(&request, &letters(), None, Some(cut), String::new())
    };
    let mut stopped = request("a", 1, 50);
    stopped.stopping.stop = "abcdefg".chars().map(String::from).collect();
    let finished = asked(stopped, Cut::Deadline(40)).finished.expect("an end");
    assert_eq!((finished.reason, finished.snapshot), (FinishReason::Stop, None));
    let unread = asked(request("abcabc", 1, 50), Cut::Deadline(3)).finished.expect("an end");
    assert_eq!((unread.reason, unread.snapshot), (FinishReason::Deadline, None));
    assert_eq!(asked(request("abcabc", 1, 50), Cut::Drain(3)).failed, Some(StreamError::Stopping));
}

#[test]
fn a_reader_without_room_gets_no_snapshot_of_what_it_has_not_read() {
    let mut rig = Rig::new(1, letters(), config(1, 0));
    let mut wanted = request("a", 1, 50);
    wanted.output.snapshot = true;
    let reader = rig.submit(&wanted, 2).expect("room");
    rig.turns(30);
    drop(rig.engine);
    let mut transcript = Transcript::default();
    // Room for one more event now, of two.
    transcript.add(reader.take().expect("started"));
    rig.workers[0].turn();
    transcript.read(&reader);
    assert_eq!((transcript.finished, transcript.failed.is_some()), (None, false));
    assert!(reader.is_over());
}

#[test]
fn what_does_not_fit_the_request_or_the_model_is_refused() {
    let refusal = |change: &dyn Fn(&mut Value, &mut GenerateRequest)| {
        let mut request = rich();
        let mut data = serde_json::to_value(snapshot_of(&request)).expect("plain data");
        change(&mut data, &mut request);
        request.prompt = Prompt::Resume(Arc::new(serde_json::from_value(data).expect("a snapshot")));
        request.validate(&letters(), START, None).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(refusal(&|_, _| ()), Ok(()));
    let expected = [
        (refusal(&|data, _| data["token"] = 8.into()), "its state is not one of this model"),
        (refusal(&|data, _| data["past"]["history"][0] = 99.into()), "its state is not one of this model"),
        (refusal(&|data, _| data["state"]["floats"][0] = 1e39.into()), "its state is not one of this model"),
        (refusal(&|data, _| data["text"]["held"] = vec![5, 5].into()), "begins none of its stop strings"),
        (refusal(&|_, request| request.stopping.regex = None), "another version of charrnn"),
        (refusal(&|_, request| request.stopping.regex = Some("[a-f]*".into())), "another version of charrnn"),
        (refusal(&|data, _| data["past"]["guide"]["state"] = 99.into()), "regex: no text of 7 to 60"),
        (
            refusal(&|_, request| {
                (request.stopping.min_tokens, request.stopping.max_tokens) = (None, Some(7))
            }),
            "the text that is to go on has 7 symbols",
        ),
    ];
    for (refusal, words) in expected {
        let message = refusal.expect_err(words);
        assert!(message.contains(words), "{message} does not say: {words}");
    }
}

#[test]
#[should_panic(expected = "a snapshot of another model")]
fn a_state_of_another_size_is_not_taken() {
    let mut data = serde_json::to_value(snapshot_of(&request("a", 1, 50))).expect("plain data");
    data["state"]["floats"].as_array_mut().expect("a list").push(0.5.into());
    let mut asked = request("a", 1, 50);
    asked.prompt = Prompt::Resume(Arc::new(serde_json::from_value(data).expect("a snapshot")));
    drop(Rig::new(1, letters(), config(1, 0)).submit(&asked, 9));
}
