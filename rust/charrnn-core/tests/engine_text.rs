//! The engine turn by turn: chunks, delays, stop strings, timing.

mod common;

use std::time::Duration;

use charrnn_core::event::FinishReason;
use common::{bytes, config, letters, request, solo, Rig, Transcript};

const MS: Duration = Duration::from_millis(1);

#[test]
fn the_first_character_goes_at_once_and_the_rest_in_chunks() {
    let mut rig = Rig::new(1, letters(), config(1, 0));
    let mut wanted = request("ab", 1, 12);
    wanted.output.chunk_chars = Some(4);
    let reader = rig.submit(&wanted, 99).expect("room");
    let mut got = Transcript::default();
    let mut after_turn = Vec::new();
    while rig.turn() {
        after_turn.push(got.read(&reader).text.len());
    }
    assert_eq!(after_turn, [0, 1, 1, 1, 1, 5, 5, 5, 5, 9, 9, 9, 12]);
    assert_eq!(got.chunk_chars, [1, 4, 4, 3]);
}

#[test]
fn a_chunk_waits_no_longer_than_its_delay() {
    for (asked, delay) in [(None, 10), (Some(3), 3), (Some(0), 0), (Some(60_000), 60_000)] {
        let mut rig = Rig::new(1, letters(), config(1, 0));
        let mut wanted = request("a", 1, 99);
        wanted.output.chunk_chars = Some(50);
        wanted.output.max_chunk_delay_ms = asked;
        let reader = rig.submit(&wanted, 99).expect("room");
        rig.turn();
        rig.advance(99_000 * MS);
        rig.turn();
        let mut got = Transcript::default();
        assert_eq!(got.read(&reader).chunk_chars.len(), if delay == 0 { 2 } else { 1 });
        // The second character is ready since now.
        rig.advance(MS * delay.max(1) - MS);
        rig.turn();
        assert_eq!(got.read(&reader).text.len(), if delay == 0 { 3 } else { 1 }, "too early, delay {delay}");
        rig.advance(2 * MS);
        rig.turn();
        assert_eq!(got.read(&reader).text.len(), 4, "too late, delay {delay}");
    }
}

#[test]
fn the_delay_grows_with_the_number_of_streams() {
    let mut rig = Rig::new(1, letters(), config(256, 0));
    let mut wanted = request("a", 1, 99);
    wanted.output.chunk_chars = Some(50);
    let readers: Vec<_> = (0..256).map(|_| rig.submit(&wanted, 99).expect("room")).collect();
    rig.turns(2);
    let mut got = Transcript::default();
    for (advance, chars) in [(0, 1), (29, 1), (1, 5)] {
        rig.advance(MS * advance);
        rig.turn();
        assert_eq!(got.read(&readers[9]).text.len(), chars, "after {advance} ms more");
    }
}

#[test]
fn a_stop_string_never_shows_not_even_its_beginning() {
    let mut rig = Rig::new(1, letters(), config(1, 9));
    let plain = solo(&request("abc", 3, 60), &rig.vocab).text;
    let at = (20..40)
        .find(|&at| plain.find(&plain[at..at + 4]) == Some(at))
        .expect("four letters that are new there");
    for include_stop in [false, true] {
        let mut wanted = request("abc", 3, 60);
        wanted.stopping.stop = vec![plain[at..at + 4].to_owned()];
        wanted.stopping.include_stop = include_stop;
        wanted.output.chunk_chars = Some(1);
        let reader = rig.submit(&wanted, 99).expect("room");
        let mut got = Transcript::default();
        while rig.turn() {
            assert!(include_stop || plain[..at].starts_with(&got.read(&reader).text), "{got:?}");
        }
        assert_eq!(got.read(&reader).text, plain[..at + if include_stop { 4 } else { 0 }]);
        let finished = got.finished.expect("an end");
        assert_eq!(
            (finished.reason, finished.matched_stop.as_ref()),
            (FinishReason::Stop, wanted.stopping.stop.first())
        );
        assert_eq!(finished.timing.num_steps, 3 + at as u64 + 4 - 1);
    }
}

#[test]
fn no_more_is_withheld_than_may_become_a_stop_string() {
    let mut rig = Rig::new(1, letters(), config(1, 9));
    let plain = solo(&request("a", 3, 300), &rig.vocab).text;
    let stops = ["aba", "bcd", "ccccc", "db"].map(str::to_owned).to_vec();
    let end =
        stops.iter().filter_map(|stop| plain.find(stop).map(|at| at + stop.len())).min().expect("a stop");
    let mut wanted = request("a", 3, 300);
    wanted.output.chunk_chars = Some(1);
    wanted.stopping.stop = stops.clone();
    let reader = rig.submit(&wanted, 999).expect("room");
    let mut got = Transcript::default();
    for drawn in 1..end {
        rig.turn();
        let is_prefix = |n: &usize| stops.iter().any(|stop| stop.starts_with(&plain[drawn - n..drawn]));
        let held = (0..=drawn.min(5)).rev().find(is_prefix).expect("nothing is a prefix of everything");
        assert_eq!(got.read(&reader).text, plain[..drawn - held]);
    }
}

#[test]
fn what_was_withheld_is_delivered_at_the_end() {
    let mut rig = Rig::new(1, letters(), config(1, 0));
    let plain = solo(&request("abc", 3, 30), &rig.vocab).text;
    let mut wanted = request("abc", 3, 30);
    // The last letters are the beginning of a stop string that never ends.
    wanted.stopping.stop = vec![format!("{}{}", &plain[26..], "a".repeat(9))];
    let reader = rig.submit(&wanted, 99).expect("room");
    while rig.turn() {}
    let got = std::mem::take(Transcript::default().read(&reader));
    assert_eq!((got.text.as_str(), got.complete().reason), (plain.as_str(), FinishReason::Length));
}

#[test]
fn chunks_hold_whole_characters_of_a_byte_vocabulary() {
    let mut rig = Rig::new(1, bytes(), config(2, 99));
    for seed in 0..50 {
        let mut wanted = request("é€", seed, 40);
        wanted.output.chunk_chars = Some(1);
        wanted.stopping.stop = vec!["€".to_owned(), "ab".to_owned()];
        let reader = rig.submit(&wanted, 99).expect("room");
        while rig.turn() {}
        assert_eq!(Transcript::default().read(&reader).complete(), solo(&wanted, &rig.vocab), "seed {seed}");
    }
}

#[test]
fn timing_counts_from_acceptance_in_steps_and_streams() {
    let mut rig = Rig::new(1, letters(), config(2, 1));
    let _short = rig.submit(&request("ab", 1, 1), 99).expect("room");
    let long = rig.submit(&request("abc", 2, 4), 99).expect("room");
    let waiting = rig.submit(&request("a", 3, 2), 99).expect("room");
    // A turn: 5 ms pass, then it joins or not, then it steps.
    for _ in 0..6 {
        rig.advance(5 * MS);
        rig.turn();
    }
    let timing = |reader| Transcript::default().read(&reader).finished.clone().expect("an end").timing;
    let long = timing(long);
    assert_eq!((long.queue, long.first_char, long.total), (5 * MS, 15 * MS, 30 * MS));
    assert_eq!((long.num_steps, long.mean_batch), (6, (2.0 * 4.0 + 2.0) / 6.0));
    let waiting = timing(waiting);
    assert_eq!((waiting.queue, waiting.first_char, waiting.total), (15 * MS, 15 * MS, 20 * MS));
    assert_eq!((waiting.num_steps, waiting.mean_batch), (2, 2.0));
}
