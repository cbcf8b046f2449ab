//! Streams whose time is over: running, waiting, withheld, unread.

mod common;

use std::time::Duration;

use charrnn_core::event::FinishReason;
use charrnn_core::request::Stopping;
use common::{config, letters, request, solo, Rig, Transcript};

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_text_ends_at_its_deadline_with_what_there_is_and_frees_its_slot() {
    let mut rig = Rig::new(1, letters(), config(1, 1));
    let wanted = request("a", 1, 99);
    let late = rig.submit_until(Some(5 * MS), &wanted, 999).expect("a slot");
    let next = rig.submit(&request("b", 2, 3), 99).expect("a place in the queue");
    for _ in 0..20 {
        rig.turn();
        rig.advance(MS);
    }
    let mut transcript = Transcript::default();
    let finished = transcript.read(&late).finished.clone().expect("it has ended");
    assert_eq!((finished.reason, finished.num_chars), (FinishReason::Deadline, 6));
    assert!(solo(&wanted, &rig.vocab).text.starts_with(&transcript.text));
    assert_eq!(Transcript::default().read(&next).complete(), solo(&request("b", 2, 3), &rig.vocab));
    assert_eq!(rig.engine.stats().ended.iter().sum::<u64>(), 2);
}

#[test]
fn one_that_is_late_in_the_queue_is_never_begun() {
    let mut rig = Rig::new(1, letters(), config(1, 2));
    let _running = rig.submit(&request("a", 1, 99), 999).expect("a slot");
    rig.turn();
    let late = rig.submit_until(Some(5 * MS), &request(&"a".repeat(50), 2, 9), 9).expect("room");
    let past = rig.submit_until(Some(Duration::ZERO), &request("a", 3, 9), 9).expect("room");
    rig.advance(20 * MS);
    rig.turn();
    for reader in [late, past] {
        let finished = Transcript::default().read(&reader).finished.clone().expect("it has ended");
        assert_eq!((finished.reason, finished.num_chars), (FinishReason::Deadline, 0));
        assert_eq!(finished.timing.num_steps, 0);
    }
    assert_eq!(rig.live(), (0, 1));
}

#[test]
fn the_end_of_one_that_was_late_in_the_queue_waits_for_its_reader() {
    let mut rig = Rig::new(1, letters(), config(1, 0));
    // Started fills the pipe.
    let late = rig.submit_until(Some(Duration::ZERO), &request("a", 1, 9), 1).expect("a slot");
    rig.turns(2);
    let mut transcript = Transcript::default();
    assert_eq!(transcript.read(&late).finished, None);
    rig.advance(2 * MS);
    rig.turn();
    let finished = transcript.read(&late).finished.clone().expect("it has ended");
    assert_eq!((finished.reason, finished.timing.num_steps), (FinishReason::Deadline, 0));
    assert_eq!((rig.live(), rig.rows_stepped()), ((0, 0), 0));
}

#[test]
fn what_may_begin_a_stop_string_is_left_out() {
    let mut rig = Rig::new(1, letters(), config(1, 0));
    let text = solo(&request("a", 1, 20), &rig.vocab).text;
    // The text so far is the beginning of a stop string that does not come.
    let stop = format!("{}h", &text[..4]);
    let mut wanted = request("a", 1, 20);
    wanted.stopping = Stopping { stop: vec![stop], ..wanted.stopping };
    let late = rig.submit_until(Some(MS), &wanted, 99).expect("a slot");
    rig.turns(3);
    rig.advance(MS);
    rig.turn();
    let mut transcript = Transcript::default();
    assert_eq!(transcript.read(&late).finished.as_ref().map(|it| it.reason), Some(FinishReason::Deadline));
    assert_eq!(transcript.text, "");
}

#[test]
fn the_end_of_an_unread_text_waits_for_its_reader_without_a_slot() {
    let mut rig = Rig::new(1, letters(), config(1, 1));
    let wanted = request("a", 1, 99);
    let late = rig.submit_until(Some(5 * MS), &wanted, 2).expect("a slot");
    let next = rig.submit(&request("b", 2, 3), 99).expect("room");
    rig.turns(40);
    rig.advance(20 * MS);
    let mut transcript = Transcript::default();
    for _ in 0..40 {
        transcript.read(&late);
        rig.turn();
        rig.advance(MS);
    }
    let finished = transcript.read(&late).finished.clone().expect("it has ended");
    assert_eq!(finished.reason, FinishReason::Deadline);
    assert!(!transcript.text.is_empty() && solo(&wanted, &rig.vocab).text.starts_with(&transcript.text));
    assert_eq!(Transcript::default().read(&next).complete(), solo(&request("b", 2, 3), &rig.vocab));
    assert_eq!(rig.live(), (0, 0));
}

#[test]
fn a_text_that_ends_in_time_is_left_alone() {
    let mut rig = Rig::new(1, letters(), config(1, 0));
    let wanted = request("a", 1, 5);
    let reader = rig.submit_until(Some(MS), &wanted, 99).expect("a slot");
    while rig.turn() {}
    rig.advance(2 * MS);
    assert_eq!(Transcript::default().read(&reader).complete(), solo(&wanted, &rig.vocab));
}
