//! The engine with its own threads: many streams at once, draining, dropping, panicking.

mod common;

use std::sync::Arc;
use std::time::Duration;

use charrnn_core::engine::{Engine, EngineConfig, SubmitError};
use charrnn_core::event::{Event, StreamError};
use charrnn_core::request::GenerateRequest;
use charrnn_core::vocab::Vocab;
use charrnn_core::StepModel;
use common::{config, letters, pipe, request, solo, FakeModel, Faults, Reader, Transcript, START};

/// Long enough for any text here, even on a busy machine: only a bug waits it out.
const PATIENCE: Duration = Duration::from_secs(60);

fn start(num_workers: usize, config: EngineConfig, faults: Faults) -> (Engine, Arc<Vocab>) {
    let vocab = letters();
    let model = |_| Box::new(FakeModel::new(vocab.size(), faults)) as Box<dyn StepModel>;
    let models = (0..num_workers).map(model).collect();
    (Engine::start(models, vocab.clone(), config), vocab)
}

fn submit(
    engine: &Engine,
    vocab: &Vocab,
    request: &GenerateRequest,
    capacity: usize,
) -> Result<Reader, SubmitError> {
    let (sink, reader) = pipe(capacity);
    let valid = request.clone().validate(vocab, START, None).expect("a valid request");
    engine.submit(valid, sink).map(|()| reader)
}

/// A text that never ends by itself while the test lasts.
fn endless() -> GenerateRequest {
    request("a", 1, 1_000_000)
}

#[test]
fn streams_of_many_readers_and_two_workers_are_what_they_are_alone() {
    let (engine, vocab) = start(2, config(4, 100), Faults::default());
    std::thread::scope(|scope| {
        for i in 0..24_u64 {
            let (engine, vocab) = (&engine, &vocab);
            scope.spawn(move || {
                for seed in 0..10 {
                    let mut wanted = request(&"abcdefgh"[..i as usize % 9], seed, 5 + 20 * seed as u32);
                    wanted.output.chunk_chars = Some(1 + i as u32 % 4);
                    let reader = submit(engine, vocab, &wanted, 2).expect("room");
                    assert_eq!(Transcript::wait(&reader).complete(), solo(&wanted, vocab));
                }
            });
        }
    });
    assert!(engine.drain(PATIENCE));
    assert_eq!((engine.num_waiting(), engine.num_running()), (0, 0));
}

#[test]
fn a_drain_with_time_lets_every_text_end() {
    let (engine, vocab) = start(2, config(2, 9), Faults::default());
    let wanted: Vec<_> = (0..9).map(|seed| request("abc", seed, 200)).collect();
    let readers: Vec<_> =
        wanted.iter().map(|wanted| submit(&engine, &vocab, wanted, 999).expect("room")).collect();
    assert!(engine.drain(PATIENCE));
    assert_eq!(submit(&engine, &vocab, &wanted[0], 9).err(), Some(SubmitError::Stopping));
    for (wanted, reader) in wanted.iter().zip(&readers) {
        assert_eq!(Transcript::default().read(reader).complete(), solo(wanted, &vocab));
    }
}

#[test]
fn a_drain_out_of_time_ends_the_rest() {
    let (engine, vocab) = start(1, config(1, 9), Faults::default());
    // Parked (it has the slot until its pipe is full), running and waiting streams.
    let parked = submit(&engine, &vocab, &endless(), 1).expect("room");
    let others = [(); 8].map(|()| submit(&engine, &vocab, &endless(), usize::MAX).expect("room"));
    // The first character proves that the parked stream has given its slot away.
    assert!(matches!((others[0].wait(), others[0].wait()), (Some(Event::Started(_)), Some(Event::Chunk(_)))));
    assert!(!engine.drain(Duration::ZERO));
    assert_eq!((engine.num_waiting(), engine.num_running()), (0, 0));
    for reader in &others[1..] {
        assert_eq!(Transcript::wait(reader).failed, Some(StreamError::Stopping));
    }
    assert_eq!(Transcript::wait(&parked).failed, None, "there was no room to say so");
}

#[test]
fn a_dropped_engine_ends_its_streams_and_threads() {
    let (engine, vocab) = start(2, config(1, 9), Faults::default());
    let readers = [(); 5].map(|()| submit(&engine, &vocab, &endless(), usize::MAX).expect("room"));
    let stuck = submit(&engine, &vocab, &endless(), 1).expect("room");
    assert!(matches!(readers[0].wait(), Some(Event::Started(_))));
    drop(engine);
    assert!(stuck.is_over());
    for reader in &readers {
        assert!(reader.is_over());
        let mut last = None;
        while let Some(event) = reader.take() {
            last = Some(event);
        }
        assert_eq!(last, Some(Event::Failed(StreamError::Stopping)));
    }
}

/// Makes the least loaded worker panic, which fails all that it has.
fn panic(engine: &Engine, vocab: &Vocab) {
    let bad = submit(engine, vocab, &request("h", 1, 9), 9).expect("room");
    let error = Transcript::wait(&bad).failed;
    assert!(matches!(&error, Some(StreamError::Model(why)) if why.contains("panicked")), "{error:?}");
}

#[test]
fn after_a_panic_a_worker_begins_anew_and_after_another_it_is_gone() {
    let faults = Faults { panic: Some(7), ..Faults::default() };
    let (engine, vocab) = start(1, config(4, 9), faults);
    let calm = request("abc", 1, 300);
    for is_broken in [false, true] {
        let beside = [(); 3].map(|()| submit(&engine, &vocab, &endless(), usize::MAX).expect("room"));
        panic(&engine, &vocab);
        for reader in beside {
            let got = Transcript::wait(&reader);
            assert!(got.failed.is_some() && solo(&request("a", 1, 1000), &vocab).text.starts_with(&got.text));
        }
        assert_eq!(engine.is_broken(), is_broken);
        let next = submit(&engine, &vocab, &calm, 999);
        match is_broken {
            true => assert_eq!(next.err(), Some(SubmitError::Stopping)),
            false => assert_eq!(Transcript::wait(&next.expect("room")).complete(), solo(&calm, &vocab)),
        }
    }
    assert!(engine.drain(PATIENCE));
}

#[test]
fn a_panic_spares_the_texts_of_other_workers() {
    let faults = Faults { panic: Some(7), ..Faults::default() };
    let (engine, vocab) = start(2, config(1, 9), faults);
    let calm = request("abc", 1, 300);
    // By load: the first worker has it, and the second one panics until it is gone.
    let first = submit(&engine, &vocab, &endless(), usize::MAX).expect("room");
    for _ in 0..2 {
        panic(&engine, &vocab);
        // It is told before its place is given back.
        while engine.num_running() + engine.num_waiting() > 1 {
            std::thread::yield_now();
        }
    }
    assert!(engine.is_broken() && !first.is_over());
    drop(first);
    for _ in 0..3 {
        let reader = submit(&engine, &vocab, &calm, 999).expect("room");
        assert_eq!(Transcript::wait(&reader).complete(), solo(&calm, &vocab));
    }
}
