//! The engine turn by turn: joining, leaving, refusing, failing.

mod common;

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use charrnn_core::engine::SubmitError;
use charrnn_core::event::StreamError;
use common::{config, letters, request, solo, Faults, Rig, Transcript};

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

/// A prompt is read a symbol a step, in the batch of all others: however long it is, they lose no step to it.
#[test]
fn the_longest_prompt_takes_no_turn_from_its_neighbours() {
    let mut rig = Rig::new(1, letters(), config(16, 0));
    let wanted: Vec<_> = (0..15).map(|seed| request("a", seed, 40_000)).collect();
    let readers: Vec<_> = wanted.iter().map(|wanted| rig.submit(wanted, usize::MAX).expect("room")).collect();
    let long = rig.submit(&request(&"ab".repeat(32_768), 99, 3), 99).expect("room");
    for turn in 1..=40_000 {
        rig.turn();
        assert_eq!(rig.rows_stepped(), 16 * turn);
    }
    for (wanted, reader) in wanted.iter().zip(&readers) {
        assert_eq!(Transcript::default().read(reader).complete(), solo(wanted, &rig.vocab));
    }
    while rig.turn() {}
    assert_eq!(Transcript::default().read(&long).text.len(), 3);
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
fn unusable_logits_end_one_stream_alone() {
    let nan = Faults { nan: Some(7), ..Faults::default() };
    let mute = Faults { mute: Some(7), ..Faults::default() };
    for (faults, problem) in [(nan, "are not numbers"), (mute, "rule out every symbol")] {
        let mut rig = Rig::with_faults(1, letters(), config(3, 0), faults);
        let requests = ["abc", "abh", "ab"].map(|prompt| request(prompt, 5, 9));
        let readers = requests.each_ref().map(|request| rig.submit(request, 99).expect("room"));
        while rig.turn() {}
        let got = readers.map(|reader| std::mem::take(Transcript::default().read(&reader)));
        assert!(matches!(&got[1].failed, Some(StreamError::Model(why)) if why.contains(problem)), "{got:?}");
        assert_eq!(got[1].text, "");
        for i in [0, 2] {
            assert_eq!(got[i].complete(), solo(&requests[i], &rig.vocab));
        }
        assert_eq!(rig.live(), (0, 0));
    }
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
fn a_full_queue_refuses_at_once() {
    let mut rig = Rig::new(2, letters(), config(1, 1));
    let readers: Vec<_> = (0..3).map(|seed| rig.submit(&request("a", seed, 2), 99).expect("room")).collect();
    let full = rig.submit(&request("a", 9, 2), 99).err();
    assert_eq!(full, Some(SubmitError::QueueFull { max_queue: 1 }));
    rig.turn();
    assert_eq!(rig.live(), (1, 2));
    assert_eq!(rig.num_rows.iter().map(|rows| rows.load(SeqCst)).collect::<Vec<_>>(), [1, 1]);
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
fn a_dropped_engine_delivers_the_text_so_far() {
    let mut rig = Rig::new(1, letters(), config(1, 1));
    let wanted = request("a", 1, 99);
    let readers = [(); 2].map(|()| rig.submit(&wanted, 9).expect("room"));
    rig.turns(7);
    drop(rig.engine);
    assert!(!rig.workers[0].turn());
    let [running, waiting] = readers.map(|reader| std::mem::take(Transcript::default().read(&reader)));
    assert_eq!(running.text, solo(&wanted, &rig.vocab).text[..7]);
    assert_eq!(waiting.text, "");
    assert_eq!([running.failed, waiting.failed], [Some(StreamError::Stopping), Some(StreamError::Stopping)]);
}
