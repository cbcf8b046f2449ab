//! Where a server's time goes, by its own account: what GetStats counted in the window.

use charrnn_serve::pb::{Histogram, ModelStats};
use serde::Serialize;

/// Means over the window, in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Split {
    /// Steps of the model.
    pub steps: u64,
    /// Streams in a step.
    pub mean_batch: f64,
    /// A step of the model.
    pub step_ms: f64,
    /// The draws after it.
    pub sample_ms: f64,
    /// Handing over what it gave.
    pub send_ms: f64,
    /// A text's wait for a slot; absent if none began in the window.
    pub queue_ms: Option<f64>,
}

impl Split {
    /// Of what was counted between two looks; none if no step was run.
    pub(crate) fn between(before: &ModelStats, after: &ModelStats) -> Option<Self> {
        let ms =
            |part: fn(&ModelStats) -> &Option<Histogram>| mean(part(before), part(after)).map(|ns| ns / 1e6);
        Some(Split {
            steps: count(&after.batch).checked_sub(count(&before.batch))?,
            mean_batch: mean(&before.batch, &after.batch)?,
            step_ms: ms(|stats| &stats.step)?,
            sample_ms: ms(|stats| &stats.sample)?,
            send_ms: ms(|stats| &stats.send)?,
            queue_ms: ms(|stats| &stats.queue),
        })
    }
}

fn mean(before: &Option<Histogram>, after: &Option<Histogram>) -> Option<f64> {
    let values = count(after).checked_sub(count(before)).filter(|&values| values > 0)?;
    let sum = |histogram: &Option<Histogram>| histogram.as_ref().map_or(0, |histogram| histogram.sum);
    Some(sum(after).checked_sub(sum(before))? as f64 / values as f64)
}

fn count(histogram: &Option<Histogram>) -> u64 {
    histogram.as_ref().map_or(0, |histogram| histogram.counts.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(counts: &[u64], sum: u64) -> ModelStats {
        let histogram = Some(Histogram { counts: counts.to_vec(), sum });
        ModelStats {
            batch: histogram.clone(),
            step: histogram.clone(),
            sample: histogram.clone(),
            send: histogram,
            ..ModelStats::default()
        }
    }

    #[test]
    fn only_the_window_counts() {
        let (before, after) = (stats(&[1, 2], 4_000_000), stats(&[1, 4, 2], 16_000_000));
        let split = Split::between(&before, &after).expect("steps");
        assert_eq!((split.steps, split.step_ms, split.queue_ms), (4, 3.0, None));
        assert!(Split::between(&after, &after).is_none());
        // A server that was started anew in between.
        assert!(Split::between(&after, &before).is_none());
    }
}
