//! The engine turn by turn: joining, leaving, chunking, stopping, pausing, failing.

mod common;

use std::time::Duration;

use charrnn_core::engine::SubmitError;
use charrnn_core::event::{Event, FinishReason, StreamError};
use common::{bytes, config, letters, request, solo, Faults, Rig, Transcript};

const MS: Duration = Duration::from_millis(1);

#[test]
fn neighbours_leave_a_text_alone() {
    let mut rig = Rig::new(1, letters(), config(3, 9));
    let requests: Vec<_> =
        (0..9).map(|i| request(&"abcdefgh"[..i % 5], i as u64, 10 + 7 * i as u32)).collect();
    let readers: Vec<_> = requests.iter().map(|request| rig.submit(request, 99).expect("room")).collect();
    while rig.turn() {}
    for (request, reader) in requests.iter().zip(&readers) {
        assert_eq!(Transcript::default().read(reader).complete(), solo(request, &rig.vocab));
    }
    assert_eq!(rig.live(), (0, 0));
}

#[test]
fn a_thousand_joins_and_leaves_ten_times_over() {
    let mut rig = Rig::new(1, letters(), config(4, 0));
    for i in 0..10_000_u64 {
        let reader = rig.submit(&request("ab", i, 1 + (i % 3) as u32), 9).expect("room");
        rig.turns(1 + (i % 5) as usize);
        // Every third goes before its end, from the middle of the batch or as its last.
        if i % 3 != 0 {
            while rig.turn() {}
            assert_eq!(Transcript::default().read(&reader).text.len() as u64, 1 + i % 3);
        }
    }
    assert!(!rig.turn());
    assert_eq!(rig.live(), (0, 0));
    let num_rows = rig.rows_stepped();
    rig.turns(9);
    assert_eq!(rig.rows_stepped(), num_rows, "an idle worker ran a step");
}

#[test]
fn the_start_token_stands_in_for_an_empty_prompt() {
    let mut rig = Rig::new(1, letters(), config(1, 1));
    let readers = ["", "a"].map(|prompt| rig.submit(&request(prompt, 7, 20), 99).expect("room"));
    while rig.turn() {}
    let [empty, start] = readers.map(|reader| std::mem::take(Transcript::default().read(&reader)));
    assert_eq!(empty.text, start.text);
    assert_eq!(empty.started.map(|started| started.seed), Some(7));
}

#[test]
fn a_reader_that_is_gone_frees_its_slot_before_the_next_step() {
    let mut rig = Rig::new(1, letters(), config(2, 1));
    let first = rig.submit(&request("a", 1, 99), 99).expect("room");
    let second = rig.submit(&request("a", 2, 99), 99).expect("room");
    let waiting = rig.submit(&request(&"a".repeat(50), 3, 99), 99).expect("room");
    rig.turns(3);
    assert_eq!((rig.live(), rig.rows_stepped()), ((1, 2), 6));
    drop((first, waiting));
    rig.turns(1);
    assert_eq!((rig.live(), rig.rows_stepped()), ((0, 1), 7), "a cancelled stream was stepped");
    drop(second);
    assert!(!rig.turn());
    assert_eq!((rig.live(), rig.rows_stepped()), ((0, 0), 7));
}

#[test]
fn a_cancelled_stream_leaves_a_full_queue() {
    let mut rig = Rig::new(1, letters(), config(1, 2));
    let _running = rig.submit(&request("a", 1, 99), 99).expect("a slot");
    rig.turn();
    let waiting = [2, 3].map(|seed| rig.submit(&request("a", seed, 9), 99).expect("room"));
    let full = SubmitError::QueueFull { max_queue: 2 };
    assert_eq!(rig.submit(&request("a", 4, 9), 99).err(), Some(full));
    rig.turn();
    drop(waiting);
    rig.advance(10 * MS);
    rig.turn();
    assert_eq!(rig.live(), (0, 1));
}

#[test]
fn not_a_number_ends_one_stream_alone() {
    let faults = Faults { nan: Some(7), ..Faults::default() };
    let mut rig = Rig::with_faults(1, letters(), config(3, 0), faults);
    let requests = ["abc", "abh", "ab"].map(|prompt| request(prompt, 5, 9));
    let readers = requests.each_ref().map(|request| rig.submit(request, 99).expect("room"));
    while rig.turn() {}
    let got = readers.map(|reader| std::mem::take(Transcript::default().read(&reader)));
    assert!(
        matches!(&got[1].failed, Some(StreamError::Model(why)) if why.contains("not numbers")),
        "{got:?}"
    );
    assert_eq!(got[1].text, "");
    for i in [0, 2] {
        assert_eq!(got[i].complete(), solo(&requests[i], &rig.vocab));
    }
    assert_eq!(rig.live(), (0, 0));
}

