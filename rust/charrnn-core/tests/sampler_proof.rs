//! The sampler's statistics. A failure of a right sampler has the probability that each test states.
//!
//! Tests of more than a second are ignored; `make test-slow` runs them, compiled for speed.

use charrnn_core::params::{SamplingParams, ValidSampling};
use charrnn_core::philox::{uniform64, PURPOSE_SAMPLE};
use charrnn_core::sampler::{Context, Draw, Path, Place, Sampler};

const SEED: u64 = 20_150_521;

fn params(change: impl FnOnce(&mut SamplingParams)) -> ValidSampling {
    let mut params = SamplingParams { seed: Some(SEED), ..SamplingParams::default() };
    change(&mut params);
    params.validate().expect("within limits")
}

fn token(draw: Draw) -> usize {
    match draw {
        Draw::Token(token) => token as usize,
        other => panic!("{other:?}"),
    }
}

/// A row whose logits fall by a third from symbol to symbol, in an order that no filter knows.
fn row(vocab_size: usize) -> Vec<f32> {
    (0..vocab_size).map(|id| ((id * 37) % vocab_size) as f32 * -9.0 / vocab_size as f32).collect()
}

fn counts(logits: &[f32], params: &ValidSampling, num_draws: u64) -> Vec<u64> {
    let (mut counts, mut sampler) = (vec![0; logits.len()], Sampler::new(logits.len()));
    for position in 0..num_draws {
        counts[token(sampler.sample(logits, params, params.place(position, 0), Context::default()))] += 1;
    }
    counts
}

/// The normal deviate above which lies the probability `p`, by Abramowitz and Stegun 26.2.23 (error below 4.5e-4).
fn deviate(p: f64) -> f64 {
    let t = (-2.0 * p.ln()).sqrt();
    let (above, below) = (
        (0.010_328 * t + 0.802_853) * t + 2.515_517,
        ((0.001_308 * t + 0.189_269) * t + 1.432_788) * t + 1.0,
    );
    t - above / below
}

/// The value that chi-square exceeds with probability `p`, by Wilson and Hilferty (1931).
fn chi_square_limit(degrees: f64, p: f64) -> f64 {
    let spread = 2.0 / (9.0 * degrees);
    degrees * (1.0 - spread + deviate(p) * spread.sqrt()).powi(3)
}

/// Chi-square of draws against the exact probabilities; symbols that 5 draws are not expected of share a cell.
fn chi_square(counts: &[u64], probabilities: &[f64]) -> (f64, f64) {
    let num_draws: u64 = counts.iter().sum();
    let (mut sum, mut degrees, mut rare) = (0.0, -1.0, (0.0, 0.0));
    let mut add = |seen: f64, expected: f64| {
        sum += (seen - expected).powi(2) / expected;
        degrees += 1.0;
    };
    for (&seen, &p) in counts.iter().zip(probabilities) {
        match p * num_draws as f64 {
            0.0 => assert_eq!(seen, 0, "drew what has no probability"),
            expected if expected < 5.0 => rare = (rare.0 + seen as f64, rare.1 + expected),
            expected => add(seen as f64, expected),
        }
    }
    if rare.1 > 0.0 {
        add(rare.0, rare.1.max(1e-9));
    }
    (sum, degrees)
}

/// What each filter leaves of a row at a temperature, by sorting.
fn probabilities(logits: &[f32], temperature: f64, filter: &str) -> Vec<f64> {
    let mut p: Vec<f64> = logits.iter().map(|&l| (f64::from(l) / temperature).exp()).collect();
    let normalise = |p: &mut Vec<f64>| {
        let sum: f64 = p.iter().sum();
        p.iter_mut().for_each(|p| *p /= sum);
    };
    normalise(&mut p);
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[b].total_cmp(&p[a]).then(a.cmp(&b)));
    let entropy: f64 = p.iter().map(|p| -p * p.ln()).sum();
    let surprise = |id: usize| (-p[id].ln() - entropy).abs();
    if filter == "typical_p" {
        order.sort_by(|&a, &b| surprise(a).total_cmp(&surprise(b)).then(a.cmp(&b)));
    }
    let (mut mass, most) = (0.0, p[order[0]].max(0.0));
    let before: Vec<f64> = order
        .iter()
        .map(|&id| {
            let before = mass;
            mass += p[id];
            before
        })
        .collect();
    for (rank, &id) in order.iter().enumerate() {
        let is_kept = match filter {
            "top_k" => rank < 7,
            "top_p" => before[rank] < 0.8,
            "min_p" => p[id] >= 0.1 * most,
            "typical_p" => before[rank] < 0.6,
            _ => true,
        };
        p[id] = if is_kept { p[id] } else { 0.0 };
    }
    normalise(&mut p);
    p
}

/// 2e7 draws over all settings. Bonferroni: each of the 60 may fail with probability 1e-6 / 60, so all once in 1e6 seeds.
#[test]
#[ignore = "seconds"]
fn draws_follow_the_distribution_for_every_size_temperature_and_filter() {
    let settings: Vec<_> = [2, 65, 96, 256]
        .into_iter()
        .flat_map(|v| [0.5, 1.0, 2.0].map(|t| (v, t)))
        .flat_map(|(v, t)| ["none", "top_k", "top_p", "min_p", "typical_p"].map(|filter| (v, t, filter)))
        .collect();
    assert_eq!(settings.len(), 60);
    for (vocab_size, temperature, filter) in settings {
        let params = params(|p| {
            p.temperature = Some(temperature);
            match filter {
                "top_k" => p.top_k = Some(7),
                "top_p" => p.top_p = Some(0.8),
                "min_p" => p.min_p = Some(0.1),
                "typical_p" => p.typical_p = Some(0.6),
                _ => {}
            }
        });
        let logits = row(vocab_size);
        let (found, degrees) =
            chi_square(&counts(&logits, &params, 334_000), &probabilities(&logits, temperature, filter));
        let limit = if degrees > 0.0 { chi_square_limit(degrees, 1e-6 / 60.0) } else { 0.0 };
        assert!(
            found <= limit,
            "V={vocab_size} T={temperature} {filter}: {found} above {limit} with {degrees}"
        );
    }
}

