//! The engine turn by turn: readers slower than the model.

mod common;

use std::sync::Arc;
use std::time::Duration;

use charrnn_core::event::{Event, FinishReason, SendError, Sink, StreamError};
use charrnn_core::request::{GenerateRequest, Prompt};
use common::{config, letters, request, solo, Reader, Rig, Transcript, START};

const MS: Duration = Duration::from_millis(1);

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

/// A reader that has room for bad news only.
struct BadNews(std::sync::mpsc::Sender<StreamError>);

impl Sink for BadNews {
    fn try_send(&mut self, event: Event) -> Result<(), SendError> {
        match event {
            Event::Failed(error) => self.0.send(error).map_err(|_| SendError::Closed),
            event => Err(SendError::Full(event)),
        }
    }

    fn is_closed(&self) -> bool {
        false
    }
}

#[test]
fn a_stalled_reader_is_told_so_if_it_has_room() {
    let mut rig = Rig::new(1, letters(), config(1, 1));
    let (sender, receiver) = std::sync::mpsc::channel();
    let valid = request("a", 1, 9).validate(&rig.vocab, START, None).expect("a valid request");
    rig.engine.submit(valid, Box::new(BadNews(sender))).expect("room");
    rig.turn();
    rig.advance(30_000 * MS);
    rig.turn();
    assert_eq!(receiver.try_recv(), Ok(StreamError::Stalled(30_000 * MS)));
}

#[test]
fn a_stalled_reader_that_asked_gets_all_that_waits_and_goes_on() {
    let mut rig = Rig::new(1, letters(), config(1, 1));
    let mut wanted = request("abc", 1, 20);
    (wanted.output.chunk_chars, wanted.output.snapshot) = (Some(2), true);
    let reader = rig.submit_kept(&wanted, 2).expect("room");
    rig.turns(9);
    rig.advance(30_000 * MS);
    rig.turn();
    assert_eq!((reader.is_over(), rig.live()), (true, (0, 0)));
    let mut got = std::mem::take(Transcript::default().read(&reader));
    let finished = got.finished.take().expect("an end");
    assert_eq!((finished.reason, finished.num_chars), (FinishReason::Stalled, got.text.len() as u64));
    assert!(got.text.len() > 1, "what waited was lost: {got:?}");
    let snapshot = Arc::new(*finished.snapshot.expect("asked for"));
    let more = GenerateRequest { prompt: Prompt::Resume(snapshot), ..wanted.clone() };
    let reader = rig.submit(&more, 99).expect("room");
    rig.turns(40);
    let mut whole = Transcript::after(got.text);
    assert_eq!(whole.read(&reader).complete(), solo(&wanted, &rig.vocab));
    assert_eq!(rig.engine.stats().ended.iter().sum::<u64>(), 2);
}

#[test]
fn a_text_that_is_complete_is_handed_to_a_stalled_reader_that_asked() {
    let mut rig = Rig::new(1, letters(), config(1, 1));
    let mut wanted = request("a", 1, 1);
    wanted.output.snapshot = true;
    let reader = rig.submit_kept(&wanted, 1).expect("room");
    rig.turn();
    rig.advance(30_000 * MS);
    rig.turn();
    assert_eq!(Transcript::default().read(&reader).complete(), solo(&wanted, &rig.vocab));
}

#[test]
fn every_event_taken_starts_the_stall_time_again() {
    let mut rig = Rig::new(1, letters(), config(1, 1));
    // Its three events are written at once; the pipe holds one.
    let reader = rig.submit(&request("a", 1, 1), 1).expect("room");
    rig.turn();
    rig.advance(29_000 * MS);
    assert!(reader.take().is_some());
    rig.turn();
    rig.advance(29_000 * MS);
    rig.turn();
    assert!(!reader.is_over(), "given up 29 s after it took an event");
    assert!(reader.take().is_some());
    rig.advance(2 * MS);
    rig.turn();
    assert!(matches!(reader.take(), Some(Event::Finished(_))));
    assert!(reader.is_over());
}

/// A stream that was parked and read and now waits for the only slot, which another has.
fn ready_without_a_slot() -> (Rig, Reader, Reader) {
    let mut rig = Rig::new(1, letters(), config(1, 1));
    let ready = rig.submit(&request("a", 1, 99), 1).expect("room");
    rig.turn();
    let running = rig.submit(&request("b", 2, 99), 999).expect("room");
    rig.turn();
    assert!(ready.take().is_some());
    rig.advance(2 * MS);
    rig.turn();
    assert!(matches!(ready.take(), Some(Event::Chunk(_))));
    assert_eq!((rig.rows_stepped(), rig.live()), (3, (0, 2)));
    (rig, running, ready)
}

#[test]
fn a_reader_gone_while_its_stream_waits_to_go_on_is_noticed() {
    let (mut rig, _running, ready) = ready_without_a_slot();
    drop(ready);
    rig.advance(10 * MS);
    rig.turn();
    assert_eq!(rig.live(), (0, 1));

    let (mut rig, running, ready) = ready_without_a_slot();
    drop((ready, running));
    assert!(!rig.turn(), "a cancelled stream was stepped");
    assert_eq!(rig.live(), (0, 0));
}

#[test]
fn a_stream_that_waits_to_go_on_is_told_when_the_engine_stops() {
    let (mut rig, _running, ready) = ready_without_a_slot();
    drop(rig.engine);
    rig.workers[0].turn();
    assert_eq!(ready.take(), Some(Event::Failed(StreamError::Stopping)));
}

#[test]
fn a_finished_text_stays_finished_when_the_engine_stops() {
    let mut rig = Rig::new(1, letters(), config(1, 1));
    let wanted = request("a", 1, 1);
    let reader = rig.submit(&wanted, 2).expect("room");
    rig.turn();
    let mut got = Transcript::default();
    assert!(got.read(&reader).finished.is_none());
    drop(rig.engine);
    rig.workers[0].turn();
    assert_eq!(got.read(&reader).complete(), solo(&wanted, &rig.vocab));
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
