//! Rows at the edges of float32, filters that must agree with each other, and the frequencies of many draws.

use charrnn_core::params::{LogprobsMode, SamplingParams, ValidSampling};
use charrnn_core::sampler::{Context, Draw, Path, Sampler};

const INF: f32 = f32::INFINITY;

fn params(change: impl FnOnce(&mut SamplingParams)) -> ValidSampling {
    let mut params = SamplingParams { seed: Some(20_150_521), ..SamplingParams::default() };
    change(&mut params);
    params.validate().expect("within limits")
}

/// Draws at the first positions, which every path has to agree on.
fn draws(logits: &[f32], params: &ValidSampling, num_draws: u64) -> Vec<Draw> {
    let on = |path: Path| {
        let mut sampler = Sampler::with_path(logits.len(), path);
        (0..num_draws)
            .map(|position| sampler.sample(logits, params, params.place(position, 0), Context::default()))
            .collect::<Vec<_>>()
    };
    let all: Vec<_> = Path::available().into_iter().map(on).collect();
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
    all[0].clone()
}

/// How often each symbol is drawn at the first positions.
fn counts(logits: &[f32], params: &ValidSampling, num_draws: u64) -> Vec<u64> {
    let mut counts = vec![0; logits.len()];
    let mut sampler = Sampler::new(logits.len());
    for position in 0..num_draws {
        match sampler.sample(logits, params, params.place(position, 0), Context::default()) {
            Draw::Token(token) => counts[token as usize] += 1,
            other => panic!("{other:?}"),
        }
    }
    counts
}

#[test]
fn rows_without_a_distribution_say_so_at_any_place_of_the_row() {
    for place in [0, 15, 31, 32, 64, 69] {
        for nan in [f32::NAN, -f32::NAN] {
            for rest in [0.0, INF, -INF] {
                let mut logits = [rest; 70];
                logits[place] = nan;
                for temperature in [0.0, 1.0, f64::INFINITY] {
                    let params = params(|p| p.temperature = Some(temperature));
                    assert_eq!(draws(&logits, &params, 1), [Draw::InvalidLogits], "{place} {rest}");
                }
            }
        }
    }
    for vocab_size in [1, 2, 33] {
        let logits = vec![-INF; vocab_size];
        assert_eq!(draws(&logits, &params(|p| p.top_k = Some(1)), 1), [Draw::NoCandidates]);
    }
}

#[test]
fn certain_rows_have_one_answer() {
    let rows: [(&[f32], u32); 7] = [
        (&[-7.0], 0),
        (&[f32::MIN], 0),
        (&[-INF, f32::MIN], 1),
        (&[f32::MIN, f32::MAX], 1),
        (&[0.0, INF, f32::MAX], 1),
        (&[0.0, 40.0, 0.0], 1),
        (&[-1e-45, -0.0], 1),
    ];
    for (logits, token) in rows {
        let temperature = if logits[0] == -1e-45 { 5e-324 } else { 1.0 };
        let params = params(|p| p.temperature = Some(temperature));
        assert_eq!(draws(logits, &params, 50), [Draw::Token(token); 50], "{logits:?}");
    }
}

#[test]
fn symbols_at_plus_infinity_share_everything() {
    let logits = [INF, 3.0, INF, -INF, INF, f32::MAX];
    let counts = counts(&logits, &params(|_| {}), 30_000);
    assert_eq!((counts[1], counts[3], counts[5]), (0, 0, 0));
    // Six standard deviations of a count of 10,000 are 490.
    assert!([0, 2, 4].iter().all(|&id: &usize| counts[id].abs_diff(10_000) < 490), "{counts:?}");
}

/// -0 and 0 are the same logit, so they tie and the lower id wins.
#[test]
fn everything_that_keeps_one_symbol_keeps_the_greedy_one() {
    let rows: [&[f32]; 6] = [
        &[-3.0, -2.0, -2.0],
        &[-0.0, 0.0, -1.0],
        &[0.0, -0.0, -1.0],
        &[-5.0, INF, INF],
        &[-INF, -1e-40, -1e-40, -1.0],
        &[1.0; 65],
    ];
    for logits in rows {
        let greedy = draws(logits, &params(|p| p.temperature = Some(0.0)), 5);
        assert_eq!(draws(logits, &params(|p| p.top_k = Some(1)), 5), greedy, "{logits:?}");
        assert_eq!(draws(logits, &params(|p| p.top_p = Some(0.0)), 5), greedy, "{logits:?}");
        assert_eq!(draws(logits, &params(|p| (p.top_k, p.min_p) = (Some(1), Some(1.0))), 5), greedy);
    }
}