/// Correlation of the uniform numbers of neighbouring positions, streams and seeds: that of n independent pairs has the
/// deviation 1 / sqrt(n), so 6 deviations fail once in 5e8 seeds, for each of the three.
#[test]
fn neighbours_are_not_correlated() {
    let num = 200_000_u64;
    let uniform = |seed, position, stream| {
        uniform64(seed, position, stream, PURPOSE_SAMPLE) as f64 / 2_f64.powi(64) - 0.5
    };
    type Pair = Box<dyn Fn(u64) -> (f64, f64)>;
    let pairs: [(&str, Pair); 3] = [
        ("positions", Box::new(move |i| (uniform(SEED, 2 * i, 0), uniform(SEED, 2 * i + 1, 0)))),
        ("streams", Box::new(move |i| (uniform(SEED, i, 0), uniform(SEED, i, 1)))),
        ("seeds", Box::new(move |i| (uniform(2 * i, 7, 0), uniform(2 * i + 1, 7, 0)))),
    ];
    for (name, pair) in pairs {
        let sum: f64 = (0..num).map(|i| pair(i).0 * pair(i).1).sum();
        let correlation = sum / num as f64 * 12.0;
        assert!(correlation.abs() < 6.0 / (num as f64).sqrt(), "{name}: {correlation}");
    }
}

/// 262,144 equal symbols far below the best one: what their weights say together is what they have, to 1e-4.
#[test]
fn the_tail_has_its_mass() {
    const NUM_TAIL: usize = 262_144;
    for gap in [18.0_f32, 20.5] {
        let mut logits = vec![-gap; NUM_TAIL + 1];
        logits[77] = 0.0;
        let mut sampler = Sampler::new(logits.len());
        let distribution = sampler.distribution(&logits).expect("numbers");
        let best = distribution.share(77).expect("the best weighs most").size;
        let tail = (distribution.total() - best) as f64 / distribution.total() as f64;
        let exact = NUM_TAIL as f64 * (-f64::from(gap)).exp();
        let exact = exact / (1.0 + exact);
        assert!((tail / exact - 1.0).abs() < 1e-4, "gap {gap}: {tail} instead of {exact}");
    }
}

/// 1e9 draws, none of a symbol that is excluded by its logit, by `allowed`, or by its bias. Exact: no failure is by chance.
#[test]
#[ignore = "a minute"]
fn what_is_excluded_is_never_drawn() {
    let logits = [0.0, f32::NEG_INFINITY, -1.0, 0.5, 0.0];
    let plain = params(|p| p.temperature = Some(1.5));
    let biased = params(|p| p.logit_bias = vec![(2, f64::NEG_INFINITY)]);
    let allowed = params(|p| p.allowed = Some(vec![0, 1, 3]));
    for (params, excluded) in [(plain, vec![1]), (biased, vec![1, 2]), (allowed, vec![1, 2, 4])] {
        let counts = counts(&logits, &params, 334_000_000);
        assert!(excluded.iter().all(|&id| counts[id] == 0), "{counts:?}");
    }
}

/// Rows in another order, batches cut in two, paths of instructions, two threads: the same symbols and log-probabilities.
#[test]
fn nothing_else_shows_in_a_draw() {
    let num_rows = 64_u32;
    let params = params(|p| {
        (p.temperature, p.top_k, p.top_p, p.typical_p) = (Some(0.9), Some(50), Some(0.97), Some(0.9));
        (p.repetition_penalty, p.logprobs) = (Some(1.1), Some(4));
    });
    let row = |r: u32| -> Vec<f32> {
        (0..131_u32).map(|id| ((id * 7919 + r * 104_729) % 997) as f32 / 90.0).collect()
    };
    let draw = |sampler: &mut Sampler, r: u32| {
        let (logits, history) = (row(r), [r % 131, 5, 5, 9]);
        let place = Place { seed: SEED, position: u64::from(r), stream: r };
        let token = token(sampler.sample(&logits, &params, place, Context { history: &history, mask: None }));
        let told = sampler.logprobs(&logits, &params, token as u32).expect("asked for");
        (token, told.token.to_bits(), told.top.iter().map(|&(id, p)| (id, p.to_bits())).collect::<Vec<_>>())
    };
    let mut sampler = Sampler::with_path(131, Path::available()[0]);
    let expected: Vec<_> = (0..num_rows).map(|r| draw(&mut sampler, r)).collect();
    for path in Path::available() {
        let mut sampler = Sampler::with_path(131, path);
        let backwards: Vec<_> = (0..num_rows).rev().map(|r| draw(&mut sampler, r)).collect();
        assert!(backwards.iter().rev().eq(&expected), "{path:?}");
    }
    let half = |rows: std::ops::Range<u32>| rows.map(|r| draw(&mut Sampler::new(131), r)).collect::<Vec<_>>();
    let threads: Vec<_> = std::thread::scope(|scope| {
        let second = scope.spawn(|| half(32..64));
        [half(0..32), second.join().expect("no panic")].concat()
    });
    assert_eq!(threads, expected);
}
