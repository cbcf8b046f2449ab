//! When requests are due, and a thread that says so in time.
//!
//! tokio's timers tick in milliseconds; a thread that sleeps wakes within tens of microseconds.

use std::thread;
use std::time::{Duration, Instant};

use charrnn_core::philox::uniform64;
use tokio::sync::mpsc::{unbounded_channel, UnboundedReceiver};

use crate::job::{unit, Draw, PURPOSE_BENCH};

/// A rate and how it is kept.
#[derive(Clone, Copy, Debug)]
pub struct Arrivals {
    /// Requests a second.
    pub rate: f64,
    /// Exponential gaps instead of equal ones.
    pub poisson: bool,
    /// Of the gaps.
    pub seed: u64,
}

/// A request that has come due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    pub(crate) number: u64,
    pub(crate) at: Duration,
}

/// The times at which requests 0, 1, ... are due, from the start of the run; without end.
pub fn due_times(arrivals: Arrivals) -> impl Iterator<Item = Duration> {
    let mut at = 0.0;
    (0..).map(move |number| {
        let due = Duration::from_secs_f64(at);
        let draw = unit(uniform64(arrivals.seed, number, Draw::Due as u32, PURPOSE_BENCH));
        at += if arrivals.poisson { -(1.0 - draw).ln() } else { 1.0 } / arrivals.rate;
        due
    })
}

/// Every `stride`-th of `due_times` before `end`, from `offset` on, sent when it is due.
///
/// The channel has no bound: whatever the readers do, the schedule holds. It ends when the reader is gone.
pub(crate) fn pace(
    arrivals: Arrivals,
    (offset, stride): (usize, usize),
    began: Instant,
    end: Duration,
    requests: u64,
) -> UnboundedReceiver<Due> {
    let (sender, receiver) = unbounded_channel();
    let limit = usize::try_from(requests).unwrap_or(usize::MAX);
    let due = due_times(arrivals).take_while(move |&at| at < end).take(limit).enumerate();
    thread::spawn(move || {
        for (number, at) in due.skip(offset).step_by(stride) {
            thread::sleep((began + at).saturating_duration_since(Instant::now()));
            if sender.send(Due { number: number as u64, at }).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(poisson: bool, count: usize) -> Vec<f64> {
        let times: Vec<_> = due_times(Arrivals { rate: 100.0, poisson, seed: 7 }).take(count + 1).collect();
        times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect()
    }

    #[test]
    fn constant_arrivals_are_equally_far_apart() {
        assert!(gaps(false, 1000).iter().all(|gap| (gap - 0.01).abs() < 1e-8));
    }

    /// Mean and variance of 20 000 exponential gaps lie within 6 standard errors: false failures below 1e-8.
    #[test]
    fn poisson_arrivals_have_exponential_gaps() {
        let gaps = gaps(true, 20_000);
        let n = gaps.len() as f64;
        let mean = gaps.iter().sum::<f64>() / n;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / n;
        assert!((mean / 0.01 - 1.0).abs() < 6.0 / n.sqrt(), "mean {mean}");
        // The variance of a squared deviation of Exp(1) is 8.
        assert!((variance / 1e-4 - 1.0).abs() < 6.0 * (8.0 / n).sqrt(), "variance {variance}");
        let below_median = gaps.iter().filter(|&&gap| gap < 0.01 * 2f64.ln()).count() as f64 / n;
        assert!((below_median - 0.5).abs() < 6.0 * 0.5 / n.sqrt(), "{below_median} below the median");
    }
}