/// Neighbouring floats leave a search for the k-th largest a range of two, below and above zero.
#[test]
fn top_k_keeps_exactly_k_with_ties_by_lowest_id() {
    for base in [-2.5_f32, -1e-44, 0.0, 2.5] {
        for (first, last) in [(base, base), (base, base.next_up()), (base.next_up(), base)] {
            let mut logits = vec![-INF; 70];
            logits[3..40].fill(first);
            logits[40..60].fill(last);
            let mut ranked: Vec<usize> = (3..60).collect();
            ranked.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
            for k in [1, 20, 21, 56, 69] {
                let counts =
                    counts(&logits, &params(|p| (p.top_k, p.temperature) = (Some(k), Some(1e30))), 1000);
                let mut expected = ranked[..ranked.len().min(k as usize)].to_vec();
                expected.sort_unstable();
                // 1000 draws miss one of at most 57 symbols once in 8e5 sets of draws.
                let drawn: Vec<usize> = (0..70).filter(|&id| counts[id] > 0).collect();
                assert_eq!(drawn, expected, "{first} {last} {k}");
            }
        }
    }
}

/// Chi-square of 4e4 draws against the softmax of what `kept` leaves, which a right sampler exceeds for one seed in 1e9.
fn assert_follows_softmax(params: &ValidSampling, kept: impl Fn(usize) -> bool) {
    let logits: Vec<f32> = (0..40_u16).map(|id| f32::from((id * 17) % 40) * 0.1).collect();
    let num_draws = 40_000;
    let counts = counts(&logits, params, num_draws);
    let share = |id: usize| if kept(id) { (f64::from(logits[id]) / params.temperature()).exp() } else { 0.0 };
    let total: f64 = (0..40).map(share).sum();
    let (mut chi_square, mut num_kept) = (0.0, 0.0);
    for (id, &count) in counts.iter().enumerate() {
        let expected = share(id) / total * num_draws as f64;
        match kept(id) {
            false => assert_eq!(count, 0, "{id} is filtered away"),
            true => {
                chi_square += (count as f64 - expected).powi(2) / expected;
                num_kept += 1.0;
            }
        }
    }
    // The 1 - 1e-9 quantile by Wilson and Hilferty (1931).
    let spread = 2.0 / (9.0 * (num_kept - 1.0));
    let quantile = (num_kept - 1.0) * (1.0 - spread + 5.998 * f64::sqrt(spread)).powi(3);
    assert!(chi_square < quantile, "{chi_square} {quantile}");
}

/// Symbol `id` of the row is the `39 - (id * 17) % 40`-th most likely.
#[test]
fn draws_follow_the_softmax_of_what_the_filters_leave() {
    let rank = |id: usize| 39 - (id * 17) % 40;
    assert_follows_softmax(&params(|_| {}), |_| true);
    assert_follows_softmax(&params(|p| p.temperature = Some(2.5)), |_| true);
    assert_follows_softmax(&params(|p| p.top_k = Some(12)), |id| rank(id) < 12);
    // Weights fall by exp(-0.1) a rank: 1 - exp(-0.1 n) reaches 0.8 (1 - exp(-4)) at n = 15.4.
    assert_follows_softmax(&params(|p| p.top_p = Some(0.8)), |id| rank(id) < 16);
    // exp(-0.1 n) >= 0.3 up to n = 12.03.
    assert_follows_softmax(&params(|p| p.min_p = Some(0.3)), |id| rank(id) <= 12);
}

#[test]
fn probabilities_after_top_k_are_told_by_symbol_and_forgotten_by_the_next_draw() {
    let logits: Vec<f32> = (0..70).map(|id| if id % 9 == 4 { 2.0 } else { -(id as f32) / 70.0 }).collect();
    let mode = LogprobsMode::Processed;
    let told = |top_k: u32, temperature: f64| {
        params(|p| {
            (p.top_k, p.temperature, p.logprobs, p.logprobs_mode) =
                (Some(top_k), Some(temperature), Some(70), mode)
        })
    };
    let masked: Vec<f32> = logits.iter().map(|&l| if l == 2.0 { l } else { f32::NEG_INFINITY }).collect();
    let (short, all, greedy) = (told(8, 1.0), told(0, 1.0), told(8, 0.0));
    let mut sampler = Sampler::new(logits.len());
    let mut draw = |logits: &[f32], params: &ValidSampling| {
        sampler.sample(logits, &short, short.place(4, 0), Context::default());
        let draw = sampler.sample(logits, params, params.place(5, 0), Context::default());
        let Draw::Token(token) = draw else { panic!("{draw:?}") };
        (token, sampler.logprobs(logits, params, token))
    };
    let expected = draw(&masked, &all);
    assert_eq!(draw(&logits, &short), expected);
    let (token, told) = draw(&logits, &greedy);
    let told = told.expect("asked for");
    assert_eq!((token, told.token, told.top[1].1), (4, 0.0, f32::NEG_INFINITY));
}
