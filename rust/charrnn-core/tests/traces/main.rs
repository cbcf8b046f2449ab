//! Random traces of joins, leaves, slow readers, deadlines, faults, stops and texts that are cut and go on: every text is
//! what it would be alone.
//!
//! A seed is a trace. Each run of the tests makes the same few hundred, `make fuzz-traces` others for FUZZ_SECONDS.

#[path = "../common/mod.rs"]
mod common;
mod texts;
mod trace;
mod world;

use std::panic;
use std::time::{Duration, Instant, UNIX_EPOCH};

use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

const NUM_TRACES: u64 = 800;
/// Shorter traces tried once one fails.
const MAX_SHRINKS: u32 = 20_000;

#[test]
fn every_text_is_what_it_is_alone() {
    let number = |name| std::env::var(name).ok().map(|value| value.parse().expect("a whole number"));
    // Of a failing trace the shortest is shown, not all that were tried on the way to it.
    let report = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let found = match (number("FUZZ_SEED"), number("FUZZ_SECONDS")) {
        (Some(seed), _) => check(seed),
        (None, Some(seconds)) => check_for(Duration::from_secs(seconds)),
        (None, None) => (0..NUM_TRACES).try_for_each(check),
    };
    panic::set_hook(report);
    found.unwrap_or_else(|found| panic!("{found}"));
}

/// Runs one trace; if it fails, what is wrong with the shortest that still does.
fn check(seed: u64) -> Result<(), String> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config =
        Config { cases: 1, failure_persistence: None, max_shrink_iters: MAX_SHRINKS, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let run = |trace| {
        world::run(trace);
        Ok(())
    };
    TestRunner::new_with_rng(config, rng).run(&trace::traces(), run).map_err(|error| match error {
        TestError::Fail(why, trace) => {
            format!("{why}\n{trace:#?}\n`make fuzz-traces FUZZ_SEED={seed}` runs it again")
        }
        TestError::Abort(why) => format!("no trace: {why}"),
    })
}

/// Traces that no run has made before.
fn check_for(time: Duration) -> Result<(), String> {
    let (began, first) = (Instant::now(), UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64));
    let mut seeds = first..;
    while began.elapsed() < time {
        seeds.next().map_or(Ok(()), check)?;
    }
    eprintln!("{} traces from seed {first}", seeds.start - first);
    Ok(())
}
