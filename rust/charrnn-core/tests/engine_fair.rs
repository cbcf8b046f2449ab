//! The engine turn by turn: clients that ask for much and clients that ask for little.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{config, letters, pipe, request, Reader, Rig, Transcript, START};

const LEN: u32 = 5;

fn submit(rig: &Rig, client: &str) -> Reader {
    let (sink, reader) = pipe(99);
    let valid = request("a", 1, LEN).validate(&rig.vocab, START, None).expect("a valid request");
    rig.engine.submit(valid.of(Arc::from(client)), sink).expect("room");
    reader
}

/// The positions in `readers` of those whose text is complete, in the order in which they came to be so.
fn order(rig: &mut Rig, readers: &[Reader]) -> Vec<usize> {
    let mut transcripts: Vec<Transcript> = readers.iter().map(|_| Transcript::default()).collect();
    let mut done = Vec::new();
    while rig.turn() {
        for (i, (transcript, reader)) in transcripts.iter_mut().zip(readers).enumerate() {
            if transcript.read(reader).finished.is_some() && !done.contains(&i) {
                done.push(i);
            }
        }
    }
    done
}

#[test]
fn a_polite_client_waits_for_one_text_of_a_greedy_one() {
    let mut rig = Rig::new(1, letters(), config(1, 2000));
    let mut readers: Vec<Reader> = (0..100).map(|_| submit(&rig, "greedy")).collect();
    rig.turn();
    readers.extend(["polite", "polite", "other"].map(|client| submit(&rig, client)));
    let done = order(&mut rig, &readers);
    // One runs; then all clients take turns, and a client's texts stay in their order.
    assert_eq!(done[..8], [0, 1, 100, 102, 2, 101, 3, 4]);
    assert_eq!(done.len(), readers.len());
    assert!(done.iter().filter(|&&i| i < 100).is_sorted());
}

#[test]
fn clients_share_the_rows_of_a_batch() {
    let mut rig = Rig::new(1, letters(), config(4, 100));
    let greedy: Vec<Reader> = (0..50).map(|_| submit(&rig, "greedy")).collect();
    let polite: Vec<Reader> = (0..2).map(|_| submit(&rig, "polite")).collect();
    rig.turn();
    assert_eq!(rig.live(), (48, 4));
    let is_running = |reader: &Reader| std::iter::from_fn(|| reader.take()).count() > 1;
    assert_eq!(greedy.iter().filter(|reader| is_running(reader)).count(), 2);
    assert!(polite.iter().all(is_running));
}

#[test]
fn a_client_whose_readers_are_gone_has_no_turn() {
    let mut rig = Rig::new(1, letters(), config(1, 100));
    let running = submit(&rig, "first");
    rig.turn();
    let gone: Vec<Reader> = (0..9).map(|_| submit(&rig, "gone")).collect();
    let waiting = submit(&rig, "waiting");
    rig.turn();
    drop(gone);
    rig.advance(Duration::from_millis(10));
    rig.turn();
    assert_eq!(rig.live(), (1, 1));
    assert_eq!(order(&mut rig, &[running, waiting]), [0, 1]);
    assert_eq!(rig.live(), (0, 0));
}

#[test]
fn those_who_wait_are_told_when_the_engine_stops() {
    let mut rig = Rig::new(1, letters(), config(1, 100));
    let readers: Vec<Reader> = ["a", "b", "a", "c"].map(|client| submit(&rig, client)).into();
    rig.turn();
    rig.engine.abort();
    rig.turn();
    assert!(readers.iter().all(|reader| Transcript::default().read(reader).failed.is_some()));
    assert_eq!(rig.live(), (0, 0));
}