#[test]
fn a_failed_step_ends_only_the_stream_at_fault() {
    let faults = Faults { error: Some(7), ..Faults::default() };
    let mut rig = Rig::with_faults(1, letters(), config(4, 0), faults);
    let requests = ["abc", "abh", "ab", "h"].map(|prompt| request(prompt, 5, 9));
    let readers = requests.each_ref().map(|request| rig.submit(request, 99).expect("room"));
    while rig.turn() {}
    let got = readers.map(|reader| std::mem::take(Transcript::default().read(&reader)));
    for i in [0, 2] {
        assert_eq!(got[i].complete(), solo(&requests[i], &rig.vocab));
    }
    for i in [1, 3] {
        assert_eq!(got[i].failed, Some(StreamError::Model("told to fail".to_owned())));
    }
    assert_eq!(rig.live(), (0, 0));
    // Alone as well.
    let reader = rig.submit(&requests[3], 9).expect("room");
    rig.turn();
    assert!(Transcript::default().read(&reader).failed.is_some());
}

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
        rig.turns(2);
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
    for (advance, chars) in [(0, 1), (19, 1), (1, 5)] {
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

#[test]
fn a_full_queue_refuses_at_once() {
    let mut rig = Rig::new(2, letters(), config(1, 1));
    let readers: Vec<_> = (0..3).map(|seed| rig.submit(&request("a", seed, 2), 99).expect("room")).collect();
    let full = rig.submit(&request("a", 9, 2), 99).err();
    assert_eq!(full, Some(SubmitError::QueueFull { max_queue: 1 }));
    rig.turn();
    assert_eq!(rig.live(), (1, 2));
    assert_eq!(
        rig.num_rows.iter().map(|rows| rows.load(std::sync::atomic::Ordering::SeqCst)).collect::<Vec<_>>(),
        [1, 1]
    );
    rig.turns(1);
    assert_eq!(rig.live(), (1, 0));
    drop(readers);
    drop(rig.submit(&request("a", 9, 2), 99).expect("room again"));
}

#[test]
fn a_stopped_engine_finishes_what_it_has() {
    let mut rig = Rig::new(1, letters(), config(1, 1));
    let wanted = [1, 2].map(|seed| request("a", seed, 5));
    let readers = wanted.each_ref().map(|wanted| rig.submit(wanted, 99).expect("room"));
    rig.turn();
    rig.engine.stop_admission();
    assert_eq!(rig.submit(&wanted[0], 99).err(), Some(SubmitError::Stopping));
    while rig.turn() {}
    for (wanted, reader) in wanted.iter().zip(&readers) {
        assert_eq!(Transcript::default().read(reader).complete(), solo(wanted, &rig.vocab));
    }
    assert!(rig.engine.drain(Duration::ZERO));
}

#[test]
fn a_slow_reader_is_parked_and_goes_on_where_it_was() {
    let mut rig = Rig::new(1, letters(), config(1, 1));
    let mut slow = request("abc", 1, 20);
    slow.output.chunk_chars = Some(2);
    let fast = request("cba", 2, 30);
    let slow_reader = rig.submit(&slow, 2).expect("room");
    rig.turns(5);
    // Started and the first character fill the pipe; the next chunk waits, and the slot is free.
    assert_eq!(rig.rows_stepped(), 5);
    rig.turns(50);
    assert_eq!((rig.rows_stepped(), rig.live()), (5, (0, 1)));
    let fast_reader = rig.submit(&fast, 99).expect("room");
    rig.turns(40);
    assert_eq!(Transcript::default().read(&fast_reader).complete(), solo(&fast, &rig.vocab));
    let mut got = Transcript::default();
    while got.read(&slow_reader).finished.is_none() {
        rig.advance(2 * MS);
        rig.turn();
    }
    assert_eq!(got.complete(), solo(&slow, &rig.vocab));
    assert_eq!(got.finished.map(|finished| finished.timing.num_steps), Some(22));
    rig.advance(2 * MS);
    rig.turn();
    assert_eq!(rig.live(), (0, 0));
}

#[test]
fn a_reader_without_room_even_for_the_first_event_is_parked() {
    let mut rig = Rig::new(1, letters(), config(1, 1));
    let stuck = rig.submit(&request("abc", 1, 20), 0).expect("room");
    rig.turns(9);
    assert_eq!((rig.rows_stepped(), rig.live()), (1, (0, 1)));
    drop(stuck);
    rig.advance(2 * MS);
    rig.turn();
    assert_eq!(rig.live(), (0, 0));
}

#[test]
fn a_reader_that_takes_nothing_for_too_long_is_given_up() {
    let mut rig = Rig::new(1, letters(), config(1, 1));
    let mut wanted = request("a", 1, 20);
    wanted.output.chunk_chars = Some(1);
    let reader = rig.submit(&wanted, 2).expect("room");
    rig.turns(3);
    // Something was taken: the time starts again.
    rig.advance(29_000 * MS);
    assert!(matches!(reader.take(), Some(Event::Started(_))));
    for (advance, is_over) in [(10, false), (10, false), (29_980, false), (20, true)] {
        rig.advance(advance * MS);
        rig.turns(1);
        assert_eq!(reader.is_over(), is_over, "after {advance} ms more");
    }
    assert_eq!(rig.live(), (0, 0));
}

#[test]
fn the_end_of_a_text_waits_for_its_reader_without_a_slot() {
    let mut rig = Rig::new(1, letters(), config(1, 1));
    let wanted = request("a", 1, 1);
    let reader = rig.submit(&wanted, 1).expect("room");
    rig.turn();
    let other = rig.submit(&request("b", 1, 1), 9).expect("room");
    rig.turn();
    assert!(Transcript::default().read(&other).finished.is_some());
    assert_eq!(rig.live(), (0, 1));
    let mut got = Transcript::default();
    for _ in 0..3 {
        got.read(&reader);
        rig.advance(2 * MS);
        rig.turn();
    }
    assert_eq!(got.read(&reader).complete(), solo(&wanted, &rig.vocab));
    assert_eq!(rig.live(), (0, 0));
}

#[test]
fn parked_streams_count_against_admission() {
    let mut rig = Rig::new(1, letters(), config(1, 2));
    let mut stuck = Vec::new();
    while let Ok(reader) = rig.submit(&request("a", 1, 9), 1) {
        stuck.push(reader);
        rig.turns(9);
    }
    assert_eq!((stuck.len(), rig.live()), (3, (0, 3)));
}
