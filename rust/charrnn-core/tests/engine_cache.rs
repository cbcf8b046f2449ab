//! Prompts read before are not read again, and no text is another for it.

mod common;

use charrnn_core::engine::EngineConfig;
use charrnn_core::prompt_cache::MIN_SYMBOLS;
use charrnn_core::request::{GenerateRequest, Prompt};
use charrnn_core::vocab::Unit;
use common::requests::{end, generate_request, leave_out};
use common::{config, letters, request, solo, solo_ending, Rig, Transcript};
use proptest::prelude::*;

/// A rig with room for the states of many prompts.
fn rig(prompt_cache_bytes: usize) -> Rig {
    Rig::new(2, letters(), EngineConfig { prompt_cache_bytes, ..config(3, 99) })
}

fn text_of(rig: &mut Rig, request: &GenerateRequest) -> Transcript {
    let reader = rig.submit(request, 999).expect("room");
    while rig.turn() {}
    std::mem::take(Transcript::default().read(&reader))
}

/// How many of the prompt's symbols were known, and how many steps were run.
fn cost(text: &Transcript) -> (u32, u64) {
    let started = text.started.as_ref().expect("accepted");
    (started.num_cached_tokens, text.finished.as_ref().expect("complete").timing.num_steps)
}

#[test]
fn a_prompt_is_read_once_whatever_is_asked_of_it() {
    let mut rig = rig(1 << 20);
    let prompt = "abcdefgabc";
    let first = text_of(&mut rig, &request(prompt, 1, 5));
    assert_eq!(cost(&first), (0, 10 + 4));
    for seed in 2..9 {
        let mut wanted = request(prompt, seed, 5);
        wanted.sampling.repetition_penalty = Some(1.5);
        let text = text_of(&mut rig, &wanted);
        assert_eq!(text.complete(), solo(&wanted, &rig.vocab));
        assert_eq!(cost(&text), (9, 1 + 4));
    }
    // The last symbol is read either way, so it may be another.
    let wanted = request("abcdefgabg", 1, 5);
    let text = text_of(&mut rig, &wanted);
    assert_eq!((text.complete(), cost(&text)), (solo(&wanted, &rig.vocab), (9, 5)));
    for other in ["abcdefgaac", "abcdefgabcd", "bcdefgabc"] {
        let wanted = request(other, 1, 5);
        let text = text_of(&mut rig, &wanted);
        assert_eq!((text.complete(), cost(&text).0), (solo(&wanted, &rig.vocab), 0), "{other}");
    }
    let cache = rig.engine.stats().cache;
    assert_eq!((cache.hits, cache.misses), (8, 4));
    assert!(cache.num_bytes > 0);
}

#[test]
fn short_prompts_echoes_and_a_cache_without_room_are_read() {
    let mut without = rig(0);
    let mut with = rig(1 << 20);
    let short = "a".repeat(MIN_SYMBOLS);
    let long = "ab".repeat(MIN_SYMBOLS);
    for _ in 0..3 {
        assert_eq!(cost(&text_of(&mut without, &request(&long, 1, 3))).0, 0);
        assert_eq!(cost(&text_of(&mut with, &request(&short, 1, 3))).0, 0);
        let mut echo = request(&long, 1, 3);
        echo.output.echo_prompt = true;
        let text = text_of(&mut with, &echo);
        assert_eq!((cost(&text).0, text.text), (0, long.clone() + &solo(&echo, &with.vocab).text));
    }
    assert_eq!(with.engine.stats().cache.hits, 0);
    assert_eq!(with.engine.stats().cache.num_bytes, 0);
}

proptest! {
    /// All of these have the beginning of one of two prompts.
    #[test]
    fn texts_are_the_same_with_a_cache(
        mut requests in prop::collection::vec((generate_request(Unit::Char), any::<bool>(), 7usize..12), 1..12),
        end in end(Unit::Char), max_bytes in prop::sample::select(vec![1000, 1 << 20]),
    ) {
        let mut rig = rig(max_bytes);
        rig.end_token = end;
        for (request, which, len) in &mut requests {
            let ids = [[0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4], [6, 5, 4, 3, 2, 1, 0, 6, 5, 4, 3, 2]];
            request.prompt = Prompt::Ids(ids[usize::from(*which)][..*len].to_vec());
            request.stopping.regex = None;
            leave_out(end, request);
        }
        let mut readers = Vec::new();
        for (request, ..) in &requests {
            rig.turns(9);
            readers.push(rig.submit(request, 999).expect("room"));
        }
        while rig.turn() {}
        for ((request, ..), reader) in requests.iter().zip(&readers) {
            let text = std::mem::take(Transcript::default().read(reader)).complete();
            let alone = solo_ending(request, &rig.vocab, end);
            let Prompt::Ids(ids) = &request.prompt else { unreachable!() };
            let echo = if request.output.echo_prompt { rig.vocab.decode(ids) } else { String::new() };
            prop_assert_eq!((text.text, text.reason), (echo + &alone.text, alone.reason), "{:?}", request);
        }
        prop_assert!(rig.engine.stats().cache.num_bytes <= max_bytes);
    }
}
